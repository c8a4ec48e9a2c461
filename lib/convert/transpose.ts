// lib/convert/transpose.ts: PyTorch's Linear weight [out, in] -> a kernel [in, out], in its stored type.

import { type FloatWeight, matrixShape } from '../tensor.js';

/** Side of the square that is moved at once: both its rows and its columns then fit the first-level cache. */
const block = 32;

/**
 * Exchanges the axes of a two-dimensional Weight.
 * @param weight [rows, columns]
 * @returns [columns, rows], in new memory
 */
export function transposed(weight: FloatWeight): FloatWeight {
  const [rows, columns] = matrixShape(weight);
  const width = weight.dtype === 'f32' ? 4 : 2;
  const { bytes } = weight;
  const aligned = bytes.byteOffset % width === 0 ? bytes : bytes.slice();
  const size = rows * columns;
  const [from, to] =
    width === 4
      ? [new Uint32Array(aligned.buffer, aligned.byteOffset, size), new Uint32Array(size)]
      : [new Uint16Array(aligned.buffer, aligned.byteOffset, size), new Uint16Array(size)];
  transposeInto(from, to, rows, columns);
  return { ...weight, shape: [columns, rows], bytes: new Uint8Array(to.buffer) };
}

function transposeInto(
  from: Uint16Array | Uint32Array,
  to: Uint16Array | Uint32Array,
  rows: number,
  columns: number,
): void {
  for (let row = 0; row < rows; row += block) {
    const lastRow = Math.min(row + block, rows);
    for (let column = 0; column < columns; column += block) {
      const lastColumn = Math.min(column + block, columns);
      for (let c = column; c < lastColumn; c++) {
        for (let r = row; r < lastRow; r++) to[c * rows + r] = from[r * columns + c]!;
      }
    }
  }
}
