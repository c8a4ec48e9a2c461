// lib/jit/targets/wasm/panels.ts: what Linear and BatchMatMul share: a panel of 16 output features times all rows of
// inputs (products.ts) into a small buffer of sums, and the sums through an epilogue (strips.ts) to the output.

import type { Epilogue, Value } from '../../graph.js';
import { stridesOf } from '../../graph.js';
import type { KernelStep } from '../../plan.js';
import type { FunctionBuilder, FunctionReference, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { decodeFunction } from './decode.js';
import { addStrides, mergeAxes, unravel } from './elementwise.js';
import type { Expr, Operand } from './nodes.js';
import { PANEL, type PackedLayout } from './pack.js';
import { type InputLayout, productFunction, ROWS } from './products.js';
import { i32, select } from './scalars.js';
import { emitStrip } from './strips.js';

/** Bytes of one row's sums. */
export const STRIP_BYTES = PANEL * 4;

/** What one product needs while the kernel runs. */
export interface Factor {
  readonly layout: PackedLayout;
  /** The layout that is multiplied: the same, or the panel unpacked, at `decoded`. */
  readonly multiplied: PackedLayout;
  readonly decoded: Local;
  readonly weights: Local; // address of the first panel
  readonly inputs: Local; // address of the first row, prepared
  readonly inputLayout: InputLayout;
  readonly columns: number;
}

/** sums [rows][16] = inputs times one panel, a few rows at a time. */
export function multiplyPanel(
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

export interface OutputOf {
  readonly node: { readonly inputs: readonly Value[]; readonly outputs: readonly Value[] };
  readonly step: KernelStep;
  readonly index: number;
  readonly columns: number;
}

/** Sends the sums of one panel through the program and to the output, row by row. */
export function runEpilogue(
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
