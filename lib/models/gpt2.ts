// lib/models/gpt2.ts: GPT-2. config.json -> Config; parameters, tokens, cache -> hidden states and logits.
// Source: Radford et al. 2019; transformers' modeling_gpt2.py. The weight map is in gpt2.weights.ts.
import * as tf from '@tensorflow/tfjs-core';
import type { CacheStep } from '../cache.js';
import { cachedAttention } from '../cache.js';
import { embed, linear, unembed } from '../ops.js';
import type { FloatWeight, ParamTree, Weight } from '../tensor.js';
import { configReader, MOST_FEATURES, MOST_LAYERS } from './config.js';
import type { ActivationName, ModelConfig, Network } from './layers.js';
import { ACTIVATIONS, layerNorm, mergeHeads, splitHeads } from './layers.js';

export interface Gpt2Config extends ModelConfig {
  readonly activation: ActivationName;
  /** Scores are divided by sqrt(headDim); some variants leave it out. */
  readonly scaleScores: boolean;
  /** Scores of layer i are divided by i + 1 as well. */
  readonly scaleByLayer: boolean;
}

export interface Gpt2Params extends ParamTree {
  readonly wte: { readonly embedding: Weight }; // [vocab, dim]
  readonly wpe: { readonly embedding: Weight }; // [maxPositions, dim]
  readonly h: readonly Gpt2Block[];
  readonly ln_f: Norm;
  readonly lm_head?: { readonly kernel: Weight }; // [dim, vocab]; absent: wte is the head
}

export interface Gpt2Block extends ParamTree {
  readonly ln_1: Norm;
  readonly attn: { readonly c_attn: Dense; readonly c_proj: Dense }; // [dim, 3 dim], [dim, dim]
  readonly ln_2: Norm;
  readonly mlp: { readonly c_fc: Dense; readonly c_proj: Dense }; // [dim, innerDim], [innerDim, dim]
}

interface Norm extends ParamTree {
  readonly scale: FloatWeight; // [dim]
  readonly bias: FloatWeight; // [dim]
}

interface Dense extends ParamTree {
  readonly kernel: Weight; // [in, out]
  readonly bias: FloatWeight; // [out]
}

const shared = {
  vocabSize: 50257,
  maxPositions: 1024,
  epsilon: 1e-5,
  window: null,
  tiedHead: true,
  activation: 'gelu_new',
  scaleScores: true,
  scaleByLayer: false,
} as const;

/** The published shapes; anything else of the family is read from its config.json. */
export const GPT2_PRESETS = {
  gpt2: { ...shared, dim: 768, layers: 12, heads: 12, kvHeads: 12, headDim: 64, innerDim: 3072 },
  'gpt2-medium': { ...shared, dim: 1024, layers: 24, heads: 16, kvHeads: 16, headDim: 64, innerDim: 4096 },
} as const satisfies Record<string, Gpt2Config>;

/**
 * Reads a GPT-2 config.json. Options that change the result are read or refused by name.
 * @param json the parsed file
 * @param file its name, for errors
 * @throws RangeError that names file, field, expected and found
 */
export function parseGpt2Config(json: unknown, file: string): Gpt2Config {
  const read = configReader(json, file);
  const dim = read.size('n_embd', 768, MOST_FEATURES);
  const heads = read.size('n_head', 12, MOST_FEATURES);
  if (dim % heads !== 0) read.fail('n_head', `a divisor of n_embd ${dim}`);
  read.refuse('add_cross_attention', [false], 'this course runs decoders only');
  read.refuse(
    'quantization_config',
    [],
    'the weights are packed; use the original checkpoint and `response-time quantize`',
  );
  const pruned = read.raw('pruned_heads');
  if (pruned !== undefined && Object.keys(pruned as object).length > 0) {
    read.fail('pruned_heads', 'none: pruned heads change the shapes of the layers');
  }
  return {
    vocabSize: read.size('vocab_size', 50257),
    maxPositions: read.size('n_positions', read.size('n_ctx', 1024)),
    dim,
    layers: read.size('n_layer', 12, MOST_LAYERS),
    heads,
    kvHeads: heads,
    headDim: dim / heads,
    innerDim: read.size('n_inner', 4 * dim),
    epsilon: read.positive('layer_norm_epsilon', 1e-5),
    window: null,
    tiedHead: read.flag('tie_word_embeddings', true),
    activation: read.choice('activation_function', Object.keys(ACTIVATIONS) as ActivationName[], 'gelu_new'),
    scaleScores: read.flag('scale_attn_weights', true),
    scaleByLayer: read.flag('scale_attn_by_inverse_layer_idx', false),
  };
}

/** The parts of a GPT-2 of this configuration. */
export function gpt2Network(config: Gpt2Config): Network<Gpt2Params> {
  return {
    config,
    embed(params, tokens, step) {
      const last = tf.scalar(config.maxPositions - 1, 'int32');
      const positions = tf.minimum(step.asked, last); // padding may lie past the last position
      return tf.add(
        embed(params.wte.embedding, tokens),
        embed(params.wpe.embedding, positions),
      ) as tf.Tensor3D;
    },
    block(params, layer, x, step) {
      const { ln_1, attn, ln_2, mlp } = params.h[layer]!;
      const attended = tf.add(
        x,
        selfAttention(config, attn, layer, layerNorm(x, ln_1.scale, ln_1.bias, config.epsilon), step),
      );
      const inner = linear(
        layerNorm(attended, ln_2.scale, ln_2.bias, config.epsilon),
        mlp.c_fc.kernel,
        mlp.c_fc.bias,
      );
      const activated = ACTIVATIONS[config.activation](inner); // [batch, query, innerDim]
      return tf.add(attended, linear(activated, mlp.c_proj.kernel, mlp.c_proj.bias)) as tf.Tensor3D;
    },
    finalNorm: (params, x) => layerNorm(x, params.ln_f.scale, params.ln_f.bias, config.epsilon),
    head: (params, x) =>
      params.lm_head ? linear(x, params.lm_head.kernel) : unembed(x, params.wte.embedding),
  };
}

/** x [batch, query, dim] -> [batch, query, dim] */
function selfAttention(
  config: Gpt2Config,
  attn: Gpt2Block['attn'],
  layer: number,
  x: tf.Tensor3D,
  step: CacheStep,
): tf.Tensor3D {
  const qkv = linear(x, attn.c_attn.kernel, attn.c_attn.bias); // [batch, query, 3 dim]
  const [q, k, v] = tf.split(qkv, 3, -1).map((part) => splitHeads(part, config.heads)) as [
    tf.Tensor4D,
    tf.Tensor4D,
    tf.Tensor4D,
  ];
  const scale =
    (config.scaleScores ? 1 / Math.sqrt(config.headDim) : 1) / (config.scaleByLayer ? layer + 1 : 1);
  const mixed = mergeHeads(cachedAttention(step, layer, q, k, v, scale));
  return linear(mixed, attn.c_proj.kernel, attn.c_proj.bias) as tf.Tensor3D;
}
