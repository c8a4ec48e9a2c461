// lib/jit/targets/webgpu/kernels/matmul.ts: many rows x [rows, in] times weight rows [out, in] in tiles, a workgroup each:
// what is asked of such a kernel, how it is cut, and which tile a workgroup has. The kernels: matmulFloats.ts,
// matmulBytes.ts.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import type { Packing } from '../../../kernels/unpack.js';

/** Sizes of a tile; all multiples of 4. A thread has `threadRows` x `threadColumns` of each product. */
export interface MatmulTile {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly threadRows: number;
  readonly threadColumns: number;
}

/** Where one product's weights lie. */
export interface MatmulWeights {
  readonly words: ArrayRef; // u32
  readonly scales: ArrayRef | null; // f32: one a row; or several
  readonly firstRow: number;
}

export interface MatmulSpec {
  readonly rows: number;
  readonly inDim: number; // a multiple of 4
  readonly width: number;
  readonly packing: Packing;
  readonly rowWords: number;
  readonly scales: 'none' | 'row' | { readonly groupSize: number };
  readonly input: MatmulInput;
  /** Pieces that the depth is cut into, a workgroup each: then `finish` gets a piece's sums, their scales left out. */
  readonly splits: number;
  readonly packedDot: boolean;
  readonly products: readonly MatmulWeights[];
  /** Writes an element. @param split which piece of the depth it is of */
  finish(row: Expr, column: Expr, values: readonly Expr[], split: Expr): void;
}

export type MatmulInput =
  | { readonly kind: 'floats'; readonly x: ArrayRef } // f32x4
  /** In words of four bytes, and f32x2 a block of 16 (activations.ts); for int4 in the order `nibbles`. */
  | { readonly kind: 'bytes'; readonly bytes: ArrayRef; readonly blocks: ArrayRef };

export function matmulThreads({ rows, columns, threadRows, threadColumns }: MatmulTile): number {
  return (rows / threadRows) * (columns / threadColumns);
}

export function matmulWorkgroups(
  { rows, width, splits }: Pick<MatmulSpec, 'rows' | 'width' | 'splits'>,
  tile: MatmulTile,
): number {
  return Math.ceil(rows / tile.rows) * Math.ceil(width / tile.columns) * splits;
}

/** Depth of a piece: whole stages of a tile; the last piece may be shorter, or empty. */
export function splitDepth(inDim: number, splits: number, { depth }: Pick<MatmulTile, 'depth'>): number {
  return Math.ceil(inDim / splits / depth) * depth;
}

/** Which piece of the depth a workgroup has, and its place among those that have the same. */
export function depthPiece(
  k: KernelBuilder,
  { splits, inDim }: Pick<MatmulSpec, 'splits' | 'inDim'>,
  tile: Pick<MatmulTile, 'depth'>,
): { place: Expr; split: Expr; begin: Expr; end: Expr } {
  const index = k.let('tile', k.builtin('workgroupX'));
  if (splits === 1) {
    const none = literal('u32', 0);
    return { place: index, split: none, begin: none, end: literal('u32', inDim) };
  }
  const split = k.let('split', index.rem(splits));
  const length = splitDepth(inDim, splits, tile);
  const place = k.let('tileAt', index.div(splits));
  const begin = k.let('begin', split.mul(length));
  return { place, split, begin, end: k.let('end', begin.add(length).min(inDim)) };
}

/** Which tile a workgroup makes, and of which piece of the depth. */
export function placeOf(
  k: KernelBuilder,
  spec: Pick<MatmulSpec, 'rows' | 'width' | 'splits' | 'inDim'>,
  tile: MatmulTile,
): { row: Expr; column: Expr } & Omit<ReturnType<typeof depthPiece>, 'place'> {
  const down = Math.ceil(spec.rows / tile.rows);
  const { place, ...piece } = depthPiece(k, spec, tile);
  return {
    row: k.let('firstRow', place.rem(down).mul(tile.rows)),
    column: k.let('firstColumn', place.div(down).mul(tile.columns)),
    ...piece,
  };
}
