// lib/jit/targets/wasm/linear.ts: Linear: inputs times Weights. One unit of work is one panel of 16 output features of one
// output, for all rows: a Weight is read from memory once, whatever the batch.

import { sizeOf } from '../../../tensor.js';
import type { LinearProduct, StructuredNode } from '../../graph.js';
import type { KernelStep, Plan } from '../../plan.js';
import { type Preparation, preparationOf, prepareFunction } from './activations.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import type { Expr } from './nodes.js';
import { decodedLayout, layoutOf, PANEL, type PackedLayout } from './pack.js';
import { type Factor, multiplyPanel, runEpilogue, STRIP_BYTES } from './panels.js';
import { i32, select } from './scalars.js';

/** From so many rows on, a panel is unpacked once instead of once for every four rows. */
const DECODED_FROM_ROWS = 4;

export function emitLinear(context: KernelContext, step: KernelStep, weights: Plan['weights']): Kernel {
  const node = step.node as StructuredNode<'Linear'>;
  const x = node.inputs[0]!;
  const inDim = x.shape.at(-1)!;
  const rows = sizeOf(x.shape.slice(0, -1));
  const { f, begin, end } = context.kernel('linear');
  const source = f.let('x', context.addresses.place(step.inputs[0]!));
  const layouts = node.attrs.products.map((product) =>
    layoutOf(weights[product.weight]!.format, product.transposed),
  );
  const multiplied = layouts.map((layout) => (rows >= DECODED_FROM_ROWS ? decodedLayout(layout) : layout));
  const scratch = planScratch(multiplied, rows);
  const base = f.let('scratch', context.scratch(scratch.bytes));
  f.when(i32.lt_u(begin, end), () => prepareInputs(context, f, scratch.prepared, source, base, rows));
  const factors = node.attrs.products.map((product, i): Factor => {
    const prepared = scratch.prepared.find((each) => each.key === keyOf(multiplied[i]!));
    return {
      layout: layouts[i]!,
      multiplied: multiplied[i]!,
      decoded: f.let('decoded', i32.add(base, scratch.decodedAt)),
      weights: f.let('weights', weightAddress(context, product, layouts[i]!)),
      inputs: prepared ? f.let('inputs', i32.add(base, prepared.at)) : source,
      inputLayout: prepared?.preparation.inputs ?? { rowBytes: inDim * 4, scalesAt: 0, sumsAt: 0 },
      columns: columnsOf(product, layouts[i]!),
    };
  });
  let firstUnit = 0;
  node.attrs.epilogues.forEach((epilogue, i) => {
    const own = epilogue.products.map((product) => factors[product]!);
    const panels = Math.ceil(own[0]!.columns / PANEL);
    const panel = f.local('i32', 'panel');
    const [from, to] = [clampUnit(begin, firstUnit, panels), clampUnit(end, firstUnit, panels)];
    const output = { node, step, index: i, columns: own[0]!.columns };
    f.loop(panel, from, to, 1, () => {
      own.forEach((factor, at) => {
        const stream = f.let('stream', i32.add(factor.weights, i32.mul(panel, factor.layout.panelBytes)));
        const sums = f.let('sums', i32.add(base, scratch.sumsAt + at * rows * STRIP_BYTES));
        multiplyPanel(context, f, factor, stream, sums, rows);
      });
      runEpilogue(context, f, epilogue, output, panel, i32.add(base, scratch.sumsAt), rows);
    });
    firstUnit += panels;
  });
  return context.finish(f, rows === 0 ? 0 : firstUnit);
}

const columnsOf = ({ columns }: LinearProduct, { outDim }: PackedLayout) =>
  columns ? columns.end - columns.begin : outDim;

/** Address of the product's first panel. */
function weightAddress(context: KernelContext, product: LinearProduct, layout: PackedLayout): Expr {
  const address = context.addresses.weight(product.weight, product.transposed ? 'transposed' : 'straight');
  const firstPanel = (product.columns?.begin ?? 0) / PANEL;
  return firstPanel === 0 ? address : i32.add(address, firstPanel * layout.panelBytes);
}

/** min(max(unit - first, 0), count). */
function clampUnit(unit: Expr, first: number, count: number): Expr {
  const own = first === 0 ? unit : select(i32.sub(unit, first), 0, i32.gt_u(unit, first), 'i32');
  return select(own, count, i32.lt_u(own, count), 'i32');
}

// ------------------------------------------------------------------ inputs

interface Prepared {
  readonly key: string;
  readonly preparation: Preparation;
  readonly at: number; // offset in the scratch
}

/** Inputs are prepared once for all Weights that want them alike. */
function keyOf(layout: PackedLayout): string | undefined {
  const preparation = preparationOf(layout);
  if (!preparation) return undefined;
  const { kind, inDim, groupSize, paddedGroup, block } = preparation;
  return `prepare_${kind}_${inDim}_${groupSize}_${paddedGroup}_${block}`;
}

function planScratch(layouts: readonly PackedLayout[], rows: number) {
  const prepared: Prepared[] = [];
  let bytes = 0;
  for (const layout of layouts) {
    const key = keyOf(layout);
    const preparation = preparationOf(layout);
    if (!key || !preparation || prepared.some((each) => each.key === key)) continue;
    prepared.push({ key, preparation, at: bytes });
    bytes += Math.ceil((rows * preparation.inputs.rowBytes) / 64) * 64;
  }
  const sumsAt = bytes;
  bytes += layouts.length * rows * STRIP_BYTES;
  const decodedAt = bytes;
  if (rows >= DECODED_FROM_ROWS) bytes += Math.max(...layouts.map(({ panelBytes }) => panelBytes));
  return { prepared, sumsAt, decodedAt, bytes };
}

function prepareInputs(
  context: KernelContext,
  f: FunctionBuilder,
  prepared: readonly Prepared[],
  source: Local,
  base: Local,
  rows: number,
): void {
  for (const { key, preparation, at } of prepared) {
    const prepare = context.shared(key, (name) => prepareFunction(name, preparation));
    const row = f.local('i32', 'row');
    f.loop(row, 0, rows, 1, () => {
      const from = i32.add(source, i32.mul(row, preparation.inDim * 4));
      f.call(prepare, from, i32.add(i32.add(base, at), i32.mul(row, preparation.inputs.rowBytes)));
    });
  }
}
