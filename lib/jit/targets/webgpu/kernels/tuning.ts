// lib/jit/targets/webgpu/kernels/tuning.ts: how kernels are cut where nothing was measured on the adapter itself.
// Measured on an H100 and an H200: 16 columns a workgroup, one or two rows a group of threads, and enough loads under
// way; workgroups of eight rows a group lose badly.

import type { Features, MatrixKind } from '../../../kernels/kernel.js';
import type { Packing } from '../../../kernels/unpack.js';
import { perVector } from './dots.js';
import { mostLanes } from './lanes.js';
import type { MatmulTile } from './matmul.js';
import { mostScaleRatio } from './matrixRescale.js';
import type { MatrixTile } from './matrixTile.js';
import type { MatvecShape } from './matvec.js';

export interface MatvecProblem {
  readonly rows: number;
  readonly inDim: number;
  readonly packing: Packing;
  readonly widths: readonly number[];
  /** Products of one output; rows of a group are a multiple of it. */
  readonly products: number;
  readonly scales: 'none' | 'row' | { readonly groupSize: number };
  /** `limbs`: integers of three bytes. */
  readonly input: 'floats' | 'bytes' | 'limbs';
  readonly norm: 'none' | 'rms' | 'layer';
  /** Columns that a workgroup has at least. */
  readonly leastColumns?: number | undefined;
}

/** Workgroups that keep a large GPU busy. */
const wantedWorkgroups = 256;
/** 16-byte loads that a thread has under way: the fewest that hide the memory's latency, and the most that fit. */
const wantedLoads = 8;
const mostLoads = 28;
/** Products of 16 bytes that stand in a thread's code one after another, at most. */
export const mostProducts = 64;
/**
 * From so many rows of x on reading the weights is no longer what takes a large GPU longest: a thread spends four
 * products of four bytes, an addition and a multiplication on 16 weights and a row of x, so for 8 rows and the 7.1e9
 * weights of Mistral-7B 14.2e9 products of four bytes: 0.85 ms at the 64 a clock of each of an H200's 132
 * multiprocessors, where reading takes 1.6 ms. So little may come on top: an input vector is read for four weight rows
 * at once (24 bytes of it for 64 of weights and 16 such products), and sums are spread before they are added up.
 */
export const severalRows = 3;
/**
 * Rows, and weights of a Linear, from which on matrix units do few rows too. 8 rows of gate and up of Mistral-7B on an
 * H200: 57 us by matvec.ts, 38 on matrix units, and 4 for the dispatch that makes their input. For its smaller products
 * such dispatches cost what is won.
 */
export const leastMatrixRows = 5;
export const leastMatrixWeights = 40e6;
/** Steps along a row that one thread takes without another one's help. */
const wantedSteps = 8;

/**
 * Weight rows of a group of threads: an input that is costly to take apart or to read is used for several of them.
 * Measured on an H200: int8 with float32 input 880 GB/s with four rows, 470 with one.
 */
function wantedRowsPerGroup({ rows, packing, input, products }: MatvecProblem): number {
  const isInteger = packing === 'int8' || packing === 'int4';
  const isCostly = rows >= severalRows || (isInteger && (input !== 'bytes' || products > 1));
  return Math.max(isCostly ? 4 : 2, products);
}

/** A shape that fits the adapter. */
export function matvecShape(features: Features, problem: MatvecProblem): MatvecShape {
  const { inDim, packing, widths, products, leastColumns = 2 } = problem;
  const lanes = wantedLanes(features, problem);
  const columns = widths.reduce((sum, width) => sum + width, 0);
  const most = mostThreads(features, problem);
  let rowsPerGroup = wantedRowsPerGroup(problem);
  if (rowsPerGroup % products !== 0) rowsPerGroup = products;
  let rows = Math.max(16 * products, rowsPerGroup);
  const isTooMany = (): boolean => lanes * (rows / rowsPerGroup) > most;
  const isTooFew = (): boolean =>
    rows > leastColumns * products && (columns * products) / rows < wantedWorkgroups;
  while (rows % 2 === 0 && rows > products && (isTooMany() || isTooFew())) {
    rows /= 2;
    if (rowsPerGroup > rows) rowsPerGroup = Math.max(products, rowsPerGroup / 2);
  }
  const steps = Math.ceil(inDim / perVector(packing) / lanes);
  let splits = 1;
  const threads = (): number => lanes * (rows / rowsPerGroup) * splits;
  const isLong = (): boolean => steps / splits > wantedSteps || (threads() < 256 && steps / splits >= 4);
  while (isLong() && threads() * 2 <= most) splits *= 2;
  return {
    ...{ rows, lanes, rowsPerGroup, splits },
    unroll: unrollOf(Math.ceil(steps / splits), rowsPerGroup, problem.rows),
  };
}

/**
 * Few rows of x: as many threads as can add up together. Many: eight, which still read a whole line (128 bytes) of each
 * weight row; the groups of a subgroup then read the same input, once for all of them, and each thread has enough sums
 * of its own to spread them over the group when they are added up (lanes.ts).
 */
export function wantedLanes(features: Features, { rows }: Pick<MatvecProblem, 'rows'>): number {
  return Math.min(mostLanes(features), rows < severalRows ? 32 : 8);
}

/** Threads of a workgroup at most: with several rows of x each needs so many registers that half of them fit. */
export function mostThreads(features: Features, { rows }: Pick<MatvecProblem, 'rows'>): number {
  return Math.min(rows < severalRows ? 1024 : 256, features.maxThreads);
}

/**
 * The largest divisor of the steps that keeps the loads few; where there is none, one that keeps them bearable. Several
 * rows of x make the code of each load longer.
 */
function unrollOf(steps: number, rowsPerGroup: number, rows: number): number {
  const divisors = Array.from({ length: steps }, (_, i) => i + 1).filter((n) => steps % n === 0);
  const isShort = (n: number): boolean => n * rowsPerGroup * rows <= mostProducts;
  const best = divisors.findLast((n) => n * rowsPerGroup <= wantedLoads && isShort(n)) ?? 1;
  if (best > 1) return best;
  return divisors.find((n) => n > 1 && n * rowsPerGroup <= mostLoads && isShort(n)) ?? best;
}

/** A tile for a product of many rows that fits the adapter. */
export function matmulTile(
  features: Features,
  {
    rows,
    width,
    products,
    isBytes,
  }: {
    readonly rows: number;
    readonly width: number;
    readonly products: number;
    readonly isBytes: boolean;
  },
): MatmulTile {
  const isRoomy = features.maxSharedBytes >= 40_000;
  const side = isRoomy && rows > 64 && products === 1 && width * rows >= 64 * 128 * 128 ? 128 : 64;
  const tileRows = rows <= 32 ? 32 : side;
  const columns = products > 1 || rows <= 32 ? 64 : side;
  const threadRows = tileRows === 128 ? 8 : 4;
  const threadColumns = columns === 128 ? 8 : 4;
  // A word of bytes holds four depths.
  const depth = isBytes ? 64 : isRoomy ? 32 : 16;
  return { rows: tileRows, columns, depth, threadRows, threadColumns };
}

/** Pieces that the depth is cut into, so that there are workgroups enough; each long enough to be worth it. */
export function matmulSplits(
  { rows, width, inDim }: { readonly rows: number; readonly width: number; readonly inDim: number },
  tile: MatmulTile,
): number {
  const tiles = Math.ceil(rows / tile.rows) * Math.ceil(width / tile.columns);
  return splitsOf(tiles, wantedWorkgroups, inDim, 8 * tile.depth);
}

/** Up to eight pieces: while workgroups are fewer than wanted, and none shorter than `shortest`. */
function splitsOf(tiles: number, wanted: number, inDim: number, shortest: number): number {
  let splits = 1;
  while (tiles * splits < wanted && splits < 8 && inDim / (2 * splits) >= shortest) splits *= 2;
  return splits;
}

/** Tiles that keep a large GPU busy: one a multiprocessor. */
const wantedTiles = 128;

/** So many rows are one tile: each workgroup reads them all, while the weights are read once. */
export const fewMatrixRows = 32;

/** A tile for matrix units: large ones do the most work a byte, small ones keep a large GPU busy with few rows. */
export function matrixTile(
  kind: MatrixKind,
  { rows, columns, products }: { readonly rows: number; readonly columns: number; readonly products: number },
): MatrixTile {
  const wide = kind === 'bytes' ? 2 : 1; // a vector holds twice as many bytes as halves
  if (rows <= fewMatrixRows) {
    const few = rows <= 16 ? 16 : fewMatrixRows;
    return {
      rows: few,
      columns: 128,
      depth: 64 * wide,
      subgroupRows: few,
      subgroupColumns: 16 * Math.max(2, products),
    };
  }
  const tiles = Math.ceil(rows / 128) * Math.ceil(columns / 128);
  if (rows <= 64 || tiles < wantedTiles)
    return { rows: 64, columns: 64, depth: 64 * wide, subgroupRows: 32, subgroupColumns: 32 };
  return { rows: 128, columns: 128, depth: 64, subgroupRows: 64, subgroupColumns: 64 };
}

/**
 * Pieces of the depth that an input in signed bytes has a scale each for. With one scale a row the mode `fast` does not
 * pass the quality gate: SmolLM2-135M's perplexity rises by 1 to 3 % (INT8 weights, 281 to 1,505 positions). What stands
 * between two products of one output (gate and up) does with one: it costs 0.1 %. Many rows make many pieces to add up.
 */
const scaledPieces = (rows: number): number => (rows <= 64 ? 8 : 4);

/** Tiles from which on one workgroup does all pieces of its tile, and adds them up as it goes: two a multiprocessor. */
const wholeTiles = 256;

/** How the depth is cut: `splits` have workgroups of their own, `pieces` have scales of their own. */
export function matrixPieces(
  kind: MatrixKind,
  tiles: number,
  { rows, inDim, products }: { readonly rows: number; readonly inDim: number; readonly products: number },
  { depth }: MatrixTile,
): { readonly splits: number; readonly pieces: number } {
  const splits = splitsOf(tiles, wantedTiles, inDim, 4 * depth);
  if (kind === 'halves') return { splits, pieces: 1 };
  if (products > 1) return { splits, pieces: splits };
  const pieces = Math.max(splits, scaledPieces(rows));
  const isWhole = tiles >= wholeTiles && mostScaleRatio(inDim) >= 2;
  return { splits: isWhole ? 1 : pieces, pieces };
}
