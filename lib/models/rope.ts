// lib/models/rope.ts: rotary frequencies. config.json's rope fields -> radians a position for each pair of features.
// Source: transformers' modeling_rope_utils.py (default, linear, llama3).
import type { ConfigReader } from './config.js';
import { configReader } from './config.js';

export type RopeScaling =
  | { readonly kind: 'none' }
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositions: number;
    };

/**
 * Reads rope_scaling, or rope_parameters as newer files call it.
 * @throws RangeError for a kind that would change the result and is not implemented (dynamic, yarn, longrope, ...)
 */
export function parseRopeScaling(read: ConfigReader): RopeScaling {
  const field = read.raw('rope_scaling') === undefined ? 'rope_parameters' : 'rope_scaling';
  const raw = read.raw(field);
  if (raw === undefined) return { kind: 'none' };
  const inner = configReader(raw, `${read.file}: ${field}`);
  const named = inner.raw('rope_type') === undefined ? 'type' : 'rope_type';
  const kind = inner.choice(named, ['default', 'linear', 'llama3'] as const);
  if (kind === 'default') return { kind: 'none' };
  if (kind === 'linear') return { kind, factor: inner.positive('factor') };
  const scaling = {
    kind,
    factor: inner.positive('factor'),
    lowFrequencyFactor: inner.positive('low_freq_factor'),
    highFrequencyFactor: inner.positive('high_freq_factor'),
    originalMaxPositions: inner.size('original_max_position_embeddings'),
  };
  if (scaling.highFrequencyFactor <= scaling.lowFrequencyFactor) {
    inner.fail('high_freq_factor', `more than low_freq_factor ${scaling.lowFrequencyFactor}`);
  }
  return scaling;
}

/**
 * Radians that each pair of features turns from one position to the next, rounded to float32 as PyTorch has them.
 * @param headDim even
 * @param theta rope_theta, the base: the slowest pair turns once in about 2 pi theta positions
 * @returns headDim / 2 numbers, fastest first
 */
export function inverseFrequencies(headDim: number, theta: number, scaling: RopeScaling): number[] {
  const plain = Array.from({ length: headDim / 2 }, (_, pair) =>
    Math.fround(1 / theta ** ((2 * pair) / headDim)),
  );
  if (scaling.kind === 'none') return plain;
  if (scaling.kind === 'linear') return plain.map((frequency) => Math.fround(frequency / scaling.factor));
  return plain.map((frequency) => Math.fround(llama3Frequency(frequency, scaling)));
}

/** Slow pairs are stretched by the factor, fast ones stay, those between are blended. */
function llama3Frequency(frequency: number, scaling: RopeScaling & { kind: 'llama3' }): number {
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalMaxPositions } = scaling;
  const turns = (originalMaxPositions * frequency) / (2 * Math.PI); // over the original context
  if (turns < lowFrequencyFactor) return frequency / factor;
  if (turns > highFrequencyFactor) return frequency;
  const share = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
  return (1 - share) * (frequency / factor) + share * frequency;
}
