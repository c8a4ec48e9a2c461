// lib/jit/targets/webgpu/kernels/tuning.ts: how kernels are cut where nothing was measured on the adapter itself.
// Measured on an H100 and an H200: 16 columns a workgroup, one or two rows a group of threads, and enough loads under
// way; workgroups of eight rows a group lose badly.

import type { Features } from '../../../kernels/kernel.js';
import type { Packing } from '../../../kernels/unpack.js';
import { perVector } from './dots.js';
import { lanesOfGroup } from './lanes.js';
import type { MatmulTile } from './matmul.js';
import type { MatvecShape } from './matvec.js';

export interface MatvecProblem {
  readonly rows: number;
  readonly inDim: number;
  readonly packing: Packing;
  readonly widths: readonly number[];
  /** Products of one output; rows of a group are a multiple of it. */
  readonly products: number;
  readonly scales: 'none' | 'row' | { readonly groupSize: number };
  readonly input: 'floats' | 'bytes';
  readonly norm: boolean;
  /** Columns that a workgroup has at least. */
  readonly leastColumns?: number | undefined;
}

/** Workgroups that keep a large GPU busy. */
const wantedWorkgroups = 256;
/** 16-byte loads that a thread has under way. */
const wantedLoads = 8;

/** A shape that fits the adapter. */
export function matvecShape(features: Features, problem: MatvecProblem): MatvecShape {
  const { inDim, packing, widths, products, leastColumns = 2 } = problem;
  const lanes = lanesOfGroup(features);
  const columns = widths.reduce((sum, width) => sum + width, 0);
  const rowsPerGroup = products;
  const mostRows = Math.max(1, Math.floor(features.maxThreads / lanes)) * rowsPerGroup;
  let rows = 16 * products;
  while (
    rows > mostRows ||
    (rows > leastColumns * products && (columns * products) / rows < wantedWorkgroups)
  )
    rows /= 2;
  const steps = Math.ceil(inDim / perVector(packing) / lanes);
  let splits = 1;
  const threads = (): number => lanes * (rows / rowsPerGroup) * splits;
  while (steps / splits > 2 * wantedLoads && threads() * 2 <= Math.min(1024, features.maxThreads))
    splits *= 2;
  const unroll = Math.max(1, Math.min(Math.ceil(steps / splits), Math.ceil(wantedLoads / rowsPerGroup)));
  return { rows: Math.max(rows, rowsPerGroup), rowsPerGroup, splits, unroll };
}

/** A tile for a product of many rows that fits the adapter. */
export function matmulTile(
  features: Features,
  { rows, width, products }: { readonly rows: number; readonly width: number; readonly products: number },
): MatmulTile {
  const isRoomy = features.maxSharedBytes >= 40_000;
  const side = isRoomy && rows > 64 && products === 1 && width * rows >= 64 * 128 * 128 ? 128 : 64;
  const tileRows = rows <= 32 ? 32 : side;
  const columns = products > 1 || rows <= 32 ? 64 : side;
  const threadRows = tileRows === 128 ? 8 : 4;
  const threadColumns = columns === 128 ? 8 : 4;
  return { rows: tileRows, columns, depth: isRoomy ? 32 : 16, threadRows, threadColumns };
}
