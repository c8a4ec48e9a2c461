// lib/cli/forecast.ts: a model folder -> the memory that each scheme needs, from headers alone, or from config.json.

import { basename } from 'node:path';
import type { Checkpoint } from '../checkpoint.js';
import {
  eagerTensorBytes,
  forecastCacheBytes,
  forecastWeightBytes,
  type ParameterShape,
  parameterCount,
  parametersOf,
} from '../forecast.js';
import type { Architecture } from '../model.js';
import { type SchemeName, schemeNames } from '../quantize.js';
import { hasWeights } from './models.js';

export interface SchemeForecast {
  readonly scheme: SchemeName;
  readonly weightBytes: number;
  /** Weights and cache. */
  readonly totalBytes: number;
  /** And the float32 tensors of running op by op. */
  readonly eagerTotalBytes: number;
}

export interface CheckpointFacts {
  readonly files: readonly string[];
  /** Everything in the files, by type; what is no parameter included. */
  readonly tensors: Readonly<Record<string, { readonly tensors: number; readonly bytes: number }>>;
  /** The scheme of a checkpoint that `quantize` wrote. */
  readonly quantized: string | null;
  readonly note: string | null;
}

export interface FolderForecast {
  /** null if the folder has no weights. */
  readonly checkpoint: CheckpointFacts | null;
  /** Numbers in all Weights. */
  readonly parameters: number;
  readonly schemes: readonly SchemeForecast[];
}

/**
 * Forecasts the memory of a model.
 * @param tokens prompt and answer together
 * @throws Error if the weights do not fit the configuration, as converting them would
 */
export async function forecastFolder(
  folder: string,
  architecture: Architecture,
  tokens: number,
): Promise<FolderForecast> {
  const { checkpoint, parameters, weightBytes } = await readWeights(folder, architecture);
  const { config } = architecture;
  const cacheBytes = forecastCacheBytes(config, tokens);
  const forecast = (scheme: SchemeName): SchemeForecast => {
    const bytes = scheme === 'stored' ? weightBytes : forecastWeightBytes(parameters, { name: scheme });
    const tensorBytes = eagerTensorBytes(parameters, config, { name: scheme });
    const totalBytes = bytes + cacheBytes;
    return { scheme, weightBytes: bytes, totalBytes, eagerTotalBytes: totalBytes + tensorBytes };
  };
  // What is rounded already is not rounded again.
  const schemes = checkpoint?.quantized ? (['stored'] as const) : schemeNames;
  return { checkpoint, parameters: parameterCount(parameters), schemes: schemes.map(forecast) };
}

interface WeightFacts {
  readonly checkpoint: CheckpointFacts | null;
  readonly parameters: readonly ParameterShape[];
  /** Of the parameters as they are stored. */
  readonly weightBytes: number;
}

async function readWeights(folder: string, { weightMap }: Architecture): Promise<WeightFacts> {
  if (!hasWeights(folder)) {
    const parameters = parametersOf(weightMap, 'f16');
    return { checkpoint: null, parameters, weightBytes: forecastWeightBytes(parameters, { name: 'stored' }) };
  }
  const { openCheckpoint } = await import('../checkpoint.js');
  const { planConversion } = await import('../convert.js');
  const checkpoint = await openCheckpoint(folder);
  try {
    const steps = await planConversion(checkpoint, weightMap);
    const parameters = steps.map(({ source, target, shape }): ParameterShape => {
      // The plan has accepted the tensor: its type is one that parameters come in.
      return { path: target, shape, stored: checkpoint.entry(source).dtype as ParameterShape['stored'] };
    });
    const weightBytes = steps
      .flatMap(({ source }) => [source, `${source}.scales`])
      .filter((name) => checkpoint.has(name))
      .reduce((bytes, name) => bytes + checkpoint.entry(name).bytes, 0);
    return { checkpoint: checkpointFacts(checkpoint), parameters, weightBytes };
  } finally {
    await checkpoint.close();
  }
}

function checkpointFacts(checkpoint: Checkpoint): CheckpointFacts {
  const tensors: Record<string, { tensors: number; bytes: number }> = {};
  for (const name of checkpoint.names()) {
    const { dtype, bytes } = checkpoint.entry(name);
    tensors[dtype] ??= { tensors: 0, bytes: 0 };
    tensors[dtype].tensors += 1;
    tensors[dtype].bytes += bytes;
  }
  const { scheme = null, random = null } = checkpoint.metadata;
  return { files: checkpoint.files.map((file) => basename(file)), tensors, quantized: scheme, note: random };
}
