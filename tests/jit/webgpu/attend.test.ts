// Attention of one query a row against plain arithmetic: caches in one piece and in chunks, windows, rings, rows of
// different lengths; with subgroups as the adapter has them, and without. And how it is cut for a large GPU.
import { describe, expect, test } from 'vitest';
import type { Features } from '../../../lib/jit/kernels/kernel.js';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import type { Gpu } from '../../../lib/jit/targets/webgpu/device.js';
import { attendWorkgroups } from '../../../lib/jit/targets/webgpu/kernels/attend.js';
import { type AttendKernel, attendKernels } from '../../../lib/jit/targets/webgpu/kernels/attendKernels.js';
import {
  type AttendProblem,
  type AttendSpec,
  attendSpec,
} from '../../../lib/jit/targets/webgpu/kernels/attendShape.js';
import { runKernel, testGpu } from './runKernel.js';

const gpu = await testGpu();
const largeGpu: Features = {
  ...{ ...plainFeatures, f16: true, subgroups: true, minSubgroupSize: 32, maxSubgroupSize: 32 },
  ...{ packedDot: true, maxThreads: 1024, maxSharedBytes: 49152, maxBuffers: 16 },
};
const mistral: AttendProblem = {
  ...{ batch: 1, heads: 32, kvHeads: 8, headDim: 128, capacity: 256, window: null, scale: 1, roughExp: true },
};

function waves(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin((i + 1) * 12.9898 * seed));
}

interface Inputs {
  readonly q: Float32Array; // [batch, heads, headDim]
  readonly keys: Float32Array; // [batch, kvHeads, capacity, headDim]
  readonly values: Float32Array;
  readonly start: Int32Array;
  readonly count: Int32Array;
}

/** In double precision, a row after another. */
function plainAttention(problem: AttendProblem, { q, keys, values, start, count }: Inputs): number[] {
  const { batch, heads, kvHeads, headDim, capacity, window, scale } = problem;
  return Array.from({ length: batch * heads }, (_, row) => {
    const b = Math.floor(row / heads);
    if (count[b] === 0) return new Array<number>(headDim).fill(0);
    const kvRow = b * kvHeads + Math.floor((row % heads) / (heads / kvHeads));
    const first = window === null ? 0 : Math.max(0, start[b]! + 1 - window);
    const slots = Array.from(
      { length: start[b]! + 1 - first },
      (__, i) => (kvRow * capacity + ((first + i) % capacity)) * headDim,
    );
    const scores = slots.map((slot) => {
      let sum = 0;
      for (let i = 0; i < headDim; i++) sum += q[row * headDim + i]! * keys[slot + i]!;
      return sum * scale;
    });
    const most = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - most));
    const total = weights.reduce((sum, each) => sum + each, 0);
    return Array.from({ length: headDim }, (__, i) =>
      slots.reduce((sum, slot, s) => sum + (weights[s]! * values[slot + i]!) / total, 0),
    );
  }).flat();
}

async function attention(features: Features, spec: AttendSpec, inputs: Inputs): Promise<Float32Array> {
  const [attend, join] = attendKernels(features, spec) as [AttendKernel, AttendKernel?];
  const rows = spec.batch * spec.heads;
  const y = new Float32Array(rows * spec.headDim);
  // What chunks past the end leave out must not matter.
  const mixed = new Float32Array(rows * spec.chunks * spec.headDim).fill(Number.NaN);
  const found = new Float32Array(2 * rows * spec.chunks).fill(Number.NaN);
  const contents = { ...inputs, y, mixed, found };
  const first = await runKernel(gpu as Gpu, attend.kernel, contents, [attend.workgroups]);
  if (!join) return first.y!;
  const { start, count } = inputs;
  const chunks = { mixed: first.mixed!, found: first.found!, start, count, y };
  return (await runKernel(gpu as Gpu, join.kernel, chunks, [join.workgroups])).y!;
}

describe.skipIf(typeof gpu === 'string')('attention of one query a row', () => {
  const small = { ...mistral, batch: 2, heads: 4, kvHeads: 2, headDim: 32, scale: 0.3, roughExp: false };
  const cases: readonly (readonly [string, AttendProblem, readonly number[], readonly number[]])[] = [
    ['in one piece, a row of padding', { ...small, batch: 3, capacity: 40 }, [37, 0, 5], [1, 1, 0]],
    ['a window in a ring', { ...small, capacity: 64, window: 50 }, [203, 20], [1, 1]],
    ['chunks, four heads together', { ...small, kvHeads: 1, capacity: 640 }, [600, 127], [1, 1]],
    ['chunks of which none is seen', { ...small, heads: 2, capacity: 640 }, [128, 600], [1, 0]],
    ['chunks, a window in a ring', { ...small, capacity: 600, window: 530 }, [1500, 300], [1, 1]],
    ['subgroups by themselves', { ...small, headDim: 16, capacity: 300 }, [270, 37], [1, 1]],
    [
      'subgroups by themselves, parts of them',
      { ...small, headDim: 8, kvHeads: 1, capacity: 640 },
      [600, 127],
      [1, 1],
    ],
    ['chunks, roughly', { ...small, headDim: 24, capacity: 700, roughExp: true }, [699, 2], [1, 1]],
  ];
  test.each(cases.flatMap((each) => [true, false].map((plain) => [each[0], plain, each] as const)))(
    '%s, plain %s',
    async (_, plain, [, problem, start, count]) => {
      const { batch, heads, kvHeads, headDim, capacity } = problem;
      const features = { ...(plain ? plainFeatures : (gpu as Gpu).features), maxThreads: 64 };
      const spec = attendSpec(features, problem)!;
      const inputs: Inputs = {
        ...{ q: waves(batch * heads * headDim, 1), start: Int32Array.from(start) },
        ...{ keys: waves(batch * kvHeads * capacity * headDim, 2), count: Int32Array.from(count) },
        values: waves(batch * kvHeads * capacity * headDim, 3),
      };
      const found = await attention(features, spec, inputs);
      const expected = plainAttention(problem, inputs);
      const error = Math.max(...expected.map((value, i) => Math.abs(value - found[i]!)));
      expect(error).toBeLessThan(problem.roughExp ? 1e-4 : 3e-6);
    },
  );
});

describe('how attention is cut for a large GPU', () => {
  test('a short cache in one dispatch, heads together only where workgroups are left', () => {
    expect(attendSpec(largeGpu, mistral)).toMatchObject({ chunks: 1, together: 1 });
    expect(attendSpec(largeGpu, { ...mistral, batch: 8 })).toMatchObject({ chunks: 1, together: 4 });
  });

  test('a long one in chunks: some for each multiprocessor, not more than are of use', () => {
    for (const batch of [1, 8]) {
      const spec = attendSpec(largeGpu, { ...mistral, batch, capacity: 8192 })!;
      expect(spec.together).toBe(4);
      expect(attendWorkgroups(spec)).toBeGreaterThan(3 * 132);
      expect(attendWorkgroups(spec)).toBeLessThanOrEqual(1024);
    }
  });

  test('where shared memory is small, fewer heads together', () => {
    expect(attendSpec(plainFeatures, { ...mistral, capacity: 8192 })?.together).toBeLessThan(4);
  });
});
