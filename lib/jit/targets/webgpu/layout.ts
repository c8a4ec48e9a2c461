// lib/jit/targets/webgpu/layout.ts: how a Weight lies on the GPU: pure arithmetic, the same when a plan is compiled and
// when a Weight is bound.
//
//   rows0, rows1   a matrix as one row an output feature, its inputs in order, packed into 32-bit words: rows along axis
//                  0 (an embedding [vocab, dim], or a product's transposed Weight), or along axis 1 (a kernel [in, out]).
//                  Each row takes a multiple of 16 bytes, filled up with zeros. Scales: f32 [rows, groups].
//   whole          all values as f32, row-major, in the Weight's own shape

import { sizeOf } from '../../../tensor.js';
import type { WeightFormat } from '../../graph.js';
import { type Packing, packedPerWord } from '../../kernels/unpack.js';

export type RowForm = 'rows0' | 'rows1';
export type WeightForm = RowForm | 'whole';

/** Rows of a matrix that lie in one buffer. */
export interface RowPart {
  readonly first: number;
  readonly rows: number;
}

export interface MatrixLayout {
  readonly packing: Packing;
  readonly rows: number; // output features
  readonly width: number; // inputs
  readonly rowWords: number;
  /** Inputs that share a scale, and how many scales a row has; null for floats. */
  readonly scales: { readonly size: number; readonly groups: number } | null;
  readonly parts: readonly RowPart[];
}

const rowAlignWords = 4;
/** Parts have a multiple of so many rows, so that their numbers fill whole words when rows run along the other axis. */
const partRows = 8;

/**
 * Layout of a matrix in rows.
 * @param bindingBytes the most that a kernel can be given of one buffer: a larger matrix lies in several
 */
export function matrixLayout(format: WeightFormat, form: RowForm, bindingBytes: number): MatrixLayout {
  const axis = form === 'rows0' ? 0 : 1;
  const rows = format.shape[axis]!;
  const width = format.shape[1 - axis]!;
  const packing = packingOf(format, axis);
  const words = Math.ceil(width / packedPerWord[packing]);
  const rowWords = Math.max(1, Math.ceil(words / rowAlignWords)) * rowAlignWords;
  const scales = format.kind === 'float' || packing === 'f32' ? null : scalesOf(format, width);
  const most = Math.max(1, Math.floor(bindingBytes / (4 * rowWords)));
  const rowsAPart = most < partRows ? most : most - (most % partRows);
  const parts = Array.from({ length: Math.max(1, Math.ceil(rows / rowsAPart)) }, (_, i) => {
    const first = i * rowsAPart;
    return { first, rows: Math.min(rowsAPart, rows - first) };
  });
  return { packing, rows, width, rowWords, scales, parts };
}

/** Integers whose scales run the other way are stored as f32: no product could take a row's scale out of its sum. */
function packingOf(format: WeightFormat, axis: 0 | 1): Packing {
  if (format.kind === 'float') return format.dtype;
  const { granularity } = format;
  return granularity.per === 'tensor' || granularity.axis === axis ? format.kind : 'f32';
}

function scalesOf(
  format: Exclude<WeightFormat, { kind: 'float' }>,
  width: number,
): { size: number; groups: number } {
  const { granularity } = format;
  const size = granularity.per === 'group' ? granularity.size : Math.max(1, width);
  return { size, groups: Math.max(1, Math.ceil(width / size)) };
}

/** Bytes of words and scales of all parts. */
export function matrixBytes({ rows, rowWords, scales }: MatrixLayout): number {
  return 4 * rows * (rowWords + (scales?.groups ?? 0));
}

/** Bytes that a Weight takes in a form. */
export function formBytes(format: WeightFormat, form: WeightForm, bindingBytes: number): number {
  return form === 'whole' ? 4 * sizeOf(format.shape) : matrixBytes(matrixLayout(format, form, bindingBytes));
}

/**
 * The form that a Weight is bound in: by the axis of its output features, or by that of its scales, so that its stored
 * integers are there to make other forms of.
 */
export function boundForm(format: WeightFormat, outputAxis: 0 | 1): WeightForm {
  if (format.shape.length !== 2) return 'whole';
  const isScaled = format.kind !== 'float' && format.granularity.per !== 'tensor';
  const axis = isScaled ? (format.granularity as { readonly axis: 0 | 1 }).axis : outputAxis;
  return axis === 0 ? 'rows0' : 'rows1';
}
