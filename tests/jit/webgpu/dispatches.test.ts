// What the planner and the selectors make of a decoding loop and of a prompt, without a GPU: how many dispatches a layer
// takes.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { beforeAll, describe, expect, test } from 'vitest';
import { allocate } from '../../../lib/cache.js';
import { beginPrompt } from '../../../lib/compile/prompt.js';
import { type ForwardFunction, forwardInput } from '../../../lib/forward.js';
import type { Graph } from '../../../lib/jit/graph.js';
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
  const items = itemsOf(traced.graph, features, mode);
  return namesOf(
    items.flatMap((item) => (item.kind === 'loop' ? item.body : [])),
    features,
  );
}

/** Names of the kernels of a prompt of so many texts, in order. */
function promptOf(model: Model, texts: number, features: Features, mode: Mode = 'exact'): string[] {
  const rows = Array.from({ length: texts }, () => new Array<number>(32).fill(1));
  const input = forwardInput(
    rows,
    rows.map(() => 0),
  );
  const traced = traceFunction(beginPrompt(model.forwardFunction) as (...args: never[]) => unknown, [
    model.params,
    input,
    cacheSpecOf(model.config, 64),
  ]);
  return namesOf(itemsOf(traced.graph, features, mode), features);
}

function itemsOf(traced: Graph, features: Features, mode: Mode): readonly Item[] {
  const { graph, groups } = groupKernels(optimize(traced));
  const plan = planMemory(graph, [], groups, { alignmentBytes: 256 });
  return lowerPlan(plan, { features, bindingBytes: 2 ** 31, mode }).items;
}

function namesOf(items: readonly Item[], features: Features): string[] {
  return items.flatMap((item) => {
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
    'inputs as bytes take as many: who makes a value makes its bytes (%s)',
    async (scheme) => {
      const model = await loadModel('data/models/tiny-mistral', { scheme: { name: scheme } });
      const floats = roundOf(model, { ...largeGpu, packedDot: false });
      const exact = roundOf(model, largeGpu);
      expect(exact).toEqual(floats);
      expect(roundOf(model, largeGpu, 'fast')).toEqual(exact);
    },
  );
});

describe('a prompt', () => {
  beforeAll(async () => void (await tf.setBackend('cpu')));

  test.each([
    ['tiny-mistral', 1],
    ['tiny-mistral', 8],
    ['tiny-gpt2', 1],
  ] as const)('%s ends with products of one row for each of %d texts', async (name, texts) => {
    const model = await loadModel(`data/models/${name}`);
    for (const features of [largeGpu, plainFeatures]) {
      const names = promptOf(model, texts, features);
      const gathers = names.filter((each) => each.startsWith('gather'));
      expect(gathers).toEqual(['gather side by side']); // of what attention mixed, and of what it is added to
      const behind = names.slice(names.indexOf('gather side by side') + 1);
      expect(behind).toHaveLength(4);
      for (const each of behind) expect(each).toMatch(new RegExp(`^matvec f16 ${texts}x`));
    }
  });
});
