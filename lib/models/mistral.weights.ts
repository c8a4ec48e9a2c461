// lib/models/mistral.weights.ts: where each tensor of a published Mistral or Llama goes in the parameter tree.
// Source: transformers, models/llama/modeling_llama.py. Every Linear is stored [out, in].

import type { WeightMap, WeightRule } from '../convert.js';

/** The sizes of the family's configuration that decide its tensors. */
export interface MistralWeightSizes {
  readonly vocabSize: number;
  readonly dim: number;
  readonly innerDim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly tiedHead: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

/** Weight map of the Mistral and Llama families. */
export function mistralWeightMap(config: MistralWeightSizes): WeightMap {
  const { vocabSize, dim, innerDim, heads, kvHeads, headDim, attentionBias, mlpBias } = config;
  const norm = (name: string) => ({ source: `${name}.weight`, target: `${name}.scale`, shape: [dim] });
  const linear = (name: string, inDim: number, outDim: number, hasBias: boolean): WeightRule[] => [
    { source: `${name}.weight`, target: `${name}.kernel`, shape: [inDim, outDim], transpose: true },
    ...(hasBias ? [{ source: `${name}.bias`, target: `${name}.bias`, shape: [outDim] }] : []),
  ];
  return {
    layers: config.layers,
    prefixes: ['model.', ''],
    rules: [
      { source: 'embed_tokens.weight', target: 'embed_tokens.embedding', shape: [vocabSize, dim] },
      norm('layers.{layer}.input_layernorm'),
      ...linear('layers.{layer}.self_attn.q_proj', dim, heads * headDim, attentionBias),
      ...linear('layers.{layer}.self_attn.k_proj', dim, kvHeads * headDim, attentionBias),
      ...linear('layers.{layer}.self_attn.v_proj', dim, kvHeads * headDim, attentionBias),
      ...linear('layers.{layer}.self_attn.o_proj', heads * headDim, dim, attentionBias),
      norm('layers.{layer}.post_attention_layernorm'),
      ...linear('layers.{layer}.mlp.gate_proj', dim, innerDim, mlpBias),
      ...linear('layers.{layer}.mlp.up_proj', dim, innerDim, mlpBias),
      ...linear('layers.{layer}.mlp.down_proj', innerDim, dim, mlpBias),
      norm('norm'),
      {
        source: 'lm_head.weight',
        target: 'lm_head.kernel',
        shape: [dim, vocabSize],
        transpose: true,
        unprefixed: true,
        optional: config.tiedHead,
        tiedTo: 'embed_tokens.embedding',
      },
    ],
    skip: ['layers.{layer}.self_attn.rotary_emb.inv_freq', 'rotary_emb.inv_freq'],
  };
}
