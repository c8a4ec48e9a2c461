// lib/models/gpt2.weights.ts: where each tensor of a published GPT-2 goes in the parameter tree.
// Source: transformers, models/gpt2/modeling_gpt2.py. Its Conv1D keeps weights [in, out]: nothing but an untied
// head is transposed.

import type { WeightMap } from '../convert.js';

/** The sizes of GPT-2's configuration that decide its tensors. */
export interface Gpt2WeightSizes {
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly dim: number;
  readonly layers: number;
  readonly innerDim: number;
  readonly tiedHead: boolean;
}

/** Weight map of the GPT-2 family: published with and without the prefix `transformer.`, and either with a head. */
export function gpt2WeightMap(config: Gpt2WeightSizes): WeightMap {
  const { vocabSize, maxPositions, dim, innerDim } = config;
  const norm = (source: string, target: string) => [
    { source: `${source}.weight`, target: `${target}.scale`, shape: [dim] },
    { source: `${source}.bias`, target: `${target}.bias`, shape: [dim] },
  ];
  const conv1d = (name: string, inDim: number, outDim: number) => [
    { source: `${name}.weight`, target: `${name}.kernel`, shape: [inDim, outDim] },
    { source: `${name}.bias`, target: `${name}.bias`, shape: [outDim] },
  ];
  return {
    layers: config.layers,
    prefixes: ['', 'transformer.'],
    rules: [
      { source: 'wte.weight', target: 'wte.embedding', shape: [vocabSize, dim] },
      { source: 'wpe.weight', target: 'wpe.embedding', shape: [maxPositions, dim] },
      ...norm('h.{layer}.ln_1', 'h.{layer}.ln_1'),
      ...conv1d('h.{layer}.attn.c_attn', dim, 3 * dim),
      ...conv1d('h.{layer}.attn.c_proj', dim, dim),
      ...norm('h.{layer}.ln_2', 'h.{layer}.ln_2'),
      ...conv1d('h.{layer}.mlp.c_fc', dim, innerDim),
      ...conv1d('h.{layer}.mlp.c_proj', innerDim, dim),
      ...norm('ln_f', 'ln_f'),
      {
        source: 'lm_head.weight',
        target: 'lm_head.kernel',
        shape: [dim, vocabSize],
        transpose: true,
        unprefixed: true,
        optional: config.tiedHead,
        tiedTo: 'wte.embedding',
      },
    ],
    skip: ['h.{layer}.attn.bias', 'h.{layer}.attn.masked_bias'],
  };
}
