// lib/forecast.ts: how much memory a model will take, before any of it is read.
// parameters' paths and shapes, a scheme, a context -> bytes. Needs config.json only.

import { storedBytes } from './checkpoint/entry.js';
import { tensorsToWrite } from './convert/saved.js';
import { expandRules, type WeightMap } from './convert.js';
import type { ModelConfig } from './models/layers.js';
import { type Scheme, schemeLayout } from './quantize.js';
import { type FloatDType, type Shape, sizeOf } from './tensor.js';

/** A parameter as the model has it. */
export interface ParameterShape {
  readonly path: string;
  readonly shape: Shape;
  /** Type in the checkpoint. */
  readonly stored: FloatDType;
}

/** The parameters that a weight map gives; a tied head, which has no storage of its own, is not among them. */
export function parametersOf(map: WeightMap, stored: FloatDType): ParameterShape[] {
  return expandRules(map)
    .filter(({ optional }) => !optional)
    .map(({ target, shape }) => ({ path: target, shape, stored }));
}

export function parameterCount(parameters: readonly ParameterShape[]): number {
  return parameters.reduce((count, { shape }) => count + sizeOf(shape), 0);
}

/** Bytes of all Weights under a scheme, scales included: exactly what loading gives. */
export function forecastWeightBytes(parameters: readonly ParameterShape[], scheme: Scheme): number {
  const tensors = parameters.flatMap(({ path, shape, stored }) =>
    tensorsToWrite(path, schemeLayout(path, shape, stored, scheme)),
  );
  return tensors.reduce((bytes, { dtype, shape }) => bytes + storedBytes(dtype, shape), 0);
}

/** Bytes of the float32 tensors that running op by op makes of the Weights, beside them. */
export function eagerTensorBytes(parameters: readonly ParameterShape[], config: ModelConfig): number {
  // A tied head is kept turned, beside the embedding: ops.ts says why.
  const turnedHead = config.tiedHead ? config.vocabSize * config.dim : 0;
  return 4 * (parameterCount(parameters) + turnedHead);
}

/** Bytes that keys and values of one token take in all layers, in float32. */
export function cacheBytesPerToken({ layers, kvHeads, headDim }: ModelConfig): number {
  return 4 * 2 * layers * kvHeads * headDim;
}

/**
 * Bytes of the cache for a context.
 * @param tokens prompt and answer together; beyond the model's window nothing is added
 */
export function forecastCacheBytes(config: ModelConfig, tokens: number): number {
  return cacheBytesPerToken(config) * Math.min(tokens, config.window ?? tokens);
}
