// The suites of models and kernels on the specialised kernels, which an emulated GPU otherwise does without; and the mode
// `fast` beside `exact`.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { jit } from '../../../lib/jit/jit.js';
import { linear } from '../../../lib/ops.js';
import { quantizeMatrix } from '../../../lib/quantize/integers.js';
import type { FloatWeight } from '../../../lib/tensor.js';
import { randomWeight } from '../../smallModel.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';

if (hasWebgpu) {
  process.env.RT_TEST_TARGET = 'webgpu';
  process.env.RESPONSE_TIME_WEBGPU_KERNELS = 'all';
  await import('../models.test.js');
}

describe.skipIf(!hasWebgpu)(`integer Weights (${webgpuReason})`, () => {
  const gain = randomWeight([64], 9, 1);
  const rms = (x: tf.Tensor) => {
    const root = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-5));
    return tf.mul(tf.mul(x, root), tf.tensor1d(new Float32Array(gain.bytes.buffer)));
  };
  const weight = (inDim: number, outDim: number, seed: number) =>
    randomWeight([inDim, outDim], seed) as FloatWeight;

  test.each(['int8', 'int4'] as const)(
    '%s: fast comes near exact, exact is the plain result',
    async (kind) => {
      const granularity = kind === 'int8' ? { per: 'channel', axis: 1 } : { per: 'group', axis: 1, size: 32 };
      const make = (...shape: [number, number, number]) =>
        quantizeMatrix(weight(...shape), kind, granularity as { per: 'channel'; axis: 1 });
      const [gate, up, down] = [make(64, 96, 1), make(64, 96, 2), make(96, 64, 3)];
      // Two blocks of a feed-forward network: what one leaves in bytes the next one reads.
      const block = (x: tf.Tensor) => {
        const y = rms(x);
        return tf.add(x, linear(tf.mul(tf.sigmoid(linear(y, gate)), linear(y, up)), down));
      };
      const network = (x: tf.Tensor) => linear(rms(block(block(x))), gate);
      const x = tf.tensor2d(
        Array.from({ length: 128 }, (_, i) => Math.sin(i * 12.9898)),
        [2, 64],
      );
      const plain = await jit(network, { target: 'reference' })(x);
      const expected = await plain.data();
      const most = Math.max(...Array.from(expected, Math.abs));
      const errorOf = async (mode: 'exact' | 'fast') => {
        const values = await (await jit(network, { target: 'webgpu', mode })(x)).data();
        return Math.max(...Array.from(values, (value, i) => Math.abs(value - expected[i]!))) / most;
      };
      expect(await errorOf('exact')).toBeLessThan(1e-5);
      const fast = await errorOf('fast');
      expect(fast).toBeGreaterThan(1e-5); // it did round
      expect(fast).toBeLessThan(0.03);
    },
  );
});
