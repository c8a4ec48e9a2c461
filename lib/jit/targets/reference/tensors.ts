// lib/jit/targets/reference/tensors.ts: tensors as plain arrays, and walking over them.

import type { Shape, Weight } from '../../../tensor.js';
import { sizeOf } from '../../../tensor.js';
import type { Attributes, ElementType, ElementValues, StructuredOp, View } from '../../graph.js';

/** A tensor with its values. */
export interface Tensor {
  readonly dtype: ElementType;
  readonly shape: Shape;
  readonly values: ElementValues;
}

/** Computes a Node's outputs, which come filled with zeros. */
export type Kernel<Name extends StructuredOp> = (
  attrs: Attributes[Name],
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  weights: readonly Weight[],
) => void;

export function emptyTensor(dtype: ElementType, shape: Shape): Tensor {
  const size = sizeOf(shape);
  return { dtype, shape, values: dtype === 'f32' ? new Float32Array(size) : new Int32Array(size) };
}

/** Visits every index of a shape in row-major order, with the element that each view has there. */
export function forEachIndex(
  shape: Shape,
  views: readonly View[],
  visit: (at: number, elements: readonly number[]) => void,
): void {
  const size = sizeOf(shape);
  const index = new Array<number>(shape.length).fill(0);
  const elements = views.map((view) => view.offset);
  for (let at = 0; at < size; at++) {
    visit(at, elements);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const wraps = ++index[axis]! === shape[axis];
      const steps = wraps ? 1 - shape[axis]! : 1;
      for (let which = 0; which < views.length; which++)
        elements[which]! += steps * views[which]!.strides[axis]!;
      if (!wraps) break;
      index[axis] = 0;
    }
  }
}

/** [outer, n, inner]: elements before, in and after the axes first..last. */
export function around(shape: Shape, first: number, last = first): [outer: number, n: number, inner: number] {
  return [sizeOf(shape.slice(0, first)), sizeOf(shape.slice(first, last + 1)), sizeOf(shape.slice(last + 1))];
}

/** Rows of a tensor seen as [rows, width]. */
export function rowsOf(tensor: Tensor): number {
  return sizeOf(tensor.shape.slice(0, -1));
}

/** Row `at` of a tensor seen as [rows, width]; a view. */
export function rowOf(tensor: Tensor, at: number): ElementValues {
  const width = tensor.shape.at(-1)!;
  return tensor.values.subarray(at * width, (at + 1) * width);
}
