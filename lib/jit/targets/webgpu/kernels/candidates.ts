// lib/jit/targets/webgpu/kernels/candidates.ts: the ways to cut a matrix-vector kernel that are worth timing on an
// adapter, and the kernel that is timed. Source: the ranges in which the best ones of an H100 and an H200 lay.

import { KernelBuilder } from '../../../kernels/builder.js';
import type { Features, Kernel } from '../../../kernels/kernel.js';
import { blockSize } from './activations.js';
import { perVector } from './dots.js';
import { lanesOfGroup } from './lanes.js';
import type { MatvecInput, MatvecShape } from './matvec.js';
import { matvecThreads, writeMatvec } from './matvec.js';
import { type MatvecProblem, mostProducts } from './tuning.js';

const powers = (most: number): number[] => Array.from({ length: Math.log2(most) + 1 }, (_, i) => 2 ** i);

/** Shapes to time: full workgroups, 4 to 32 loads under way, splits that a row's length fills. */
export function matvecCandidates(features: Features, problem: MatvecProblem): MatvecShape[] {
  const { inDim, packing, products, leastColumns = 4 } = problem;
  const lanes = lanesOfGroup(features);
  const found: MatvecShape[] = [];
  for (const columns of powers(64)) {
    if (columns < leastColumns) continue;
    for (const perGroup of new Set([products, ...powers(8)])) {
      if (perGroup < products) continue;
      const [rows, rowsPerGroup] = [columns * products, perGroup];
      if (rowsPerGroup % products !== 0 || rows % rowsPerGroup !== 0) continue;
      for (const splits of powers(8)) {
        const threads = lanes * (rows / rowsPerGroup) * splits;
        const steps = Math.ceil(inDim / perVector(packing) / lanes / splits);
        if (threads > Math.min(1024, features.maxThreads) || threads < 2 * lanes || steps < 1) continue;
        for (const unroll of unrollsOf(steps)) {
          const loads = unroll * rowsPerGroup;
          // What a thread holds, and the length of its code, grow with the rows of x too.
          const isShort = loads * problem.rows <= mostProducts;
          if (loads >= Math.min(4, steps * rowsPerGroup) && loads <= 32 && isShort)
            found.push({ rows, rowsPerGroup, splits, unroll });
        }
      }
    }
  }
  return found;
}

/** Divisors of a number of steps, of which the larger ones hide more of the memory's latency. */
function unrollsOf(steps: number): number[] {
  const divisors = Array.from({ length: Math.min(16, steps) }, (_, i) => i + 1).filter(
    (n) => steps % n === 0,
  );
  return divisors.slice(-3);
}

/** A kernel of a problem's kind that only stores its sums: words, scales, input, (blocks), output. */
export function timedKernel(features: Features, problem: MatvecProblem, shape: MatvecShape): Kernel {
  const { rows, inDim, packing, products, widths, scales, input: kind, norm } = problem;
  const k = new KernelBuilder(matvecThreads(features, shape));
  const width = widths.reduce((sum, each) => sum + each, 0);
  const words = k.buffer('words', 'u32x4', 'read');
  const scaled = scales === 'none' ? null : k.buffer('scales', 'f32', 'read');
  const input: MatvecInput =
    kind === 'bytes'
      ? { kind, bytes: k.buffer('bytes', 'u32x4', 'read'), blocks: k.buffer('blocks', 'f32x2', 'read') }
      : { kind, x: k.buffer('x', 'f32x4', 'read'), gain: null, bias: null };
  const y = k.buffer('y', 'f32', 'readWrite');
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
      norm: norm ? { kind: 'rms', epsilon: 1e-5 } : null,
      parts: [
        {
          ...{ width, products: weights, pairs: null },
          finish: (row, [column], [values]) => {
            const sum = values!.reduce((total, value) => total.add(value));
            k.store(y, row.mul(width).add(column!), sum);
          },
        },
      ],
    },
    shape,
  );
  return k.kernel('timed matvec');
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
    norm ? 'norm' : '',
    `${rows}x${inDim}x${width}x${products}`,
    leastColumns,
  ].join(' ');
}
