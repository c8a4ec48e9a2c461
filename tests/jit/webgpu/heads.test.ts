// Queries, keys and values between products and attention: layout, rotary positions and the write to the cache as one
// dispatch, against the reference.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { type allocate, cachedAttention, closeStep, openStep } from '../../../lib/cache.js';
import { jit } from '../../../lib/jit/jit.js';
import { rotary } from '../../../lib/ops.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';
import { expectClose } from '../agree.js';

if (hasWebgpu) process.env.RESPONSE_TIME_WEBGPU_KERNELS = 'all';

type Cache = ReturnType<typeof allocate>;
const frequencies = (headDim: number) => Array.from({ length: headDim / 2 }, (_, i) => 0.3 ** i);

/** x [batch, query, 2 * headDim] -> attention of two rows of unequal lengths, and the cache. Sums are stored before they move. */
function attend(x: tf.Tensor3D, cache: Cache, start: tf.Tensor1D, count: tf.Tensor1D, turned: boolean) {
  const [batch, query, width] = x.shape;
  const step = openStep(cache, start, count, query);
  const heads = (t: tf.Tensor) =>
    tf.transpose(tf.reshape(t, [batch, query, 2, width / 2]), [0, 2, 1, 3]) as tf.Tensor4D;
  const turn = (t: tf.Tensor4D) => (turned ? rotary(t, step.asked, frequencies(width / 2)) : t);
  const q = turn(heads(tf.cumsum(x, 2)));
  const mixed = cachedAttention(step, 0, q, turn(heads(tf.cumsum(x, 1))), heads(tf.cumsum(x, 2, true)), 0.4);
  const { keys, values } = closeStep(step);
  return [tf.transpose(mixed, [0, 2, 1, 3]), keys[0]!, values[0]!];
}

describe.skipIf(!hasWebgpu)(`heads (${webgpuReason})`, () => {
  test.each([
    [true, 6, 8, [0, 0], [5, 3]],
    [true, 6, 8, [6, 5], [4, 5]],
    [false, 6, 4, [0, 2], [5, 1]],
    // Four elements at once.
    [true, 8, 8, [6, 5], [4, 5]],
    [false, 8, 4, [0, 2], [5, 1]],
  ])(
    'turned %s, heads of %i, %i slots from %o, %o tokens',
    async (turned, headDim, capacity, from, counts) => {
      const spec = { layers: 1, kvHeads: 2, headDim, capacity, window: null };
      const values = Array.from({ length: 2 * 5 * 2 * headDim }, (_, i) => Math.sin(12.9898 * (i + 1)));
      const held = Array.from({ length: 2 * 2 * capacity * headDim }, (_, i) => Math.cos(78.233 * (i + 1)));
      const run = async (target: 'reference' | 'webgpu'): Promise<number[][]> => {
        const slots = () => tf.tensor4d(held, [2, 2, capacity, headDim]);
        const cache: Cache = {
          spec,
          layout: 'fixed',
          keys: [slots()],
          values: [slots()],
          positions: null,
          padding: 0,
        };
        const [start, count] = [tf.tensor1d(from, 'int32'), tf.tensor1d(counts, 'int32')];
        const results = await jit(attend, { target })(
          tf.tensor3d(values, [2, 5, 2 * headDim]),
          cache,
          start,
          count,
          turned,
        );
        return Promise.all(results.map(async (each) => Array.from(await each.data())));
      };
      const [expected, found] = [await run('reference'), await run('webgpu')];
      for (const [i, each] of found.entries()) expectClose(each, expected[i]!);
      expect(found).toHaveLength(3);
    },
  );

  test('of so many tokens that a thread turns several heads', async () => {
    const query = 8192;
    const turned = (x: tf.Tensor, positions: tf.Tensor2D) => {
      const heads = tf.transpose(tf.reshape(x, [1, query, 2, 32]), [0, 2, 1, 3]) as tf.Tensor4D;
      return rotary(heads, positions, frequencies(32));
    };
    const x = tf.tensor2d(
      Array.from({ length: query * 64 }, (_, i) => Math.sin(12.9898 * (i + 1))),
      [query, 64],
    );
    const positions = tf.tensor2d(
      Array.from({ length: query }, (_, i) => i),
      [1, query],
      'int32',
    );
    const run = async (target: 'reference' | 'webgpu') =>
      Array.from(await (await jit(turned, { target })(x, positions)).data());
    expectClose(await run('webgpu'), await run('reference'));
  });
});
