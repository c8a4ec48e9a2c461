// lib/jit/targets/wasm/linear.ts: Linear and BatchMatMul: panels of 16 output features, each multiplied (products.ts)
// into a small buffer of sums and then sent through its epilogue (strips.ts).
// One unit of work is one panel of one output, for all rows: a Weight is read from memory once, whatever the batch.

import { sizeOf } from '../../../tensor.js';
import type { Epilogue, LinearProduct, StructuredNode, Value } from '../../graph.js';
import { broadcastView, stridesOf } from '../../graph.js';
import type { KernelStep } from '../../plan.js';
import { type Preparation, preparationOf, prepareFunction } from './activations.js';
import type { FunctionBuilder, FunctionReference, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { decodeFunction } from './decode.js';
import { addStrides, mergeAxes, unravel } from './elementwise.js';
import { loads, stores } from './memory.js';
import type { Expr, Operand } from './nodes.js';
import { decodedLayout, layoutOf, PANEL, type PackedLayout } from './pack.js';
import { type InputLayout, productFunction, ROWS } from './products.js';
import { i32, select } from './scalars.js';
import { emitStrip } from './strips.js';
import { v128 } from './vectors.js';

const STRIP_BYTES = PANEL * 4;
/** From so many rows on, a panel is unpacked once instead of once for every four rows. */
const DECODED_FROM_ROWS = 8;

/** What one product needs while the kernel runs. */
interface Factor {
  readonly layout: PackedLayout;
  /** The layout that is multiplied: the same, or the panel unpacked, at `decoded`. */
  readonly multiplied: PackedLayout;
  readonly decoded: Local;
  readonly weights: Local; // address of the first panel
  readonly inputs: Local; // address of the first row, prepared
  readonly inputLayout: InputLayout;
  readonly columns: number;
}

export function emitLinear(
  context: KernelContext,
  step: KernelStep,
  weights: readonly WeightShape[],
): Kernel {
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
  const _macs = factors.reduce((sum, { columns }) => sum + columns * inDim * rows, 0);
  const _weightBytes = factors.reduce(
    (sum, { layout, columns }) => sum + (layout.bytes * columns) / layout.outDim,
    0,
  );
  return context.finish(f, rows === 0 ? 0 : firstUnit);
}

/** The part of a WeightSlot that code depends on. */
export interface WeightShape {
  readonly format: Parameters<typeof layoutOf>[0];
}

const _valueBytesOf = (values: readonly Value[]) =>
  values.reduce((sum, { shape }) => sum + sizeOf(shape) * 4, 0);

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

// ------------------------------------------------------------------ one panel

/** sums [rows][16] = inputs times one panel, a few rows at a time. */
function multiplyPanel(
  context: KernelContext,
  f: FunctionBuilder,
  factor: Factor,
  stream: Local,
  sums: Local,
  rows: number,
): void {
  const { inputs, multiplied, decoded, inputLayout } = factor;
  const isDecoded = factor.layout !== multiplied;
  if (isDecoded) f.call(decoderOf(context, factor.layout), stream, decoded);
  const whole = Math.floor(rows / ROWS);
  const rowsAt = (first: Operand, bytes: number) =>
    typeof first === 'number' ? first * bytes : i32.mul(first, bytes);
  const call = (count: number, first: Operand) => {
    const product = productOf(context, multiplied, count, inputLayout);
    f.call(
      product,
      isDecoded ? decoded : stream,
      i32.add(inputs, rowsAt(first, inputLayout.rowBytes)),
      i32.add(sums, rowsAt(first, STRIP_BYTES)),
    );
  };
  if (whole > 0) {
    const row = f.local('i32', 'row');
    f.loop(row, 0, whole * ROWS, ROWS, () => call(ROWS, row));
  }
  if (rows % ROWS > 0) call(rows % ROWS, whole * ROWS);
}

function decoderOf(context: KernelContext, layout: PackedLayout): FunctionReference {
  const { kind, inDim, groupSize, paddedGroup } = layout;
  const key = `decode_${kind}_${inDim}_${groupSize}_${paddedGroup}`;
  return context.shared(key, (name) => decodeFunction(name, layout));
}

function productOf(
  context: KernelContext,
  layout: PackedLayout,
  rows: number,
  inputs: InputLayout,
): FunctionReference {
  const { kind, inDim, groupSize, paddedGroup, block } = layout;
  const key = `product_${kind}_${inDim}_${groupSize}_${paddedGroup}_${block}_rows${rows}_${inputs.rowBytes}`;
  return context.shared(key, (name) => productFunction(name, layout, rows, inputs));
}

interface OutputOf {
  readonly node: { readonly inputs: readonly Value[]; readonly outputs: readonly Value[] };
  readonly step: KernelStep;
  readonly index: number;
  readonly columns: number;
}

/** Sends the sums of one panel through the program and to the output, row by row. */
function runEpilogue(
  context: KernelContext,
  f: FunctionBuilder,
  epilogue: Epilogue,
  { node, step, index, columns }: OutputOf,
  panel: Local,
  sums: Expr,
  rows: number,
  firstRow?: Local,
): void {
  const { shape } = node.outputs[index]!;
  const own = { offset: 0, strides: stridesOf(shape) };
  const views = [own, ...epilogue.operands.map(({ view }) => view)];
  const leading = views.map(({ offset, strides }) => ({ offset, strides: strides.slice(0, -1) }));
  const { lengths, strides } = mergeAxes(shape.slice(0, -1), leading);
  const places = [step.outputs[index]!, ...epilogue.operands.map(({ input }) => step.inputs[input]!)];
  const column = f.let('column', i32.shl(panel, 4));
  const bases = places.map((place, i) => {
    const { offset, strides: all } = views[i]!;
    const start = i32.add(context.addresses.place(place), offset * 4);
    return f.let('base', i32.add(start, i32.mul(column, (all.at(-1) ?? 0) * 4)));
  });
  const left = i32.sub(columns, column);
  const count =
    columns % PANEL === 0 ? PANEL : f.let('count', select(left, PANEL, i32.lt_u(left, PANEL), 'i32'));
  const row = f.local('i32', 'row');
  const strip = f.let('strip', sums);
  f.loop(row, 0, rows, 1, () => {
    const position = firstRow ? f.let('position', i32.add(row, firstRow)) : row;
    const indices = unravel(f, position, lengths);
    const [out, ...others] = bases.map((base, i) => f.let('pointer', addStrides(base, indices, strides[i]!)));
    const operands = [
      ...epilogue.products.map((_, i) => ({
        pointer: f.let('product', i32.add(strip, i * rows * STRIP_BYTES)),
        stride: 1,
      })),
      ...others.map((pointer, i) => ({ pointer, stride: views[i + 1]!.strides.at(-1) ?? 0 })),
    ];
    emitStrip(context, f, epilogue.program, operands, out!, count);
    f.increase(strip, STRIP_BYTES);
  });
}

// ------------------------------------------------------------------ products of two tensors

/** The second factor is packed panel by panel into scratch memory; then as Linear. One unit: one panel of one batch. */
export function emitBatchMatMul(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'BatchMatMul'>;
  const { transposeA, transposeB, epilogue } = node.attrs;
  const [a, b] = node.inputs as [Value, Value];
  const { shape } = node.outputs[0]!;
  const [m, n] = shape.slice(-2) as [number, number];
  const k = a.shape.at(transposeA ? -2 : -1)!;
  const batch = shape.slice(0, -2);
  const layout = layoutOf({ kind: 'float', dtype: 'f32', shape: [k, n] }, false);
  const panelAt = layout.panelBytes;
  const turnedAt = panelAt + m * STRIP_BYTES;
  const { f, begin, end } = context.kernel('matmul');
  const scratch = f.let('scratch', context.scratch(turnedAt + (transposeA ? m * k * 4 : 0)));
  const unit = f.local('i32', 'unit');
  const [aBase, bBase] = [0, 1].map((i) => f.let('base', context.addresses.place(step.inputs[i]!))) as [
    Local,
    Local,
  ];
  f.loop(unit, begin, end, 1, () => {
    const panel = f.let('panel', i32.rem_u(unit, layout.panels));
    const index = f.let('batch', i32.div_u(unit, layout.panels));
    const indices = unravel(f, index, batch);
    const matrixAt = (base: Local, value: Value) => {
      const view = broadcastView(value.shape.slice(0, -2), batch);
      const matrix = sizeOf(value.shape.slice(-2));
      return f.let(
        'matrix',
        addStrides(
          base,
          indices,
          view.strides.map((stride) => stride * matrix),
        ),
      );
    };
    const [left, right] = [matrixAt(aBase, a), matrixAt(bBase, b)];
    packPanel(f, right, scratch, panel, { k, n, transposed: transposeB });
    if (transposeA) transposeRows(f, left, i32.add(scratch, turnedAt), m, k);
    const inputs = transposeA ? f.let('turned', i32.add(scratch, turnedAt)) : left;
    const sums = f.let('sums', i32.add(scratch, panelAt));
    const inputLayout = { rowBytes: k * 4, scalesAt: 0, sumsAt: 0 };
    multiplyPanel(
      context,
      f,
      { layout, multiplied: layout, decoded: scratch, weights: scratch, inputs, inputLayout, columns: n },
      scratch,
      sums,
      m,
    );
    const firstRow = f.let('firstRow', i32.mul(index, m));
    runEpilogue(context, f, epilogue, { node, step, index: 0, columns: n }, panel, sums, m, firstRow);
  });
  const batches = sizeOf(batch);
  return context.finish(f, m * n === 0 ? 0 : batches * layout.panels);
}

interface MatrixShape {
  readonly k: number;
  readonly n: number;
  readonly transposed: boolean;
}

/** [k][16] columns of a matrix [k, n], or [n, k] if transposed; zeros beyond n. */
function packPanel(
  f: FunctionBuilder,
  from: Local,
  to: Local,
  panel: Local,
  { k, n, transposed }: MatrixShape,
): void {
  const [rowStep, columnStep] = transposed ? [1, k] : [n, 1];
  const row = f.local('i32', 'row');
  const lane = f.local('i32', 'lane');
  const first = f.let('first', i32.shl(panel, 4));
  const isWhole = i32.le_u(i32.add(first, PANEL), n);
  const source = f.let('source', i32.add(from, i32.mul(first, columnStep * 4)));
  const target = f.let('target', to);
  const rowStart = f.let('rowStart', source);
  const copyLanes = (count: Operand) => {
    f.set(source, rowStart);
    f.loop(lane, 0, count, 1, () => {
      f.do(stores.f32(i32.add(target, i32.shl(lane, 2)), loads.f32(source)));
      f.increase(source, columnStep * 4);
    });
  };
  const copyVectors = () => {
    for (let vector = 0; vector < PANEL / 4; vector++)
      f.do(stores.v128(target, loads.v128(rowStart, vector * 16), vector * 16));
  };
  const partly = () => {
    for (let vector = 0; vector < PANEL / 4; vector++) f.do(stores.v128(target, zero, vector * 16));
    copyLanes(i32.sub(n, first));
  };
  f.loop(row, 0, k, 1, () => {
    f.when(isWhole, columnStep === 1 ? copyVectors : () => copyLanes(PANEL), partly);
    f.increase(target, STRIP_BYTES);
    f.increase(rowStart, rowStep * 4);
  });
}

const zero = v128.xor(0, 0);

/** [k, m] -> [m, k]. */
function transposeRows(f: FunctionBuilder, from: Local, to: Expr, m: number, k: number): void {
  const [row, column] = [f.local('i32', 'row'), f.local('i32', 'column')];
  const target = f.let('target', to);
  const source = f.local('i32', 'source');
  f.loop(row, 0, m, 1, () => {
    f.set(source, i32.add(from, i32.shl(row, 2)));
    f.loop(column, 0, k, 1, () => {
      f.do(stores.f32(target, loads.f32(source)));
      f.increase(target, 4);
      f.increase(source, m * 4);
    });
  });
}
