// The suites of models and kernels on the specialised kernels, which an emulated GPU otherwise does without; and the mode
// `fast` beside `exact`.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { jit } from '../../../lib/jit/jit.js';
import { linear } from '../../../lib/ops.js';
import { quantizeMatrix } from '../../../lib/quantize/integers.js';
import type { Granularity } from '../../../lib/tensor.js';
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
  const make = (kind: 'int8' | 'int4', inDim: number, outDim: number, seed: number) => {
    const granularity: Granularity & { axis: 0 | 1 } =
      kind === 'int8' ? { per: 'channel', axis: 1 } : { per: 'group', axis: 1, size: 32 };
    return quantizeMatrix(randomWeight([inDim, outDim], seed), kind, granularity);
  };
  const waves = (rows: number, width: number) =>
    tf.tensor2d(
      Array.from({ length: rows * width }, (_, i) => Math.sin(i * 12.9898)),
      [rows, width],
    );

  /** Largest errors of both modes against the reference, as parts of the largest value. */
  async function errorsOf(network: (x: tf.Tensor) => tf.Tensor, x: tf.Tensor) {
    const expected = await (await jit(network, { target: 'reference' })(x)).data();
    const most = Math.max(...Array.from(expected, Math.abs));
    const errorOf = async (mode: 'exact' | 'fast') => {
      const values = await (await jit(network, { target: 'webgpu', mode })(x)).data();
      return Math.max(...Array.from(values, (value, i) => Math.abs(value - expected[i]!))) / most;
    };
    return { exact: await errorOf('exact'), fast: await errorOf('fast') };
  }

  test.each(['int8', 'int4'] as const)(
    '%s: fast comes near exact, exact is the plain result',
    async (kind) => {
      const [gate, up, down] = [make(kind, 64, 96, 1), make(kind, 64, 96, 2), make(kind, 96, 64, 3)];
      // Two blocks of a feed-forward network: what one leaves in bytes the next one reads.
      const block = (x: tf.Tensor) => {
        const y = rms(x);
        return tf.add(x, linear(tf.mul(tf.sigmoid(linear(y, gate)), linear(y, up)), down));
      };
      const { exact, fast } = await errorsOf((x) => linear(rms(block(block(x))), gate), waves(2, 64));
      expect(exact).toBeLessThan(1e-5);
      expect(fast).toBeGreaterThan(1e-5); // it did round
      expect(fast).toBeLessThan(0.03);
    },
  );

  test.each(['int8', 'int4'] as const)('%s: many rows', async (kind) => {
    const kernel = make(kind, 64, 70, 1);
    const { exact, fast } = await errorsOf((x) => tf.add(linear(rms(x), kernel), 1), waves(70, 64));
    expect(exact).toBeLessThan(1e-5);
    expect(fast).toBeLessThan(0.03);
  });

  test.each(['int8', 'int4'] as const)('%s: a depth in pieces', async (kind) => {
    const [a, b] = [make(kind, 1056, 20, 1), make(kind, 1056, 20, 2)];
    const network = (x: tf.Tensor) => tf.mul(linear(x, a), linear(x, b));
    const { exact, fast } = await errorsOf(network, waves(9, 1056));
    expect(exact).toBeLessThan(1e-5);
    expect(fast).toBeLessThan(0.03);
  });
});
