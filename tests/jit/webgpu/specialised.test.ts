// Models and products on the specialised kernels, which an emulated GPU otherwise does without; the mode `fast` beside
// `exact`.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { allocate, cachedAttention, closeStep, type KVCache, openStep } from '../../../lib/cache.js';
import { jit, scan } from '../../../lib/jit/jit.js';
import { gpt2Network } from '../../../lib/models/gpt2.js';
import { cacheSpecOf, forwardOf, type Network } from '../../../lib/models/layers.js';
import { mistralNetwork, parseMistralConfig } from '../../../lib/models/mistral.js';
import { linear } from '../../../lib/ops.js';
import { quantizeMatrix } from '../../../lib/quantize/integers.js';
import type { Granularity, ParamTree } from '../../../lib/tensor.js';
import { randomWeight, SMALL_CONFIG, smallParams } from '../../smallModel.js';
import { hasWebgpu, isEmulated, webgpuReason } from '../../webgpu.js';
import { expectClose } from '../agree.js';

if (hasWebgpu) process.env.RESPONSE_TIME_WEBGPU_KERNELS = 'all';
// On a real GPU, where compiling takes no time, the suite of models too; it is run on the plain kernels elsewhere.
if (hasWebgpu && !isEmulated) {
  process.env.RT_TEST_TARGET = 'webgpu';
  await import('../models.test.js');
}

const mistralJson = {
  ...{ model_type: 'mistral', vocab_size: 61, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64, rms_norm_eps: 1e-5 },
  ...{ rope_theta: 1e4, sliding_window: 6, tie_word_embeddings: false },
};

function smallMistral(): { network: Network; params: ParamTree } {
  let seed = 1;
  const dense = (inDim: number, outDim: number) => ({ kernel: randomWeight([inDim, outDim], seed++) });
  const norm = () => ({ scale: randomWeight([16], seed++) });
  const layer = {
    input_layernorm: norm(),
    self_attn: { q_proj: dense(16, 16), k_proj: dense(16, 8), v_proj: dense(16, 8), o_proj: dense(16, 16) },
    post_attention_layernorm: norm(),
    mlp: { gate_proj: dense(16, 24), up_proj: dense(16, 24), down_proj: dense(24, 16) },
  };
  const network = mistralNetwork(parseMistralConfig(mistralJson, 'config.json')) as unknown as Network; // erased
  const embedding = randomWeight([61, 16], seed++);
  return {
    network,
    params: { embed_tokens: { embedding }, layers: [layer], norm: norm(), lm_head: dense(16, 61) },
  };
}

describe.skipIf(!hasWebgpu)(`decoding (${webgpuReason})`, () => {
  test.each([
    [
      'gpt2',
      () => ({
        network: gpt2Network({ ...SMALL_CONFIG, layers: 1 }) as unknown as Network,
        params: smallParams({ ...SMALL_CONFIG, layers: 1 }) as ParamTree,
      }),
    ],
    ['mistral, beyond its window', smallMistral],
  ])('%s: two rows write what the reference writes', async (_, make) => {
    const { network, params } = make();
    const forward = forwardOf(network);
    const loop = (tree: ParamTree, token: tf.Tensor1D, start: tf.Tensor1D, cache: KVCache) =>
      scan(
        (carry) => {
          const one = tf.onesLike(carry.start) as tf.Tensor1D;
          const tokens = tf.reshape(carry.token, [-1, 1]) as tf.Tensor2D;
          const output = forward(tree, { tokens, start: carry.start, count: one }, carry.cache);
          const next = tf.argMax(output.logits, -1) as tf.Tensor1D;
          return {
            carry: { token: next, start: tf.add(carry.start, one) as tf.Tensor1D, cache: output.cache },
            output: next,
          };
        },
        { token, start, cache },
        9,
      );
    const run = async (target: 'reference' | 'webgpu') => {
      const cache = allocate(cacheSpecOf(network.config, network.config.window ?? 16), 2, 'fixed');
      const start = tf.tensor1d([0, 0], 'int32');
      const result = await jit(loop, { target })(params, tf.tensor1d([5, 9], 'int32'), start, cache);
      const keys = await result.carry.cache.keys[0]!.data();
      return { ids: Array.from(await result.outputs.data()), keys: Array.from(keys) };
    };
    const [expected, found] = [await run('reference'), await run('webgpu')];
    expect(found.ids).toEqual(expected.ids);
    expectClose(found.keys, expected.keys);
  });
});

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
      const rows = kind === 'int8' ? 3 : 2; // from three on, kernels are cut otherwise
      const { exact, fast } = await errorsOf((x) => linear(rms(block(block(x))), gate), waves(rows, 64));
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

  test('attention over a cache in chunks leaves the bytes that the product after it reads', async () => {
    const [batch, heads, headDim, slots] = [2, 2, 32, 640];
    const spec = { layers: 1, kvHeads: 1, headDim, capacity: slots, window: null };
    const kernel = make('int8', heads * headDim, 64, 4);
    const held = () => tf.reshape(waves(batch * slots, headDim), [batch, 1, slots, headDim]) as tf.Tensor4D;
    const step = (x: tf.Tensor, cache: KVCache, start: tf.Tensor1D) => {
      const own = openStep(cache, start, tf.onesLike(start), 1);
      const q = tf.reshape(x, [batch, heads, 1, headDim]) as tf.Tensor4D;
      const k = tf.slice(q, [0, 0, 0, 0], [batch, 1, 1, headDim]) as tf.Tensor4D;
      const mixed = cachedAttention(own, 0, q, k, k, 0.2);
      const y = linear(tf.reshape(mixed, [batch, heads * headDim]), kernel);
      return { y, cache: closeStep(own) };
    };
    const run = async (target: 'reference' | 'webgpu', mode: 'exact' | 'fast') => {
      const cache = { ...allocate(spec, batch, 'fixed'), keys: [held()], values: [held()] };
      const start = tf.tensor1d([630, 140], 'int32');
      const { y } = await jit(step, { target, mode })(waves(batch, heads * headDim), cache, start);
      return Array.from(await y.data());
    };
    const expected = await run('reference', 'exact');
    const most = Math.max(...expected.map(Math.abs));
    const found = await run('webgpu', 'fast');
    expect(Math.max(...found.map((value, i) => Math.abs(value - expected[i]!))) / most).toBeLessThan(0.03);
  });
});
