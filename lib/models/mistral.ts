// lib/models/mistral.ts: Mistral and Llama. config.json -> Config; parameters, tokens, cache -> hidden states, logits.
// Source: Jiang et al. 2023, arXiv:2310.06825; Touvron et al. 2023; transformers' modeling_mistral.py and
// modeling_llama.py. The weight map is in mistral.weights.ts.
import * as tf from '@tensorflow/tfjs-core';
import type { CacheStep } from '../cache.js';
import { cachedAttention } from '../cache.js';
import { embed, linear, rotary, unembed } from '../ops.js';
import type { FloatWeight, ParamTree, Weight } from '../tensor.js';
import { type ConfigReader, configReader, MOST_FEATURES, MOST_LAYERS } from './config.js';
import type { ActivationName, ModelConfig, Network } from './layers.js';
import { ACTIVATIONS, mergeHeads, rmsNorm, splitHeads } from './layers.js';
import { inverseFrequencies, parseRopeScaling, type RopeScaling } from './rope.js';

export interface MistralConfig extends ModelConfig {
  readonly activation: ActivationName;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

export interface MistralParams extends ParamTree {
  readonly embed_tokens: { readonly embedding: Weight }; // [vocab, dim]
  readonly layers: readonly MistralBlock[];
  readonly norm: { readonly scale: FloatWeight }; // [dim]
  readonly lm_head?: { readonly kernel: Weight }; // [dim, vocab]; absent: embed_tokens is the head
}

export interface MistralBlock extends ParamTree {
  readonly input_layernorm: { readonly scale: FloatWeight }; // [dim]
  readonly self_attn: {
    readonly q_proj: Dense; // [dim, heads * headDim]
    readonly k_proj: Dense; // [dim, kvHeads * headDim]
    readonly v_proj: Dense;
    readonly o_proj: Dense; // [heads * headDim, dim]
  };
  readonly post_attention_layernorm: { readonly scale: FloatWeight };
  readonly mlp: {
    readonly gate_proj: Dense; // [dim, innerDim]
    readonly up_proj: Dense;
    readonly down_proj: Dense; // [innerDim, dim]
  };
}

interface Dense extends ParamTree {
  readonly kernel: Weight; // [in, out]
  readonly bias?: FloatWeight; // [out]
}

const shared = {
  activation: 'silu',
  ropeScaling: { kind: 'none' },
  attentionBias: false,
  mlpBias: false,
  window: null,
  epsilon: 1e-5,
  headDim: 64,
  tiedHead: false,
} as const;

/** Published shapes; anything else of the families is read from its config.json. */
export const MISTRAL_PRESETS = {
  'mistral-7b': {
    ...shared,
    vocabSize: 32000,
    maxPositions: 32768,
    dim: 4096,
    layers: 32,
    heads: 32,
    kvHeads: 8,
    headDim: 128,
    innerDim: 14336,
    ropeTheta: 1e6,
  },
  'smollm2-135m': {
    ...shared,
    vocabSize: 49152,
    maxPositions: 8192,
    dim: 576,
    layers: 30,
    heads: 9,
    kvHeads: 3,
    innerDim: 1536,
    ropeTheta: 1e5,
    tiedHead: true,
  },
  'tinyllama-1.1b': {
    ...shared,
    vocabSize: 32000,
    maxPositions: 2048,
    dim: 2048,
    layers: 22,
    heads: 32,
    kvHeads: 4,
    innerDim: 5632,
    ropeTheta: 1e4,
  },
} as const satisfies Record<string, MistralConfig>;

/**
 * Reads a Mistral or Llama config.json. Options that change the result are read or refused by name.
 * @param json the parsed file
 * @param file its name, for errors
 * @throws RangeError that names file, field, expected and found
 */
export function parseMistralConfig(json: unknown, file: string): MistralConfig {
  const read = configReader(json, file);
  const isMistral = read.choice('model_type', ['mistral', 'llama'] as const) === 'mistral';
  const dim = read.size('hidden_size', 4096, MOST_FEATURES);
  const heads = read.size('num_attention_heads', 32, MOST_FEATURES);
  const kvHeads = read.size('num_key_value_heads', isMistral ? 8 : heads);
  if (heads % kvHeads !== 0) read.fail('num_key_value_heads', `a divisor of num_attention_heads ${heads}`);
  if (read.raw('head_dim') === undefined && dim % heads !== 0) {
    read.fail('num_attention_heads', `a divisor of hidden_size ${dim}, or a head_dim beside it`);
  }
  const headDim = read.size('head_dim', dim / heads, MOST_FEATURES);
  if (headDim % 2 !== 0) read.fail('head_dim', 'an even number, whose halves are rotated together');
  read.refuse('partial_rotary_factor', [1], 'all of a head is rotated here');
  read.refuse(
    'quantization_config',
    [],
    'the weights are packed; use the original checkpoint and `response-time quantize`',
  );
  return {
    vocabSize: read.size('vocab_size', 32000),
    maxPositions: read.size('max_position_embeddings', isMistral ? 131072 : 2048),
    dim,
    layers: read.size('num_hidden_layers', 32, MOST_LAYERS),
    heads,
    kvHeads,
    headDim,
    innerDim: read.size('intermediate_size', isMistral ? 14336 : 11008),
    epsilon: read.positive('rms_norm_eps', 1e-6),
    window: isMistral ? readWindow(read) : null,
    tiedHead: read.flag('tie_word_embeddings', false),
    activation: read.choice('hidden_act', Object.keys(ACTIVATIONS) as ActivationName[], 'silu'),
    ropeTheta: readTheta(read),
    ropeScaling: parseRopeScaling(read),
    attentionBias: !isMistral && read.flag('attention_bias', false),
    mlpBias: !isMistral && read.flag('mlp_bias', false),
  };
}

/** Absent means Mistral's default of 4,096; null means no window. */
function readWindow(read: ConfigReader): number | null {
  return read.has('sliding_window') && read.raw('sliding_window') === undefined
    ? null
    : read.size('sliding_window', 4096);
}

/** rope_theta stands beside rope_scaling, or inside rope_parameters in newer files. */
function readTheta(read: ConfigReader): number {
  const parameters = read.raw('rope_parameters');
  const inner = parameters === undefined ? read : configReader(parameters, `${read.file}: rope_parameters`);
  return read.positive('rope_theta', inner.positive('rope_theta', 10000));
}

/** The parts of a Mistral or Llama of this configuration. */
export function mistralNetwork(config: MistralConfig): Network<MistralParams> {
  const frequencies = inverseFrequencies(config.headDim, config.ropeTheta, config.ropeScaling);
  return {
    config,
    embed: (params, tokens) => embed(params.embed_tokens.embedding, tokens) as tf.Tensor3D,
    block(params, layer, x, step) {
      const { input_layernorm, self_attn, post_attention_layernorm, mlp } = params.layers[layer]!;
      const normal = rmsNorm(x, input_layernorm.scale, config.epsilon);
      const attended = tf.add(x, selfAttention(config, frequencies, self_attn, layer, normal, step));
      const again = rmsNorm(attended, post_attention_layernorm.scale, config.epsilon);
      const gate = ACTIVATIONS[config.activation](linear(again, mlp.gate_proj.kernel, mlp.gate_proj.bias));
      const inner = tf.mul(gate, linear(again, mlp.up_proj.kernel, mlp.up_proj.bias)); // [batch, query, innerDim]
      return tf.add(attended, linear(inner, mlp.down_proj.kernel, mlp.down_proj.bias)) as tf.Tensor3D;
    },
    finalNorm: (params, x) => rmsNorm(x, params.norm.scale, config.epsilon),
    head: (params, x) =>
      params.lm_head ? linear(x, params.lm_head.kernel) : unembed(x, params.embed_tokens.embedding),
  };
}

/** x [batch, query, dim] -> [batch, query, dim] */
function selfAttention(
  config: MistralConfig,
  frequencies: readonly number[],
  { q_proj, k_proj, v_proj, o_proj }: MistralBlock['self_attn'],
  layer: number,
  x: tf.Tensor3D,
  step: CacheStep,
): tf.Tensor3D {
  const q = splitHeads(linear(x, q_proj.kernel, q_proj.bias), config.heads);
  const k = splitHeads(linear(x, k_proj.kernel, k_proj.bias), config.kvHeads);
  const v = splitHeads(linear(x, v_proj.kernel, v_proj.bias), config.kvHeads);
  const turnedQ = rotary(q, step.asked, frequencies);
  const turnedK = rotary(k, step.asked, frequencies);
  const mixed = cachedAttention(step, layer, turnedQ, turnedK, v, 1 / Math.sqrt(config.headDim));
  return linear(mergeHeads(mixed), o_proj.kernel, o_proj.bias) as tf.Tensor3D;
}
