// The guard: what a plan's kernels are compared on, and that a wrong one stops with its name.

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allocate, cachedAttention, openStep } from '../../../lib/cache.js';
import type { ElementValues } from '../../../lib/jit/graph.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { planMemory } from '../../../lib/jit/plan.js';
import type { Plan } from '../../../lib/jit/steps.js';
import type { Target, TargetBuffer } from '../../../lib/jit/target.js';
import { createReferenceTarget } from '../../../lib/jit/targets/reference/run.js';
import { Guard } from '../../../lib/jit/targets/webgpu/guard.js';
import { guardBlocks } from '../../../lib/jit/targets/webgpu/guardBlocks.js';
import { guardCases } from '../../../lib/jit/targets/webgpu/guardCases.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { linear, rotary } from '../../../lib/ops.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';
import { numbers } from '../agree.js';
import { checkOnTarget } from '../onTarget.js';
import { makeWeight } from '../wasm/anyWeight.js';
import '../traced.js';

const kernel = makeWeight('int8', [64, 32], 1, () => 0.5);
const fn = (x: tf.Tensor) => tf.softmax(tf.tanh(linear(x, kernel)));

function planOf(): Plan {
  const traced = traceFunction(fn as (...args: never[]) => unknown, [numbers([1, 64])]);
  return planMemory(optimize(traced.graph));
}

let cache: string;
beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), 'response-time-guard-'));
  process.env.RESPONSE_TIME_CACHE = cache;
});
afterAll(() => rm(cache, { recursive: true }));

test('a plan is compared on its operations, each kind once', () => {
  expect(guardCases(planOf()).map(({ kind }) => kind)).toEqual([
    'Tanh f32 f32',
    'Linear int8 channel axis 1   1',
    'Softmax false',
  ]);
});

test('attention over a cache is compared with the products around it, as a token and as a prompt', () => {
  const planOfAttention = (query: number): Plan => {
    const spec = { layers: 1, kvHeads: 1, headDim: 32, capacity: 64, window: null };
    const attend = (x: tf.Tensor3D) => {
      const cache = allocate(spec, 2, 'fixed');
      const step = openStep(cache, tf.tensor1d([0, 0], 'int32'), tf.tensor1d([query, query], 'int32'), query);
      const heads = tf.transpose(
        tf.reshape(linear(x, kernel), [2, query, 1, 32]),
        [0, 2, 1, 3],
      ) as tf.Tensor4D;
      const turned = rotary(
        heads,
        step.asked,
        Array.from({ length: 16 }, (_, i) => 0.5 ** i),
      );
      return cachedAttention(step, 0, turned, turned, heads, 0.4);
    };
    const traced = traceFunction(attend as (...args: never[]) => unknown, [numbers([2, query, 64])]);
    return planMemory(optimize(traced.graph));
  };
  const kinds = [1, 9].flatMap((query) => guardBlocks(planOfAttention(query)).map(({ kind }) => kind));
  expect(kinds).toEqual(['block int8 channel axis 1 halves 2x1', 'block int8 channel axis 1 halves 1x17']);
  expect(guardBlocks(planOf())).toEqual([]);
});

test('a kernel that is off by a thousandth stops, with its name, the adapter and the error', async () => {
  const target = createReferenceTarget();
  let runs = 0;
  const read = (buffer: TargetBuffer, dtype: 'f32' | 'i32' | 'bool'): ElementValues => {
    const values = target.read(buffer, dtype);
    runs += 1;
    if (runs > 1) values[3]! += 2e-3 * Math.max(...values);
    return values;
  };
  const guard = new Guard({
    ...{
      planOptions: {},
      kernelsOf: () => ({ text: '', matrices: false }),
      compile: (plan) => target.compile(plan),
      read,
    },
    ...{ bind: target.bind.bind(target), unbind: target.unbind.bind(target) },
    ...{ allocate: target.allocate.bind(target), release: target.release.bind(target) },
    write: target.write.bind(target),
  });
  const checking = guard.check(planOf(), { adapter: 'a GPU', mode: 'exact', isKept: false });
  await expect(checking).rejects.toThrow(
    /kernel Linear int8 channel axis 1.* is wrong on a GPU: element 3 is .*e-3 of/,
  );
});

describe.skipIf(!hasWebgpu)(`on ${webgpuReason}`, () => {
  let target: Target;
  beforeAll(async () => {
    target = await createWebgpuTarget();
  });
  afterAll(() => target.dispose());

  test('what passed is kept by adapter and driver', async () => {
    await checkOnTarget(target, fn as (...args: tf.Tensor[]) => unknown, [numbers([1, 64])], 1e-5, 1);
    const [file] = await readdir(join(cache, 'webgpu'));
    expect(file).toMatch(/\.guard\.json$/);
    const kept = JSON.parse(await readFile(join(cache, 'webgpu', file!), 'utf8')) as string[];
    expect(kept).toHaveLength(3);
    expect(kept[0]).toMatch(/^Tanh f32 f32 exact \w+$/);
  });
});
