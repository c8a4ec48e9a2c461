// lib/models/layers.ts: what the model families share: the parts of a network, the order they run in, their layers.
// Pure tfjs functions: (params, tokens, cache) -> (logits, cache). Lengths and positions are tensors, never numbers,
// so that a traced program serves every length.
import * as tf from '@tensorflow/tfjs-core';
import type { CacheSpec, CacheStep, KVCache } from '../cache.js';
import { allocate, closeStep, openStep } from '../cache.js';
import { type EveryLogits, type ForwardFunction, type ForwardInput, forwardInput } from '../forward.js';
import { vector } from '../ops.js';
import type { ParamTree, Weight } from '../tensor.js';

/** What every family's Config says; each family adds its own. */
export interface ModelConfig {
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly innerDim: number;
  readonly epsilon: number;
  readonly window: number | null;
  readonly tiedHead: boolean;
}

/** Told each hidden state [batch, query, dim]: 'hidden.0' after the embedding, 'hidden.i' after block i, 'final_norm'. */
export type Observer = (name: string, hidden: tf.Tensor3D) => void;

/** A model family's parts. The order in which they run is the same for all: hiddenStates, below. */
export interface Network<Params extends ParamTree = ParamTree> {
  readonly config: ModelConfig;
  /** tokens [batch, query] -> [batch, query, dim] */
  embed(params: Params, tokens: tf.Tensor2D, step: CacheStep): tf.Tensor3D;
  /** One transformer block: [batch, query, dim] -> [batch, query, dim] */
  block(params: Params, layer: number, x: tf.Tensor3D, step: CacheStep): tf.Tensor3D;
  finalNorm(params: Params, x: tf.Tensor3D): tf.Tensor3D;
  /** [..., dim] -> [..., vocab] */
  head(params: Params, x: tf.Tensor): tf.Tensor;
}

/**
 * Runs all of a network but its head.
 * @returns hidden [batch, query, dim] after the final norm, and the new cache
 */
export function hiddenStates<Params extends ParamTree>(
  network: Network<Params>,
  params: Params,
  { tokens, start, count }: ForwardInput,
  cache: KVCache,
  observe: Observer = () => {},
): { hidden: tf.Tensor3D; cache: KVCache } {
  const step = openStep(cache, start, count, tokens.shape[1]);
  let x = network.embed(params, tokens, step);
  observe('hidden.0', x);
  for (let layer = 0; layer < network.config.layers; layer++) {
    x = network.block(params, layer, x, step);
    observe(`hidden.${layer + 1}`, x);
  }
  const hidden = network.finalNorm(params, x);
  observe('final_norm', hidden);
  return { hidden, cache: closeStep(step) };
}

/** The forward function of a network: hidden states, then the head on each row's last real token. */
export function forwardOf<Params extends ParamTree>(network: Network<Params>): ForwardFunction<Params> {
  return (params, input, cache) => {
    const states = hiddenStates(network, params, input, cache);
    const logits = network.head(params, lastToken(states.hidden, input.count)) as tf.Tensor2D;
    return { logits, cache: states.cache };
  };
}

/** As forwardOf, for one row and without a cache: the logits of every token, [tokens, vocab]. */
export function everyLogitsOf<Params extends ParamTree>(network: Network<Params>): EveryLogits<Params> {
  return async (params, tokens) => {
    const logits = tf.tidy(() => {
      const cache = allocate(cacheSpecOf(network.config, tokens.length), 1);
      const { hidden } = hiddenStates(network, params, forwardInput([tokens], [0]), cache);
      return network.head(params, hidden);
    });
    const values = (await logits.data()) as Float32Array;
    logits.dispose();
    return values;
  };
}

/** The cache that a model needs for `capacity` tokens a row. */
export function cacheSpecOf(config: ModelConfig, capacity: number): CacheSpec {
  const { layers, kvHeads, headDim, window } = config;
  return { layers, kvHeads, headDim, capacity, window: window !== null && window < capacity ? window : null };
}

/** hidden [batch, query, dim], count [batch] -> [batch, dim]: each row's last real token. */
function lastToken(hidden: tf.Tensor3D, count: tf.Tensor1D): tf.Tensor2D {
  const [batch, query, dim] = hidden.shape;
  if (query === 1) return tf.reshape(hidden, [batch, dim]);
  // Rows as one list, not gather's batchDims: tfjs's wasm backend reads the wrong rows with those.
  const first = tf.range(0, batch * query, query, 'int32'); // of each row
  const last = tf.add(first, tf.sub(count, tf.scalar(1, 'int32')));
  return tf.gather(tf.reshape(hidden, [batch * query, dim]), last) as tf.Tensor2D;
}

/**
 * Layer normalization over the last axis.
 * @param x [..., dim]
 * @param scale [dim]; bias [dim]
 * @source Ba et al. 2016, arXiv:1607.06450
 */
export function layerNorm<T extends tf.Tensor>(x: T, scale: Weight, bias: Weight, epsilon: number): T {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centred), -1, true);
  const normal = tf.mul(centred, tf.rsqrt(tf.add(variance, epsilon)));
  return tf.add(tf.mul(normal, vector(scale)), vector(bias));
}

/**
 * Root-mean-square normalization over the last axis.
 * @param x [..., dim]
 * @param scale [dim]
 * @source Zhang and Sennrich 2019, arXiv:1910.07467
 */
export function rmsNorm<T extends tf.Tensor>(x: T, scale: Weight, epsilon: number): T {
  const normal = tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), epsilon)));
  return tf.mul(normal, vector(scale));
}

/** Activation functions by Hugging Face's names. */
export const ACTIVATIONS = {
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  gelu: (x) => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)),
  relu: (x) => tf.relu(x),
  silu,
  swish: silu,
} as const satisfies Record<string, (x: tf.Tensor) => tf.Tensor>;
export type ActivationName = keyof typeof ACTIVATIONS;

/** GELU by its tanh formula, as GPT-2 was trained. @source Hendrycks and Gimpel 2016, arXiv:1606.08415 */
function geluTanh(x: tf.Tensor): tf.Tensor {
  const cubic = tf.mul(tf.mul(tf.mul(x, x), x), 0.044715);
  const inner = tf.mul(tf.add(x, cubic), Math.sqrt(2 / Math.PI));
  return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1));
}

function silu(x: tf.Tensor): tf.Tensor {
  return tf.mul(x, tf.sigmoid(x));
}

/** [batch, query, heads * headDim] -> [batch, heads, query, headDim] */
export function splitHeads(x: tf.Tensor, heads: number): tf.Tensor4D {
  const [batch, query, width] = x.shape as [number, number, number];
  // With one token both orders are the same in memory: no copy.
  if (query === 1) return tf.reshape(x, [batch, heads, 1, width / heads]);
  return tf.transpose(tf.reshape(x, [batch, query, heads, width / heads]), [0, 2, 1, 3]);
}

/** [batch, heads, query, headDim] -> [batch, query, heads * headDim] */
export function mergeHeads(x: tf.Tensor4D): tf.Tensor3D {
  const [batch, heads, query, headDim] = x.shape;
  if (query === 1) return tf.reshape(x, [batch, 1, heads * headDim]);
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch, query, heads * headDim]);
}
