// lib/jit/targets/webgpu/kernels/matrixTile.ts: what a matrix product on matrix units is given, and how it is cut: tiles,
// the shared memory that they take, and how many there are.

import type { ArrayRef } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import { matrixThreads } from '../../../kernels/kernel.js';
import type { Packing } from '../../../kernels/unpack.js';
import { stageVectors } from './matrixStage.js';
import type { WeightRows } from './matvecFinish.js';

/** Sizes of a workgroup's tile and of a subgroup's share of it; multiples of 16. `columns` are of all products. */
export interface MatrixTile {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly subgroupRows: number;
  readonly subgroupColumns: number;
}

/** One output: its columns, and what is done with them. */
export interface MatrixPart {
  readonly width: number;
  readonly products: readonly WeightRows[];
  /**
   * Makes neighbouring elements of a row, and reads what it needs for them.
   * @param column of the first one; `count` follow, all of them inside
   * @param values f32x4: four columns of each product
   * @param split which piece of the depth they are of
   * @returns what writes them
   */
  finish(row: Expr, column: Expr, values: readonly Expr[], count: 1 | 4, split: Expr): () => void;
}

export interface MatrixMatmulSpec {
  readonly kind: MatrixKind;
  readonly rows: number;
  readonly inDim: number; // a multiple of 16
  /**
   * u32x4 [rows, inDim / perElement], in the order that the packing's weights come out in (matrixWeights.ts); and
   * f32 [rows, pieces]: what the numbers of each piece of a row were divided by. As many pieces as splits, or one; or,
   * of signed bytes that are not split, several that one sum takes in one after another (matrixRescale.ts).
   */
  readonly left: { readonly words: ArrayRef; readonly scales: ArrayRef; readonly pieces: number };
  readonly packing: Packing;
  readonly rowVectors: number; // 16 bytes each, of a weight row
  readonly scales: 'none' | 'row' | { readonly groupSize: number };
  /** Pieces that the depth is cut into, a workgroup each. */
  readonly splits: number;
  /** The adapter computes with float16. */
  readonly f16: boolean;
  readonly parts: readonly MatrixPart[];
}

/** Numbers in an element of a u32x4 array. */
export const perElement: Readonly<Record<MatrixKind, number>> = { halves: 8, bytes: 16 };

/** True if one sum takes in pieces of different scales. */
export function isRescaled({ left, splits }: Pick<MatrixMatmulSpec, 'left' | 'splits'>): boolean {
  return left.pieces > splits;
}

export function matrixTileThreads({ rows, columns, subgroupRows, subgroupColumns }: MatrixTile): number {
  return (rows / subgroupRows) * (columns / subgroupColumns) * matrixThreads;
}

/** Vectors from one staged row to the next. */
export const tileStride = (kind: MatrixKind, { depth }: MatrixTile): number => depth / perElement[kind] + 1;

export function matrixSharedBytes(kind: MatrixKind, tile: MatrixTile, products: number): number {
  return 16 * (tile.rows * tileStride(kind, tile) + rightVectors(kind, tile, products));
}

/** The sides' memory is also where sums go on their way out: what more there was would cost the main loop. */
export function rightVectors(kind: MatrixKind, tile: MatrixTile, products: number): number {
  const subgroups = matrixTileThreads(tile) / matrixThreads;
  return Math.max(tile.columns * tileStride(kind, tile), subgroups * products * stageVectors);
}

/** Columns of one product in a tile. */
export function columnsOf({ products }: Pick<MatrixPart, 'products'>, tile: MatrixTile): number {
  return tile.columns / products.length;
}

export function tilesOf(
  part: Pick<MatrixPart, 'products' | 'width'>,
  rows: number,
  tile: MatrixTile,
): number {
  return Math.ceil(rows / tile.rows) * Math.ceil(part.width / columnsOf(part, tile));
}

/** Tiles of all parts, before the depth is cut. */
export function matrixTiles(
  parts: readonly Pick<MatrixPart, 'products' | 'width'>[],
  rows: number,
  tile: MatrixTile,
): number {
  return parts.reduce((sum, part) => sum + tilesOf(part, rows, tile), 0);
}
