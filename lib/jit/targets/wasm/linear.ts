// lib/jit/targets/wasm/linear.ts: Linear: inputs times Weights. One unit of work is one panel of 16 output features of one
// output, for all rows: a Weight is read from memory once, whatever the batch. How many panels go together changes speed
// alone: a sum is always added up input by input.

import { sizeOf } from '../../../tensor.js';
import type { LinearProduct, StructuredNode } from '../../graph.js';
import type { KernelStep, Plan } from '../../steps.js';
import { type Preparation, preparationOf, prepareFunction } from './activations.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import type { Expr } from './nodes.js';
import { decodedLayout, layoutOf, type MultipliedLayout, PANEL, type PackedLayout } from './pack.js';
import { type Factor, multiplyPanels, runEpilogue, STRIP_BYTES } from './panels.js';
import { WIDE } from './products.js';
import { i32, select } from './scalars.js';

/**
 * From so many rows on, a panel is unpacked once instead of once for every four rows. For int8 that saves the least: an
 * instruction a load (33 instead of 31 multiply-adds a ns), and costs a fifth of what four rows cost.
 */
const decodedFromRows = ({ kind }: PackedLayout) => (kind === 'int8' ? 32 : 4);
/** From so many rows on, float32 panels are multiplied three at a time. */
const WIDE_FROM_ROWS = 6;

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
  const multiplied = layouts.map((layout) =>
    rows >= decodedFromRows(layout) ? decodedLayout(layout) : layout,
  );
  const scratch = planScratch(multiplied, layouts, rows);
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
  const sumsBytes = node.attrs.products.length * rows * STRIP_BYTES;
  let firstUnit = 0;
  node.attrs.epilogues.forEach((epilogue, i) => {
    const own = epilogue.products.map((product) => factors[product]!);
    const units = Math.ceil(own[0]!.columns / PANEL);
    const panel = f.local('i32', 'panel');
    const output = { node, step, index: i, columns: own[0]!.columns };
    const multiply = (panels: number) => {
      own.forEach((factor, at) => {
        const stream = f.let('stream', i32.add(factor.weights, i32.mul(panel, factor.layout.panelBytes)));
        const sums = f.let('sums', i32.add(base, scratch.sumsAt + at * rows * STRIP_BYTES));
        multiplyPanels(context, f, factor, { stream, panels, sums, sumsBytes }, rows);
      });
      const finish = (each: Local, sums: Expr) => runEpilogue(context, f, epilogue, output, each, sums, rows);
      const sums = i32.add(base, scratch.sumsAt);
      if (panels === 1) return finish(panel, sums);
      const at = f.local('i32', 'at');
      f.loop(at, 0, panels, 1, () =>
        finish(f.let('each', i32.add(panel, at)), i32.add(sums, i32.mul(at, sumsBytes))),
      );
    };
    const [from, to] = [clampUnit(begin, firstUnit, units), clampUnit(end, firstUnit, units)];
    inRuns(f, panel, { from, to, width: scratch.width }, multiply);
    firstUnit += units;
  });
  return context.finish(f, rows === 0 ? 0 : firstUnit);
}

/** body(width) for as many panels at once as there are, then body(1) for each that is left. */
function inRuns(
  f: FunctionBuilder,
  panel: Local,
  { from, to, width }: { readonly from: Expr; readonly to: Expr; readonly width: number },
  body: (panels: number) => void,
): void {
  if (width === 1) {
    f.loop(panel, from, to, 1, () => body(1));
    return;
  }
  const [first, last] = [f.let('first', from), f.let('last', to)];
  const runs = i32.div_u(i32.sub(last, first), width);
  const whole = f.let('whole', i32.add(first, i32.mul(runs, width)));
  f.loop(panel, first, whole, width, () => body(width));
  f.loop(panel, whole, last, 1, () => body(1));
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
function keyOf(layout: MultipliedLayout): string | undefined {
  const preparation = preparationOf(layout);
  if (!preparation) return undefined;
  const { kind, inDim, groupSize, paddedGroup, block } = preparation;
  return `prepare_${kind}_${inDim}_${groupSize}_${paddedGroup}_${block}`;
}

/** Panels at once: more than one for many rows of float32. */
function widthOf(layouts: readonly MultipliedLayout[], rows: number): number {
  return rows >= WIDE_FROM_ROWS && layouts.every(({ kind }) => kind === 'f32') ? WIDE.panels : 1;
}

function planScratch(layouts: readonly MultipliedLayout[], stored: readonly PackedLayout[], rows: number) {
  const width = widthOf(layouts, rows);
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
  bytes += width * layouts.length * rows * STRIP_BYTES;
  const decodedAt = bytes;
  bytes += width * Math.max(...layouts.map((layout, i) => (layout === stored[i] ? 0 : layout.panelBytes)));
  return { prepared, width, sumsAt, decodedAt, bytes };
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
