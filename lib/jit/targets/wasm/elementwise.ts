// lib/jit/targets/wasm/elementwise.ts: Elementwise kernels: a program over operands read through views.
// Axes that every operand walks alike are merged; the last is the strip, the others become one count of units.

import type { Shape } from '../../../tensor.js';
import { sizeOf } from '../../../tensor.js';
import type { View } from '../../graph.js';
import { stridesOf } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import type { Expr } from './nodes.js';
import { i32, select } from './scalars.js';
import { emitStrip } from './strips.js';

/** Longest strip of a unit, in elements: enough to hide the start of a unit, few enough to share between threads. */
const STRIP = 1024;

export function emitElementwise(context: KernelContext, step: KernelStep): Kernel {
  if (step.node.op !== 'Elementwise') throw new Error(`wasm: expected Elementwise, received ${step.node.op}`);
  const { views, program } = step.node.attrs;
  const { shape } = step.node.outputs[0]!;
  const size = sizeOf(shape);
  const { lengths, strides } = mergeAxes(shape, [{ offset: 0, strides: stridesOf(shape) }, ...views]);
  const strip = lengths.at(-1)!;
  const outer = lengths.slice(0, -1);
  const chunks = Math.ceil(strip / STRIP);
  const { f, begin, end } = context.kernel('elementwise');
  const places = [step.outputs[0]!, ...step.inputs];
  const bases = places.map((place, i) => {
    const offset = i === 0 ? 0 : views[i - 1]!.offset;
    return f.let('base', i32.add(context.addresses.place(place), offset * 4));
  });
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const row = f.let('row', chunks === 1 ? unit : i32.div_u(unit, chunks));
    const indices = unravel(f, row, outer);
    const pointers = bases.map((base, i) => f.let('pointer', addStrides(base, indices, strides[i]!)));
    const count = chunks === 1 ? strip : enterChunk(f, unit, chunks, strip, pointers, strides);
    const [out, ...inputs] = pointers as [Local, ...Local[]];
    const operands = inputs.map((pointer, i) => ({ pointer, stride: strides[i + 1]!.at(-1)! }));
    emitStrip(context, f, program, operands, out, count);
  });
  return context.finish(f, size === 0 ? 0 : sizeOf(outer) * chunks);
}

/** Moves the pointers to the unit's part of a long strip; gives the part's length. */
function enterChunk(
  f: FunctionBuilder,
  unit: Local,
  chunks: number,
  strip: number,
  pointers: readonly Local[],
  strides: readonly (readonly number[])[],
): Expr {
  const first = f.let('first', i32.mul(i32.rem_u(unit, chunks), STRIP));
  pointers.forEach((pointer, i) => {
    const stride = strides[i]!.at(-1)!;
    if (stride !== 0) f.increase(pointer, i32.mul(first, stride * 4));
  });
  const left = i32.sub(strip, first);
  return f.let('count', select(left, STRIP, i32.lt_u(left, STRIP), 'i32'));
}

/**
 * Drops axes of length 1 and merges neighbours that all operands walk as one.
 * @returns at least one axis; strides by operand and axis, in elements
 */
export function mergeAxes(
  shape: Shape,
  views: readonly View[],
): { readonly lengths: number[]; readonly strides: number[][] } {
  const lengths: number[] = [];
  const strides: number[][] = views.map(() => []);
  shape.forEach((length, axis) => {
    if (length === 1) return;
    const last = lengths.length - 1;
    const joins = last >= 0 && views.every((view, i) => strides[i]![last] === view.strides[axis]! * length);
    if (joins) lengths[last]! *= length;
    else lengths.push(length);
    views.forEach((view, i) => {
      strides[i]![lengths.length - 1] = view.strides[axis]!;
    });
  });
  if (lengths.length > 0) return { lengths, strides };
  return { lengths: [1], strides: views.map((_, i) => [i === 0 ? 1 : 0]) };
}

/** Index of each axis from a row-major count. */
export function unravel(f: FunctionBuilder, count: Local, lengths: readonly number[]): Local[] {
  const indices: Local[] = [];
  const rest = lengths.length > 1 ? f.let('rest', count) : count;
  for (let axis = lengths.length - 1; axis >= 0; axis--) {
    const isFirst = axis === 0;
    indices.unshift(f.let('index', isFirst ? rest : i32.rem_u(rest, lengths[axis]!)));
    if (!isFirst) f.set(rest, i32.div_u(rest, lengths[axis]!));
  }
  return indices;
}

/** base + 4 * sum of index * stride. */
export function addStrides(base: Expr, indices: readonly Expr[], strides: readonly number[]): Expr {
  return indices.reduce((sum, index, axis) => {
    const stride = strides[axis]!;
    return stride === 0 ? sum : i32.add(sum, i32.mul(index, stride * 4));
  }, base);
}
