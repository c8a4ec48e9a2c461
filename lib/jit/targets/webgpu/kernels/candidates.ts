// lib/jit/targets/webgpu/kernels/candidates.ts: the ways to cut a matrix-vector kernel that are worth timing on an adapter.
// Source: the ranges in which the best ones of an H100 and an H200 lay.

import type { Features } from '../../../kernels/kernel.js';
import { perVector } from './dots.js';
import { mostLanes } from './lanes.js';
import type { MatvecShape } from './matvec.js';
import { matvecThreads } from './matvec.js';
import { type MatvecProblem, mostProducts, mostThreads, severalRows, wantedLanes } from './tuning.js';

const powers = (most: number): number[] => Array.from({ length: Math.log2(most) + 1 }, (_, i) => 2 ** i);

/** Shapes to time: full workgroups, 4 to 32 loads under way, splits that a row's length fills. */
export function matvecCandidates(features: Features, problem: MatvecProblem): MatvecShape[] {
  const { inDim, packing, products, leastColumns = 4 } = problem;
  const found: MatvecShape[] = [];
  for (const lanes of lanesToTry(features, problem))
    for (const columns of powers(64)) {
      if (columns < leastColumns) continue;
      for (const rowsPerGroup of rowsPerGroupToTry(problem)) {
        const rows = columns * products;
        if (rowsPerGroup % products !== 0 || rows % rowsPerGroup !== 0) continue;
        for (const splits of powers(16)) {
          const steps = Math.ceil(inDim / perVector(packing) / lanes / splits);
          const shape = { rows, lanes, rowsPerGroup, splits };
          if (!isFull(features, problem, matvecThreads({ ...shape, unroll: 1 })) || steps < 1) continue;
          for (const unroll of unrollsOf(steps, rowsPerGroup, problem)) found.push({ ...shape, unroll });
        }
      }
    }
  return found;
}

/** With several rows of x also parts of a subgroup, down to a whole line of a weight row. */
function lanesToTry(features: Features, problem: MatvecProblem): number[] {
  const [most, least] = [mostLanes(features), wantedLanes(features, problem)];
  return [...new Set([least, Math.min(most, 2 * least)])];
}

/** With several rows of x fewer than four weight rows a thread read the input too often. */
function rowsPerGroupToTry(problem: MatvecProblem): number[] {
  const { rows, products } = problem;
  if (rows >= severalRows) return [...new Set([4, rows > 4 ? 4 : 8])].filter((n) => n >= products);
  return [...new Set([products, ...powers(8)])].filter((n) => n >= products);
}

/** Whether a workgroup has threads enough, and not more than have room for what each holds. */
function isFull(features: Features, problem: MatvecProblem, threads: number): boolean {
  const least = problem.rows >= severalRows ? Math.min(128, features.maxThreads) : 2 * mostLanes(features);
  return threads >= least && threads <= mostThreads(features, problem);
}

/**
 * Divisors of a number of steps, of which the larger ones hide more of the memory's latency. What a thread holds, and
 * the length of its code, grow with the rows of x too.
 */
function unrollsOf(steps: number, rowsPerGroup: number, { rows }: MatvecProblem): number[] {
  const divisors = Array.from({ length: Math.min(16, steps) }, (_, i) => i + 1).filter(
    (n) => steps % n === 0 && n * rowsPerGroup * rows <= mostProducts,
  );
  const isBusy = (loads: number): boolean => loads >= Math.min(4, steps * rowsPerGroup) && loads <= 32;
  return divisors.slice(rows >= severalRows ? -2 : -3).filter((n) => isBusy(n * rowsPerGroup));
}

/** Bytes of a problem's weights, without their scales. */
export function weightBytes({ inDim, packing, products, widths }: MatvecProblem): number {
  const outputs = products * widths.reduce((sum, each) => sum + each, 0);
  return outputs * Math.ceil(inDim / perVector(packing)) * 16;
}

/** The same for problems that are cut alike. */
export function problemKey(problem: MatvecProblem): string {
  const { rows, inDim, packing, products, widths, scales, input, norm, leastColumns = 0 } = problem;
  const width = widths.reduce((sum, each) => sum + each, 0);
  const scale = typeof scales === 'string' ? scales : scales.groupSize;
  return [
    packing,
    scale,
    input,
    norm === 'none' ? '' : norm,
    `${rows}x${inDim}x${width}x${products}`,
    leastColumns,
  ].join(' ');
}
