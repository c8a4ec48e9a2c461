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
  /** Type in the checkpoint; an integer type in one that is quantized, which no scheme rounds again. */
  readonly stored: FloatDType | 'i8' | 'u8';
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

/**
 * Bytes of all Weights under a scheme, scales included: exactly what loading gives.
 * @throws RangeError if the checkpoint is quantized already
 */
export function forecastWeightBytes(parameters: readonly ParameterShape[], scheme: Scheme): number {
  const tensors = parameters.flatMap(({ path, shape, stored }) => {
    if (stored === 'i8' || stored === 'u8') {
      throw new RangeError(`${path}: expected float values for ${scheme.name}, received ${stored}`);
    }
    return tensorsToWrite(path, schemeLayout(path, shape, stored, scheme));
  });
  return tensors.reduce((bytes, { dtype, shape }) => bytes + storedBytes(dtype, shape), 0);
}

/**
 * Bytes of the float32 tensors that running op by op makes of the Weights, beside them: of float ones all, kept; of
 * integer ones the largest, since each is decoded anew for its operation.
 */
export function eagerTensorBytes(
  parameters: readonly ParameterShape[],
  config: ModelConfig,
  scheme: Scheme,
): number {
  let keptBytes = 0;
  let largestBytes = 0;
  for (const { path, shape, stored } of parameters) {
    // A tied head is turned, beside the embedding: ops.ts says why.
    const isHead = config.tiedHead && shape[0] === config.vocabSize && path.endsWith('.embedding');
    const bytes = 4 * sizeOf(shape) * (isHead ? 2 : 1);
    const isInteger = stored === 'i8' || stored === 'u8';
    if (isInteger || schemeLayout(path, shape, stored, scheme).kind !== 'float') {
      largestBytes = Math.max(largestBytes, bytes);
    } else keptBytes += bytes;
  }
  return keptBytes + largestBytes;
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
