// lib/checkpoint/strided.ts: a tensor whose elements do not lie in row-major order -> row-major bytes.
// torch.save keeps views as they are: a transposed kernel is the same storage with its strides exchanged.

import { storedBytes, type TensorEntry } from './entry.js';

/** Bytes that a strided tensor spans in its storage, from its first element to its last. */
export function spanBytes({
  dtype,
  shape,
  strides,
}: Pick<TensorEntry, 'dtype' | 'shape' | 'strides'>): number {
  if (shape.includes(0)) return 0;
  const last = shape.reduce((offset, axis, i) => offset + (axis - 1) * strides![i]!, 0);
  return storedBytes(dtype, [last + 1]);
}

/** True if elements of this shape and these strides lie in row-major order without gaps. */
export function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

/**
 * Copies a strided tensor into row-major order.
 * @param span the bytes of its storage from its first element to its last
 * @returns storedBytes(dtype, shape) bytes
 */
export function contiguousBytes(
  span: Uint8Array,
  { dtype, shape, strides }: Pick<TensorEntry, 'dtype' | 'shape' | 'strides'>,
): Uint8Array {
  const width = storedBytes(dtype, [1]);
  const bytes = new Uint8Array(storedBytes(dtype, shape));
  let done = 0;
  const copy = (axis: number, from: number): void => {
    if (axis === shape.length) {
      for (let i = 0; i < width; i++) bytes[done++] = span[from * width + i]!;
      return;
    }
    for (let i = 0; i < shape[axis]!; i++) copy(axis + 1, from + i * strides![axis]!);
  };
  if (bytes.length > 0) copy(0, 0);
  return bytes;
}
