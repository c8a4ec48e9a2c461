// lib/jit/targets/webgpu/kernels/attendTile.ts: how attention of many queries is cut for matrix units: queries of a
// workgroup, keys that pass at a time, who multiplies what, and where all of it lies in shared memory.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Features } from '../../../kernels/kernel.js';
import { matrixSide, matrixThreads } from '../../../kernels/kernel.js';

export interface AttendMatricesSpec {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly queries: number;
  readonly headDim: number; // a multiple of 16
  readonly capacity: number;
  readonly window: number | null;
  readonly scale: number;
}

/** Its subgroups are rowGroups x columnGroups. */
export interface AttendTile {
  /** Sets of queries; each belongs to `columnGroups` subgroups. */
  readonly rowGroups: number;
  /** Subgroups that share a set of queries: the keys among them, then the columns of the result. */
  readonly columnGroups: number;
  /** Matrices of 16 queries in a set: so often is a matrix of keys or values used once it is read. */
  readonly matrixRows: number;
  /** That pass at a time. */
  readonly keys: number;
  /** Heads with the same keys that a workgroup has queries of, at most; a power of two. */
  readonly heads: number;
  /** Whether the next keys and values are read a round before they are stored. */
  readonly ahead: boolean;
  /** Vectors to spare in a row of scores: with one threads read, with two the units write without bank conflicts. */
  readonly spare: 1 | 2;
}

/** Workgroups that keep a large GPU busy. */
const wantedWorkgroups = 256;

/**
 * The first that fits and gives enough workgroups is taken. Measured on an H200, 32 heads with 8 of keys, 128 wide: 2,048
 * queries take 188, 251 and 262 us, 256 queries 18.0, 12.5 and 12.9.
 */
const tiles: readonly AttendTile[] = [
  { rowGroups: 4, columnGroups: 2, matrixRows: 2, keys: 32, heads: 4, ahead: false, spare: 2 },
  { rowGroups: 4, columnGroups: 2, matrixRows: 1, keys: 32, heads: 4, ahead: true, spare: 2 },
  { rowGroups: 4, columnGroups: 1, matrixRows: 1, keys: 32, heads: 4, ahead: true, spare: 1 },
];

/** @returns undefined where no tile fits the adapter */
export function attendTile(spec: AttendMatricesSpec, features: Features): AttendTile | undefined {
  const fitting = tiles.filter((tile) => {
    const { threads, bytes } = attendLayout(spec, tile);
    const isWhole = (spec.headDim / matrixSide) % tile.columnGroups === 0;
    return isWhole && threads <= features.maxThreads && bytes <= features.maxSharedBytes;
  });
  const workgroups = fitting.map((tile) => attendLayout(spec, tile).workgroups);
  const enough = Math.min(wantedWorkgroups, Math.max(...workgroups));
  return fitting[workgroups.findIndex((count) => count >= enough)];
}

/** What follows from a tile. */
export interface AttendLayout {
  readonly threads: number;
  readonly rows: number; // queries of a workgroup, of all its heads
  readonly heads: number; // of a workgroup
  readonly queries: number; // of one head
  readonly workgroups: number;
  /** Vectors of 16 bytes from one row to the next: an odd number, against bank conflicts. */
  readonly strides: { readonly tile: number; readonly stage: number; readonly weights: number };
  /** First vectors: of keys (queries, before the first keys), values, scores as float32, weights as halves. */
  readonly begins: {
    readonly keys: number;
    readonly values: number;
    readonly stage: number;
    readonly weights: number;
  };
  readonly vectors: number; // in all
  readonly bytes: number; // with a few words that all threads agree on
}

export function attendLayout(spec: AttendMatricesSpec, tile: AttendTile): AttendLayout {
  const rows = tile.rowGroups * tile.matrixRows * matrixSide;
  const sharing = spec.heads / spec.kvHeads;
  let heads = tile.heads;
  while (sharing % heads !== 0) heads /= 2;
  const queries = rows / heads;
  const odd = (vectors: number): number => vectors + 1 - (vectors % 2);
  const strides = {
    tile: odd(spec.headDim / 8),
    stage: tile.keys / 4 + tile.spare,
    weights: odd(tile.keys / 8),
  };
  const values = tile.keys * strides.tile;
  const stage = 2 * values;
  const weights = stage + rows * strides.stage;
  const vectors = Math.max(weights + rows * strides.weights, rows * strides.tile);
  return {
    ...{ threads: tile.rowGroups * tile.columnGroups * matrixThreads, rows, heads, queries },
    workgroups: ((spec.batch * spec.heads) / heads) * Math.ceil(spec.queries / queries),
    ...{ strides, begins: { keys: 0, values, stage, weights }, vectors, bytes: 16 * vectors + 64 },
  };
}

/** A kernel that is being written: what its parts share. */
export interface AttendKernel {
  readonly k: KernelBuilder;
  readonly spec: AttendMatricesSpec;
  readonly tile: AttendTile;
  readonly layout: AttendLayout;
  /** Shared, u32x4: keys, values, scores and weights; before the first keys: queries. */
  readonly memory: ArrayRef;
  /** Shared: element 0 is 1 if a query's held score was replaced in this round. */
  readonly replaced: ArrayRef;
}

/** Begins a kernel: gives it its shared memory. */
export function attendKernel(k: KernelBuilder, spec: AttendMatricesSpec, tile: AttendTile): AttendKernel {
  const layout = attendLayout(spec, tile);
  const memory = k.shared('memory', 'u32x4', layout.vectors);
  return { k, spec, tile, layout, memory, replaced: k.shared('replaced', 'u32', 1) };
}
