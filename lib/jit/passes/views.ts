// lib/jit/passes/views.ts: arithmetic of Views: what reading through a transpose, slice, broadcast or reshape does to the
// offset and strides with which memory is read.

import type { Shape } from '../../tensor.js';
import { sizeOf } from '../../tensor.js';
import type { Attributes, View } from '../graph.js';
import { stridesOf } from '../graph.js';

/** Reads memory of `shape` in its own order. */
export function plainView(shape: Shape): View {
  return { offset: 0, strides: stridesOf(shape) };
}

/** `view` is over `from`; the result reads the same broadcast to `to`. */
export function broadcastThrough({ offset, strides }: View, from: Shape, to: Shape): View {
  const missing = to.length - from.length;
  return {
    offset,
    strides: to.map((_, axis) =>
      axis < missing || from[axis - missing] === 1 ? 0 : strides[axis - missing]!,
    ),
  };
}

export function transposeThrough({ offset, strides }: View, perm: readonly number[]): View {
  return { offset, strides: perm.map((axis) => strides[axis]!) };
}

export function sliceThrough(
  { offset, strides }: View,
  { begin, strides: steps }: Attributes['Slice'],
): View {
  return {
    offset: strides.reduce((sum, stride, axis) => sum + stride * begin[axis]!, offset),
    strides: strides.map((stride, axis) => stride * steps[axis]!),
  };
}

/**
 * The view over `to` that reads, in row-major order, what `view` reads over `from`.
 * @returns undefined where no strides can say it, as for a transposed matrix read as a list
 * @source NumPy's reshape without a copy: axes that are split or merged have to be contiguous with each other
 */
export function reshapeThrough({ offset, strides }: View, from: Shape, to: Shape): View | undefined {
  if (sizeOf(from) === 0) return { offset: 0, strides: to.map(() => 0) };
  const old = from.flatMap((size, axis) => (size === 1 ? [] : [{ size, stride: strides[axis]! }]));
  const result = new Array<number>(to.length).fill(0);
  let first = 0;
  for (let begin = 0; begin < to.length && first < old.length; ) {
    let [end, last] = [begin + 1, first + 1];
    let [wanted, held] = [to[begin]!, old[first]!.size];
    while (wanted !== held) {
      if (wanted < held) wanted *= to[end++]!;
      else held *= old[last++]!.size;
    }
    for (let axis = first; axis < last - 1; axis++)
      if (old[axis]!.stride !== old[axis + 1]!.size * old[axis + 1]!.stride) return undefined;
    let stride = old[last - 1]!.stride;
    for (let axis = end - 1; axis >= begin; axis--) {
      result[axis] = stride;
      stride *= to[axis]!;
    }
    [begin, first] = [end, last];
  }
  return { offset, strides: result };
}

/** True if the views read the same elements of a shape: strides of axes of length 1 or less do not matter. */
export function sameView(a: View, b: View, shape: Shape): boolean {
  const axes = shape.every((size, axis) => size <= 1 || a.strides[axis] === b.strides[axis]);
  return axes && a.offset === b.offset;
}

/** True if the view reads `size` elements of memory from the first to the last. */
export function isPlain(view: View, shape: Shape, size: number): boolean {
  return size === sizeOf(shape) && sameView(view, plainView(shape), shape);
}
