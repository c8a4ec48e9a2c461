// lib/jit/targets/webgpu/kernels/candidates.ts: the ways to cut a matrix-vector kernel that are worth timing on an
// adapter, and the kernel that is timed. Source: the ranges in which the best ones of an H100 and an H200 lay.

import type { ArrayRef } from '../../../kernels/builder.js';
import { KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import type { Features, Kernel } from '../../../kernels/kernel.js';
import { blockSize, storeQuantizedTogether } from './activations.js';
import { perVector } from './dots.js';
import { hasKnownSubgroups, mostLanes, threadInOrder } from './lanes.js';
import type { MatvecInput, MatvecShape } from './matvec.js';
import { matvecThreads, writeMatvec } from './matvec.js';
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

/**
 * A kernel of a problem's kind: words, scales, input, (blocks), output; with an input in signed bytes also those of the
 * output and their blocks, for as workgroups grow, more threads wait for the few that make them.
 */
export function timedKernel(features: Features, problem: MatvecProblem, shape: MatvecShape): Kernel {
  const { rows, inDim, packing, products, widths, scales, input: kind, norm } = problem;
  const k = new KernelBuilder(matvecThreads(shape));
  const width = widths.reduce((sum, each) => sum + each, 0);
  const words = k.buffer('words', 'u32x4', 'read');
  const scaled = scales === 'none' ? null : k.buffer('scales', 'f32', 'read');
  const input: MatvecInput =
    kind === 'bytes'
      ? { kind, bytes: k.buffer('bytes', 'u32x4', 'read'), blocks: k.buffer('blocks', 'f32x2', 'read') }
      : { kind, x: k.buffer('x', 'f32x4', 'read'), gain: null, bias: null };
  const y = k.buffer('y', 'f32', 'readWrite');
  const columns = shape.rows / products;
  const leaves = kind === 'bytes' && hasKnownSubgroups(features) && columns % blockSize === 0;
  const own = leaves ? k.shared('own', 'f32', rows * columns) : undefined;
  const weights = Array.from({ length: products }, (_, i) => ({
    words,
    scales: scaled,
    firstRow: i * width,
  }));
  writeMatvec(
    k,
    features,
    {
      ...{ rows, inDim, packing, rowVectors: Math.ceil(inDim / perVector(packing)), scales, input },
      norm: norm === 'none' ? null : { kind: norm, epsilon: 1e-5 },
      parts: [
        {
          ...{ width, products: weights, pairs: null },
          finish: (row, [column], [values]) => {
            const sum = values!.reduce((total, value) => total.add(value));
            const result = k.let('result', sum);
            k.store(y, row.mul(width).add(column!), result);
            if (own) k.store(own, row.mul(columns).add(column!.rem(columns)), result);
          },
          ...(own ? { afterwards: (first: Expr) => leaveBytes(k, own, width, columns, rows, first) } : {}),
        },
      ],
    },
    shape,
  );
  return k.kernel('timed matvec');
}

/** As sides.ts does it. */
function leaveBytes(
  k: KernelBuilder,
  own: ArrayRef,
  width: number,
  columns: number,
  rows: number,
  first: Expr,
): void {
  const arrays = {
    bytes: k.buffer('leftBytes', 'u32', 'readWrite'),
    blocks: k.buffer('leftBlocks', 'f32x2', 'readWrite'),
  };
  k.barrier();
  const thread = k.let('thread', threadInOrder(k));
  k.if(thread.lt((rows * columns) / 4), () => {
    const values = [0, 1, 2, 3].map((i) => k.let('value', own.at(thread.mul(4).add(i))));
    const begin = thread
      .div(columns / 4)
      .mul(width)
      .add(first);
    const word = begin.div(4).add(thread.rem(columns / 4));
    storeQuantizedTogether(k, arrays, 'plain', k.let('word', word), values, null);
  });
}

/** Bytes of a problem's words, scales, input, blocks and output. */
export function problemBytes(
  problem: MatvecProblem,
): Record<'words' | 'scales' | 'x' | 'blocks' | 'y', number> {
  const { rows, inDim, packing, products, widths, scales } = problem;
  const outputs = products * widths.reduce((sum, each) => sum + each, 0);
  const groups = typeof scales === 'string' ? 1 : Math.ceil(inDim / scales.groupSize);
  return {
    words: outputs * Math.ceil(inDim / perVector(packing)) * 16,
    scales: scales === 'none' ? 0 : 4 * outputs * groups,
    x: 4 * rows * inDim,
    blocks: (8 * rows * inDim) / blockSize,
    y: 4 * rows * outputs,
  };
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
