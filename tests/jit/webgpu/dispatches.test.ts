// What the planner and the selectors make of a decoding loop, without a GPU: how many dispatches a layer takes.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { beforeAll, describe, expect, test } from 'vitest';
import { allocate } from '../../../lib/cache.js';
import type { ForwardFunction } from '../../../lib/forward.js';
import { type Mode, scan } from '../../../lib/jit/jit.js';
import type { Features } from '../../../lib/jit/kernels/kernel.js';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { groupKernels } from '../../../lib/jit/passes/groupKernels.js';
import { planMemory } from '../../../lib/jit/plan.js';
import type { Item } from '../../../lib/jit/targets/webgpu/dispatch.js';
import { lowerPlan } from '../../../lib/jit/targets/webgpu/lower.js';
import { printWgsl } from '../../../lib/jit/targets/webgpu/wgsl.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { loadModel, type Model } from '../../../lib/model.js';
import { cacheSpecOf } from '../../../lib/models/layers.js';
import { GREEDY, sampleToken } from '../../../lib/sample.js';

/** As Dawn says of an H100. */
const largeGpu: Features = {
  ...{ f16: true, subgroups: true, minSubgroupSize: 32, maxSubgroupSize: 32, packedDot: true },
  ...{ matrices: true, maxThreads: 1024, maxSharedBytes: 49152, maxBuffers: 16 },
};

/** Names of the kernels of one round of greedy decoding, in order. */
function roundOf(model: Model, features: Features, mode: Mode = 'exact', capacity = 64): string[] {
  const spec = cacheSpecOf(model.config, capacity);
  const forward: ForwardFunction = model.forwardFunction;
  const loop = (
    params: Model['params'],
    token: tf.Tensor1D,
    position: tf.Tensor1D,
    cache: ReturnType<typeof allocate>,
  ) =>
    scan(
      (carry) => {
        const one = tf.tensor1d([1], 'int32');
        const tokens = tf.reshape(carry.token, [1, 1]) as tf.Tensor2D;
        const output = forward(params, { tokens, start: carry.position, count: one }, carry.cache);
        const next = tf.add(carry.position, one) as tf.Tensor1D;
        const id = sampleToken(output.logits, GREEDY, tf.zeros([4]) as tf.Tensor1D, next);
        return { carry: { token: id, position: next, cache: output.cache }, output: id };
      },
      { token, position, cache },
      8,
    );
  const start = tf.tensor1d([3], 'int32');
  const traced = traceFunction(loop as (...args: never[]) => unknown, [
    model.params,
    tf.tensor1d([1], 'int32'),
    start,
    allocate(spec, 1, 'fixed'),
  ]);
  const { graph, groups } = groupKernels(optimize(traced.graph));
  const plan = planMemory(graph, [], groups, { alignmentBytes: 256 });
  const { items } = lowerPlan(plan, { features, bindingBytes: 2 ** 31, mode });
  const body = items.flatMap((item: Item) => (item.kind === 'loop' ? item.body : []));
  return body.flatMap((item) => {
    if (item.kind !== 'dispatch') return [];
    const { kernel } = item.dispatch;
    expect(kernel.buffers.length).toBeLessThanOrEqual(features.maxBuffers);
    expect(kernel.threads).toBeLessThanOrEqual(features.maxThreads);
    printWgsl(kernel);
    return [kernel.name];
  });
}

describe('a round of decoding', () => {
  beforeAll(async () => void (await tf.setBackend('cpu')));

  test.each(['tiny-mistral', 'tiny-gpt2'])('%s takes five dispatches a layer', async (name) => {
    const model = await loadModel(`data/models/${name}`);
    const names = roundOf(model, largeGpu);
    const products = names.filter((each) => each.startsWith('matvec'));
    expect(products).toHaveLength(4 * model.config.layers + 1);
    expect(names.filter((each) => each === 'attention')).toHaveLength(model.config.layers);
    expect(roundOf(model, plainFeatures).length).toBeGreaterThan(names.length);
  });

  test.each(['int8', 'int4'] as const)(
    'fast takes as many: who makes a value makes its bytes (%s)',
    async (scheme) => {
      const model = await loadModel('data/models/tiny-mistral', { scheme: { name: scheme } });
      const exact = roundOf(model, largeGpu);
      const fast = roundOf(model, largeGpu, 'fast');
      expect(fast.filter((each) => each !== 'quantize')).toEqual(exact);
      expect(fast.filter((each) => each === 'quantize')).toHaveLength(1); // of the embedding
    },
  );
});
