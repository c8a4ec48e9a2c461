// Whole models, compiled, against the same functions run eagerly with the same Weights.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { beforeEach, expect, test } from 'vitest';
import { allocate, type KVCache } from '../../../lib/cache.js';
import { eager, type Forward, forwardInput } from '../../../lib/forward.js';
import { jit } from '../../../lib/jit/jit.js';
import { gpt2Network } from '../../../lib/models/gpt2.js';
import { cacheSpecOf, forwardOf, type Network } from '../../../lib/models/layers.js';
import { type MistralConfig, type MistralParams, mistralNetwork } from '../../../lib/models/mistral.js';
import { quantizeParams, type Scheme } from '../../../lib/quantize.js';
import type { ParamTree } from '../../../lib/tensor.js';
import { randomWeight, SMALL_CONFIG, smallParams } from '../../smallModel.js';

beforeEach(async () => {
  await tf.setBackend('cpu');
});

const GPT2 = { ...SMALL_CONFIG, dim: 48, innerDim: 100, heads: 4, kvHeads: 4, headDim: 12 };
const MISTRAL: MistralConfig = {
  vocabSize: 71,
  maxPositions: 64,
  dim: 40,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 10,
  innerDim: 72,
  epsilon: 1e-5,
  window: 6,
  tiedHead: false,
  activation: 'silu',
  ropeTheta: 10000,
  ropeScaling: { kind: 'none' },
  attentionBias: false,
  mlpBias: false,
};

function mistralParams(config: MistralConfig): MistralParams {
  let seed = 50;
  const dense = (inDim: number, outDim: number) => ({ kernel: randomWeight([inDim, outDim], seed++) });
  const norm = () => ({ scale: randomWeight([config.dim], seed++, 2) });
  const [q, kv] = [config.heads * config.headDim, config.kvHeads * config.headDim];
  return {
    embed_tokens: { embedding: randomWeight([config.vocabSize, config.dim], seed++) },
    layers: Array.from({ length: config.layers }, () => ({
      input_layernorm: norm(),
      self_attn: {
        q_proj: dense(config.dim, q),
        k_proj: dense(config.dim, kv),
        v_proj: dense(config.dim, kv),
        o_proj: dense(q, config.dim),
      },
      post_attention_layernorm: norm(),
      mlp: {
        gate_proj: dense(config.dim, config.innerDim),
        up_proj: dense(config.dim, config.innerDim),
        down_proj: dense(config.innerDim, config.dim),
      },
    })),
    norm: norm(),
    lm_head: dense(config.dim, config.vocabSize),
  };
}

/** Logits of a padded prompt of two rows of unequal length, and of steps after it: past a window where there is one. */
async function logitsOf<Params extends ParamTree>(
  forward: Forward<Params>,
  params: Params,
  cache: KVCache,
): Promise<Float32Array[]> {
  const rows = [
    [3, 1, 4, 1, 5],
    [9, 2],
  ];
  const all: Float32Array[] = [];
  let state = cache;
  let starts = [0, 0];
  let next = rows;
  for (let step = 0; step < 8; step++) {
    const output = await forward(params, forwardInput(next, starts), state);
    all.push((await output.logits.data()) as Float32Array);
    starts = starts.map((start, row) => start + next[row]!.length);
    next = [[(step * 7) % 60], [(step * 5 + 1) % 60]];
    state = output.cache;
  }
  return all;
}

async function difference<Params extends ParamTree>(
  network: Network<Params>,
  params: Params,
): Promise<number> {
  const spec = cacheSpecOf(network.config, 20);
  const forward = forwardOf(network);
  const expected = await logitsOf(eager(forward), params, allocate(spec, 2, 'growing'));
  const compiled = jit(forward, { target: 'wasm', donate: [2] }) as unknown as Forward<Params>;
  const received = await logitsOf(compiled, params, allocate(spec, 2, 'fixed'));
  let largest = 0;
  let error = 0;
  for (const [step, logits] of expected.entries()) {
    for (const [i, value] of logits.entries()) {
      largest = Math.max(largest, Math.abs(value));
      error = Math.max(error, Math.abs(value - received[step]![i]!));
    }
  }
  return error / largest;
}

const schemes: readonly [Scheme, number][] = [
  [{ name: 'f32' }, 1e-5],
  [{ name: 'int8' }, 2e-3],
  [{ name: 'int8-tensor' }, 2e-3],
  [{ name: 'int8-group', groupSize: 32 }, 2e-3],
  [{ name: 'int4', groupSize: 32 }, 5e-3],
];

test.each(schemes)('GPT-2, %o', async (scheme, tolerance) => {
  const params = quantizeParams(smallParams(GPT2), scheme);
  expect(await difference(gpt2Network(GPT2), params)).toBeLessThan(tolerance);
});

test.each(schemes)('Mistral with a window and grouped queries, %o', async (scheme, tolerance) => {
  const params = quantizeParams(mistralParams(MISTRAL), scheme);
  expect(await difference(mistralNetwork(MISTRAL), params)).toBeLessThan(tolerance);
});
