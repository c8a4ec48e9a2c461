// Weights of every kind on the GPU: as kernels and as embeddings, scaled along either axis, in one buffer and split over
// several, against the reference interpreter; and the memory that they take.
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Target } from '../../../lib/jit/target.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { embed, linear, unembed, vector } from '../../../lib/ops.js';
import { weightBytes } from '../../../lib/tensor.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';
import { integers, numbers } from '../agree.js';
import { checkOnTarget } from '../onTarget.js';
import { makeWeight, weightKinds } from '../wasm/anyWeight.js';

/** Numbers in -1..1 that look random and are the same each time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 31;
  };
}

const T = 2e-6;

describe.skipIf(!hasWebgpu)(`Weights on webgpu (${webgpuReason})`, () => {
  let target: Target;
  let narrow: Target; // as if the adapter could bind no more than 2 kB
  beforeAll(async () => {
    target = await createWebgpuTarget({ kernels: 'plain', guard: false });
    narrow = await createWebgpuTarget({ kernels: 'plain', guard: false, bindingBytes: 2048 });
  });
  afterAll(async () => {
    await target.dispose();
    await narrow.dispose();
  });

  const cases = weightKinds.flatMap((kind) => ([0, 1] as const).map((axis) => [kind, axis] as const));

  test.each(cases)('%s scaled along axis %d: a kernel, a tied head, an embedding', async (kind, axis) => {
    const kernel = makeWeight(kind, [38, 21], axis, random(3));
    const table = makeWeight(kind, [21, 38], axis, random(5));
    const product = (x: tf.Tensor) => linear(x, kernel);
    const head = (x: tf.Tensor) => unembed(x, table);
    for (const rows of [1, 6])
      for (const fn of [product, head]) await checkOnTarget(target, fn, [numbers([rows, 38])], T, 1e-2);
    const both = (x: tf.Tensor, ids: tf.Tensor) => [embed(table, ids), linear(x, table)];
    await checkOnTarget(target, both, [numbers([3, 21]), integers([5], 21)], T, 1e-2);
  });

  test.each(['f32', 'f16', 'int8', 'int4 32'])('%s over several buffers', async (kind) => {
    const kernel = makeWeight(kind, [38, 70], 1, random(3));
    const table = makeWeight(kind, [70, 38], 0, random(5));
    const bias = makeWeight('f32', [1, 70], 1, random(7));
    const flat = { ...bias, shape: [70] };
    const fn = (x: tf.Tensor, ids: tf.Tensor) => [tf.relu(linear(x, kernel, flat)), embed(table, ids)];
    await checkOnTarget(narrow, fn, [numbers([2, 38]), integers([9], 70)], T, 1e-2);
  });

  test.each(weightKinds)('%s over several buffers, with its scales along the other axis', async (kind) => {
    const kernel = makeWeight(kind, [40, 72], 0, random(3));
    const table = makeWeight(kind, [72, 40], 1, random(5));
    const fn = (x: tf.Tensor, ids: tf.Tensor) => [linear(x, kernel), unembed(x, table), embed(table, ids)];
    await checkOnTarget(narrow, fn, [numbers([2, 40]), integers([9], 72)], T, 1e-2);
  });

  test('an index outside an embedding gives NaN', async () => {
    const table = makeWeight('int8', [70, 38], 0, random(5));
    const ids = tf.tensor1d([0, -1, 69, 70], 'int32');
    await checkOnTarget(narrow, (i) => embed(table, i), [ids], T, 1e-2);
  });

  test('a matrix takes its stored bytes and no more than the filling of its rows', async () => {
    const own = await createWebgpuTarget({ kernels: 'plain', guard: false });
    for (const kind of ['f32', 'f16', 'int8', 'int4 32']) {
      const weight = makeWeight(kind, [256, 96], 1, random(1));
      const bound = own.bind(weight, { path: kind, outputAxis: 1 });
      expect(bound.bytes).toBe(weightBytes(weight));
      expect(own.memory().weightBytes).toBe(bound.bytes);
      own.unbind(bound);
      expect(own.memory().weightBytes).toBe(0);
    }
    await own.dispose();
  });

  test('a vector is read as float32', async () => {
    const scale = { ...makeWeight('bf16', [1, 9], 1, random(2)), shape: [9] };
    await checkOnTarget(target, (x) => tf.mul(x, vector(scale)), [numbers([4, 9])], T, 1e-2);
  });
});
