// The course's models, compiled: forward and a decoding loop, against eager. jit knows neither of them.
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import type { KVCache } from '../../lib/cache.js';
import { allocate, ringSlots } from '../../lib/cache.js';
import { type ForwardFunction, forwardInput } from '../../lib/forward.js';
import { jit, scan } from '../../lib/jit/jit.js';
import { gpt2Network } from '../../lib/models/gpt2.js';
import { cacheSpecOf, forwardOf, type Network } from '../../lib/models/layers.js';
import { mistralNetwork, parseMistralConfig } from '../../lib/models/mistral.js';
import type { ParamTree } from '../../lib/tensor.js';
import { randomWeight, SMALL_CONFIG, smallParams } from '../smallModel.js';
import { expectClose, defaultTarget as target } from './agree.js';

beforeAll(async () => {
  await tf.setBackend('cpu');
});

const mistralJson = {
  ...{ model_type: 'mistral', vocab_size: 61, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64, rms_norm_eps: 1e-5 },
  ...{ rope_theta: 1e4, sliding_window: 6, tie_word_embeddings: false },
};

function mistral(): { network: Network; params: ParamTree } {
  let seed = 1;
  const weight = (...shape: number[]) => randomWeight(shape, seed++);
  const dense = (inDim: number, outDim: number) => ({ kernel: weight(inDim, outDim) });
  const norm = () => ({ scale: weight(16) });
  const layer = () => ({
    input_layernorm: norm(),
    self_attn: { q_proj: dense(16, 16), k_proj: dense(16, 8), v_proj: dense(16, 8), o_proj: dense(16, 16) },
    post_attention_layernorm: norm(),
    mlp: { gate_proj: dense(16, 24), up_proj: dense(16, 24), down_proj: dense(24, 16) },
  });
  const params = {
    embed_tokens: { embedding: weight(61, 16) },
    layers: [layer(), layer()],
    norm: norm(),
    lm_head: dense(16, 61),
  };
  return {
    network: mistralNetwork(parseMistralConfig(mistralJson, 'config.json')) as unknown as Network,
    params,
  };
}

const models = {
  gpt2: () => ({
    network: gpt2Network(SMALL_CONFIG) as unknown as Network,
    params: smallParams(SMALL_CONFIG) as ParamTree,
  }),
  mistral,
};

/** Greedy decoding of `count` tokens as one loop. */
function decodeLoop(forward: ForwardFunction, count: number) {
  const ones = (like: tf.Tensor) => tf.onesLike(like) as tf.Tensor1D;
  return (params: ParamTree, token: tf.Tensor1D, start: tf.Tensor1D, cache: KVCache) =>
    scan(
      (carry) => {
        const tokens = tf.reshape(carry.token, [-1, 1]) as tf.Tensor2D;
        const output = forward(params, { tokens, start: carry.start, count: ones(carry.start) }, carry.cache);
        const next = tf.argMax(output.logits, -1) as tf.Tensor1D;
        const later = tf.add(carry.start, ones(carry.start)) as tf.Tensor1D;
        return {
          carry: { token: next, start: later, cache: output.cache },
          output: { next, logits: output.logits },
        };
      },
      { token, start, cache },
      count,
    );
}

describe.each(Object.entries(models))('%s', (_, make) => {
  const { network, params } = make();
  const forward = forwardOf(network);
  const cache = () => allocate(cacheSpecOf(network.config, 16), 1, 'fixed');
  const prompt = [3, 1, 4, 1, 5, 9, 2];

  test('prompt and decoding loop give the eager logits and tokens', async () => {
    const input = forwardInput([prompt], [0]);
    const eager = forward(params, input, cache());
    const prefill = jit(forward, { target, donate: [2], check: true });
    const compiled = await prefill(params, input, cache());
    expectClose(Array.from(await compiled.logits.data()), Array.from(await eager.logits.data()));

    const loop = decodeLoop(forward, 6);
    const token = tf.argMax(eager.logits, -1) as tf.Tensor1D;
    const start = tf.tensor1d([prompt.length], 'int32');
    const expected = loop(params, token, start, eager.cache);
    const decode = jit(loop, { target, donate: [3], check: true });
    const received = await decode(params, token, start, compiled.cache);
    expect(Array.from(await received.outputs.next.data())).toEqual(
      Array.from(await expected.outputs.next.data()),
    );
    expectClose(
      Array.from(await received.outputs.logits.data()),
      Array.from(await expected.outputs.logits.data()),
    );
    expect(decode.compilations).toBe(1);
    await expect(decode(params, token, start, compiled.cache)).rejects.toThrow(/donated/);
  });

  test('a padded prompt gives the same logits and never overwrites the cache', async () => {
    const prefill = jit(forward, { target, donate: [2] });
    const exact = await prefill(params, forwardInput([prompt], [0]), cache());
    const padded = forwardInput([[...prompt, 0, 0, 0]], [0]);
    const longer = await prefill(
      params,
      { ...padded, count: tf.tensor1d([prompt.length], 'int32') },
      cache(),
    );
    expectClose(Array.from(await longer.logits.data()), Array.from(await exact.logits.data()));
    expectClose(
      Array.from(await longer.cache.keys[1]!.data()),
      Array.from(await exact.cache.keys[1]!.data()),
    );
  });

  test('a batch of unequal lengths, decoded beyond what a window keeps', async () => {
    const rows = [prompt, [5, 6, 7]];
    const input = forwardInput(rows, [0, 0]);
    const { window } = network.config;
    const capacity = window === null ? 24 : ringSlots(window, prompt.length);
    const two = () => allocate(cacheSpecOf({ ...network.config }, capacity), 2, 'fixed');
    const spec = { ...two(), spec: { ...two().spec, window } }; // the ring is smaller than the text
    const eager = forward(params, input, { ...two(), spec: spec.spec });
    const compiled = await jit(forward, { target, donate: [2] })(params, input, {
      ...two(),
      spec: spec.spec,
    });
    expectClose(Array.from(await compiled.logits.data()), Array.from(await eager.logits.data()));
    const loop = decodeLoop(forward, 12);
    const token = tf.argMax(eager.logits, -1) as tf.Tensor1D;
    const start = tf.tensor1d([7, 3], 'int32');
    const expected = loop(params, token, start, eager.cache).outputs;
    const received = (await jit(loop, { target, donate: [3] })(params, token, start, compiled.cache)).outputs;
    expect(Array.from(await received.next.data())).toEqual(Array.from(await expected.next.data()));
    expectClose(Array.from(await received.logits.data()), Array.from(await expected.logits.data()));
  });

  test('behind its last attention a prompt is one row a text', () => {
    const rows = [prompt, [5, 6, 7]];
    const compiled = jit(forward, { target });
    const text = compiled.graph(
      params,
      forwardInput(rows, [0, 0]),
      allocate(cacheSpecOf(network.config, 16), 2, 'fixed'),
    );
    const [before, behind] = text.split(/CachedAttention(?!.*CachedAttention)/s) as [string, string];
    const products = (part: string) => part.match(/(?<=f32)\[\S*\](?= = Linear)/g) ?? [];
    expect(products(before).every((shape) => shape.startsWith('[2,7,'))).toBe(true);
    expect(products(behind)).toHaveLength(4);
    expect(products(behind).every((shape) => /^\[2,\d+\]$/.test(shape))).toBe(true);
  });

  test('one block is a handful of kernels', () => {
    const step = decodeLoop(forward, 1);
    const text = jit(step, { target }).graph(
      params,
      tf.tensor1d([1], 'int32'),
      tf.tensor1d([3], 'int32'),
      cache(),
    );
    const kernels = text.split('\n').filter((line) => / = (?!Reshape|Constant|WeightTensor|Scan)/.test(line));
    const perLayer = (kernels.length - 10) / network.config.layers;
    expect(perLayer).toBeLessThanOrEqual(11);
    expect(text).not.toMatch(/ = (Rsqrt|Softmax|Reduce\(.*Sum)/);
  });
});
