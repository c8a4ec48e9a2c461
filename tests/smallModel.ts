// A GPT-2 of a few thousand random parameters, for tests that need a model and no meaning.

import { selectBackend } from '../lib/backend.js';
import { allocate } from '../lib/cache.js';
import { eager } from '../lib/forward.js';
import type { GenerativeModel } from '../lib/generate.js';
import { type Gpt2Config, type Gpt2Params, gpt2Network } from '../lib/models/gpt2.js';
import { cacheSpecOf, forwardOf, type ModelConfig, type Network } from '../lib/models/layers.js';
import { type FloatWeight, floatWeight, type ParamTree, sizeOf } from '../lib/tensor.js';

/** Uniform numbers in -1..1 from a seed. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

export function randomWeight(shape: readonly number[], seed: number, scale = 0.3): FloatWeight {
  const next = randomNumbers(seed);
  return floatWeight(
    Float32Array.from({ length: sizeOf(shape) }, () => next() * scale),
    shape,
  );
}

export const SMALL_CONFIG: Gpt2Config = {
  vocabSize: 61,
  maxPositions: 40,
  dim: 12,
  layers: 2,
  heads: 3,
  kvHeads: 3,
  headDim: 4,
  innerDim: 20,
  epsilon: 1e-5,
  window: null,
  tiedHead: true,
  activation: 'gelu_new',
  scaleScores: true,
  scaleByLayer: false,
};

export function smallParams({ vocabSize, maxPositions, dim, innerDim, layers }: Gpt2Config): Gpt2Params {
  let seed = 1;
  const weight = (...shape: number[]) => randomWeight(shape, seed++);
  const norm = () => ({
    scale: floatWeight(new Float32Array(dim).fill(1.1), [dim]),
    bias: weight(dim),
  });
  const dense = (inDim: number, outDim: number) => ({ kernel: weight(inDim, outDim), bias: weight(outDim) });
  return {
    wte: { embedding: weight(vocabSize, dim) },
    wpe: { embedding: weight(maxPositions, dim) },
    h: Array.from({ length: layers }, () => ({
      ln_1: norm(),
      attn: { c_attn: dense(dim, 3 * dim), c_proj: dense(dim, dim) },
      ln_2: norm(),
      mlp: { c_fc: dense(dim, innerDim), c_proj: dense(innerDim, dim) },
    })),
    ln_f: norm(),
  };
}

/** A model that generate() takes, from any network. */
export function generative<Params extends ParamTree>(
  network: Network<Params>,
  params: Params,
): GenerativeModel {
  const { config }: { config: ModelConfig } = network;
  return {
    params,
    forward: eager(forwardOf(network)) as GenerativeModel['forward'],
    vocabSize: config.vocabSize,
    maxPositions: config.maxPositions,
    newCache: (capacity) => allocate(cacheSpecOf(config, capacity), 1),
    tokenizer: null,
    eosIds: [],
  };
}

export function smallModel(config: Gpt2Config = SMALL_CONFIG): GenerativeModel {
  return generative(gpt2Network(config), smallParams(config));
}

/** The largest difference, as a share of the largest magnitude expected. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    error = Math.max(error, Math.abs(actual[i]! - expected[i]!));
  }
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / largest;
}

export async function useCpu(): Promise<void> {
  await selectBackend('cpu');
}
