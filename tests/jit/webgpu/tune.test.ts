// Candidates of matrix-vector kernels: pure; and that a few of them are timed, where there is an adapter.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { describe, expect, test } from 'vitest';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { groupKernels } from '../../../lib/jit/passes/groupKernels.js';
import { planMemory } from '../../../lib/jit/plan.js';
import { openGpu } from '../../../lib/jit/targets/webgpu/device.js';
import { matvecCandidates } from '../../../lib/jit/targets/webgpu/kernels/candidates.js';
import { matvecThreads } from '../../../lib/jit/targets/webgpu/kernels/matvec.js';
import { tuneMatvec } from '../../../lib/jit/targets/webgpu/kernels/tune.js';
import { type MatvecProblem, matvecShape } from '../../../lib/jit/targets/webgpu/kernels/tuning.js';
import { lowerPlan } from '../../../lib/jit/targets/webgpu/lower.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { linear } from '../../../lib/ops.js';
import { quantizeMatrix } from '../../../lib/quantize/integers.js';
import { randomWeight } from '../../smallModel.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';

const largeGpu = {
  ...{ ...plainFeatures, f16: true, subgroups: true, minSubgroupSize: 32, maxSubgroupSize: 32 },
  ...{ packedDot: true, maxThreads: 1024, maxSharedBytes: 49152, maxBuffers: 16 },
};
const problem: MatvecProblem = {
  ...{ rows: 1, inDim: 4096, packing: 'int8', widths: [14336], products: 2, scales: 'row', input: 'bytes' },
  ...{ norm: 'rms', leastColumns: 16 },
};

describe('ways to cut a kernel', () => {
  test('all fit the adapter, keep both products of a column together, and none is there twice', () => {
    for (const features of [largeGpu, plainFeatures]) {
      const shapes = [...matvecCandidates(features, problem), matvecShape(features, problem)];
      expect(shapes.length).toBeGreaterThan(5);
      for (const shape of shapes) {
        expect(matvecThreads(shape)).toBeLessThanOrEqual(features.maxThreads);
        expect(shape.rowsPerGroup % 2).toBe(0);
        expect(shape.rows % shape.rowsPerGroup).toBe(0);
      }
      const texts = matvecCandidates(features, problem).map((shape) => JSON.stringify(shape));
      expect(new Set(texts).size).toBe(texts.length);
    }
    for (const { rows } of matvecCandidates(largeGpu, problem)) expect(rows / 2).toBeGreaterThanOrEqual(16);
  });

  test('more rows of the input leave fewer of them: their code would be too long', () => {
    const many = matvecCandidates(largeGpu, { ...problem, rows: 8 });
    for (const { rowsPerGroup, unroll } of many) expect(rowsPerGroup * unroll).toBeLessThanOrEqual(8);
    expect(many.length).toBeGreaterThan(3);
    expect(many.length).toBeLessThan(30);
    for (const { lanes } of many) expect([8, 16]).toContain(lanes);
  });

  test('by default what was fast on an H200: workgroups enough for it, some loads of each thread under way', () => {
    for (const inDim of [768, 4096, 14336])
      for (const input of ['bytes', 'floats'] as const) {
        const shape = matvecShape(largeGpu, { ...problem, inDim, input, products: 1, widths: [4096] });
        expect(4096 / shape.rows).toBeGreaterThanOrEqual(256);
        expect(shape.unroll * shape.rowsPerGroup).toBeGreaterThan(2);
      }
  });

  test.skipIf(!hasWebgpu)(`are timed and sorted (${webgpuReason})`, async () => {
    await tf.setBackend('cpu');
    const gpu = await openGpu();
    const { features } = gpu;
    const gain = tf.tensor1d(Array.from({ length: 64 }, (_, i) => 1 + (i % 3)));
    const [wide, narrow] = ([[64, 32], [32, 64]] as const).map((shape, i) => quantizeMatrix(randomWeight([...shape], i), 'int8', { per: 'channel', axis: 1 })); // biome-ignore format: short
    const fn = (x: tf.Tensor) => {
      const normed = tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-5))), gain);
      return tf.add(linear(tf.relu(linear(normed, wide!)), narrow!), x);
    };
    const { graph, groups } = groupKernels(optimize(traceFunction(fn as never, [tf.ones([1, 64])]).graph));
    const plan = planMemory(graph, [], groups, { alignmentBytes: 256, zeroedOutputs: true });
    const { problems } = lowerPlan(plan, { features, bindingBytes: 2 ** 27, mode: 'fast' });
    const results = await tuneMatvec(gpu, [...problems.values()], { most: 3 });
    expect([...results.keys()].sort()).toEqual([...problems.keys()].sort());
    expect(results.size).toBe(2);
    for (const timings of results.values()) {
      expect(timings.length).toBeGreaterThan(0);
      const times = timings.map(({ microseconds }) => microseconds);
      expect(times).toEqual([...times].sort((a, b) => a - b));
    }
    gpu.close();
  });
});
