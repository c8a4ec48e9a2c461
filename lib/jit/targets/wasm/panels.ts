// lib/jit/targets/wasm/panels.ts: what Linear and BatchMatMul share: a panel of 16 output features times all rows of
// inputs (products.ts) into a small buffer of sums, and the sums through an epilogue (strips.ts) to the output.

import type { Epilogue, Value } from '../../graph.js';
import { stridesOf } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, FunctionReference, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { decodeFunction } from './decode.js';
import { addStrides, mergeAxes, unravel } from './elementwise.js';
import type { Expr, Operand } from './nodes.js';
import { type MultipliedLayout, PANEL, type PackedLayout } from './pack.js';
import { type InputLayout, type ProductSize, productFunction, ROWS, WIDE } from './products.js';
import { i32, select } from './scalars.js';
import { emitStrip } from './strips.js';

/** Bytes of one row's sums. */
export const STRIP_BYTES = PANEL * 4;

/** What one product needs while the kernel runs. */
export interface Factor {
  readonly layout: PackedLayout;
  /** The layout that is multiplied: the same, or the panel unpacked, at `decoded`. */
  readonly multiplied: MultipliedLayout;
  readonly decoded: Local;
  readonly weights: Local; // address of the first panel
  readonly inputs: Local; // address of the first row, prepared
  readonly inputLayout: InputLayout;
  readonly columns: number;
}

/** Panels that are multiplied together. */
export interface PanelRun {
  /** Address of the first, as it is stored. */
  readonly stream: Local;
  /** 1 or WIDE.panels. */
  readonly panels: number;
  /** sums [panel][rows][16]. */
  readonly sums: Local;
  readonly sumsBytes: number; // from one panel's sums to the next one's
}

/** sums = inputs times panels, a few rows at a time. */
export function multiplyPanels(
  context: KernelContext,
  f: FunctionBuilder,
  factor: Factor,
  { stream, panels, sums, sumsBytes }: PanelRun,
  rows: number,
): void {
  const { layout, inputs, multiplied, decoded, inputLayout } = factor;
  const isDecoded = layout !== multiplied;
  for (let panel = 0; isDecoded && panel < panels; panel++) {
    const from = i32.add(stream, panel * layout.panelBytes);
    f.call(decoderOf(context, layout), from, i32.add(decoded, panel * multiplied.panelBytes));
  }
  const at = (base: Expr, first: Operand, bytes: number) =>
    i32.add(base, typeof first === 'number' ? first * bytes : i32.mul(first, bytes));
  const skip = (base: Local, bytes: number) => (bytes === 0 ? base : i32.add(base, bytes));
  const call = (size: ProductSize, first: Operand, panel = 0) => {
    const weights = skip(isDecoded ? decoded : stream, panel * multiplied.panelBytes);
    const to = at(skip(sums, panel * sumsBytes), first, STRIP_BYTES);
    const from = at(inputs, first, inputLayout.rowBytes);
    f.call(productOf(context, multiplied, size, inputLayout), weights, from, to);
  };
  const most = panels > 1 ? WIDE.rows : ROWS;
  const whole = Math.floor(rows / most) * most;
  if (whole > 0) {
    const row = f.local('i32', 'row');
    f.loop(row, 0, whole, most, () => call({ rows: most, panels, sumsBytes }, row));
  }
  for (let panel = 0; rows > whole && panel < panels; panel++)
    call({ rows: rows - whole, panels: 1, sumsBytes }, whole, panel);
}

function decoderOf(context: KernelContext, layout: PackedLayout): FunctionReference {
  const { kind, inDim, groupSize, paddedGroup } = layout;
  const key = `decode_${kind}_${inDim}_${groupSize}_${paddedGroup}`;
  return context.shared(key, (name) => decodeFunction(name, layout));
}

function productOf(
  context: KernelContext,
  layout: MultipliedLayout,
  size: ProductSize,
  inputs: InputLayout,
): FunctionReference {
  const { kind, inDim, groupSize, paddedGroup, block } = layout;
  const wide = size.panels > 1 ? `_panels${size.panels}_${size.sumsBytes}` : '';
  const key = `product_${kind}_${inDim}_${groupSize}_${paddedGroup}_${block}_rows${size.rows}_${inputs.rowBytes}${wide}`;
  return context.shared(key, (name) => productFunction(name, layout, size, inputs, context.multiplyAdd));
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
