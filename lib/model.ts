// lib/model.ts: a model folder -> a model that generates: config, converted parameters, forward function, tokenizer.
// The one place that knows which families there are.
import { readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { allocate } from './cache.js';
import { type Checkpoint, openCheckpoint } from './checkpoint.js';
import type { WeightMap } from './convert.js';
import { eager, type ForwardFunction } from './forward.js';
import type { GenerativeModel } from './generate.js';
import { configReader } from './models/config.js';
import { gpt2Network, parseGpt2Config } from './models/gpt2.js';
import { gpt2WeightMap } from './models/gpt2.weights.js';
import { cacheSpecOf, everyLogitsOf, forwardOf, type ModelConfig, type Network } from './models/layers.js';
import { mistralNetwork, parseMistralConfig } from './models/mistral.js';
import { mistralWeightMap } from './models/mistral.weights.js';
import { releaseTensors } from './ops.js';
import { loadQuantizedParams, quantizeParams, type Scheme } from './quantize.js';
import { type ParamTree, sizeOf, type Weight, weightBytes, weightEntries } from './tensor.js';
import { loadTokenizer, readEosIds } from './tokenizer.js';

/** What config.json alone decides. */
export interface Architecture {
  readonly family: 'gpt2' | 'mistral';
  readonly config: ModelConfig;
  readonly weightMap: WeightMap;
  /** Its parts; params must be the tree that weightMap gives. */
  readonly network: Network;
  /** The same with some of its configuration changed, as diagnose tries it. */
  readonly networkWith: (change?: Partial<ModelConfig>) => Network;
}

export interface Model extends GenerativeModel, Architecture {
  readonly name: string;
  readonly folder: string;
  readonly forwardFunction: ForwardFunction;
  readonly scheme: Scheme;
  /** As loaded: the scheme's name, or what a quantized checkpoint says of itself. */
  readonly weights: string;
  /** True if the checkpoint says that its weights are random: such a model measures speed and memory only. */
  readonly randomWeights: boolean;
  /** Elements of all Weights, shared ones once. */
  readonly parameterCount: number;
  readonly weightBytes: number;
  /** Frees the tensors made of the Weights. */
  dispose(): void;
}

export interface LoadOptions {
  /** What the model is called; by default as its folder. */
  readonly name?: string;
  readonly scheme?: Scheme;
  /**
   * Decodes quantized Weights to float32 once, not at each use: the same numbers bit for bit and far faster op by op,
   * in the memory of float32. For measuring quality.
   */
  readonly widen?: boolean;
  /** The model of the same folder with float weights, if it is loaded: integers are made from those, not read again. */
  readonly loaded?: Model | undefined;
  /** Told each Weight as soon as it is made, and waited for: who moves it to a target never holds all of them here. */
  readonly place?: ((path: string, weight: Weight) => Promise<void>) | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/**
 * Loads a model to be run eagerly.
 * @param folder Hugging Face's layout: config.json, weights, and tokenizer.json if there is to be text
 * @throws Error naming the file, what was expected and what was found
 */
export async function loadModel(folder: string, options: LoadOptions = {}): Promise<Model> {
  const { scheme = { name: 'stored' } } = options;
  const architecture = await readArchitecture(folder);
  const tokenizer = await loadTokenizer(folder);
  const eosIds = await readEosIds(folder, tokenizer, architecture.config.vocabSize);
  const checkpoint = await openCheckpoint(folder);
  try {
    let bytes = 0;
    const quantized = await loadQuantizedParams<ParamTree>(checkpoint, architecture.weightMap, scheme, {
      ...options,
      loaded: options.loaded?.params,
      place: async (path, weight) => {
        bytes += weightBytes(weight);
        await options.place?.(path, weight);
      },
    });
    const params = options.widen ? quantizeParams(quantized, { name: 'f32' }) : quantized;
    if (options.widen)
      bytes = [...weightEntries(params)].reduce((sum, [, each]) => sum + weightBytes(each), 0);
    const name = options.name ?? basename(resolve(folder));
    const parts = { name, scheme, tokenizer, eosIds, weightBytes: bytes };
    return describeModel(folder, architecture, checkpoint, params, parts);
  } finally {
    await checkpoint.close();
  }
}

/**
 * Reads a folder's config.json.
 * @throws Error if it is missing, not JSON, or of no family that is known (names the file and what it found)
 */
export async function readArchitecture(folder: string): Promise<Architecture> {
  const file = join(folder, 'config.json');
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error;
    throw new Error(`${file}: not found; a model folder holds config.json, weights and tokenizer.json`);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`${file}: expected JSON: ${(error as Error).message}`);
  }
  return architectureOf(json, file);
}

/** The architecture that a parsed config.json describes. @throws as readArchitecture */
export function architectureOf(json: unknown, file: string): Architecture {
  const type = configReader(json, file).choice('model_type', ['gpt2', 'mistral', 'llama'] as const);
  if (type === 'gpt2') {
    const config = parseGpt2Config(json, file);
    const networkWith = (change?: Partial<ModelConfig>) => erased(gpt2Network({ ...config, ...change }));
    return { family: 'gpt2', config, weightMap: gpt2WeightMap(config), network: networkWith(), networkWith };
  }
  const config = parseMistralConfig(json, file);
  const networkWith = (change?: Partial<ModelConfig>) => erased(mistralNetwork({ ...config, ...change }));
  return {
    family: 'mistral',
    config,
    weightMap: mistralWeightMap(config),
    network: networkWith(),
    networkWith,
  };
}

/** A network whose parameter type is known only at run time: loadParams has checked every name and shape. */
function erased<Params extends ParamTree>(network: Network<Params>): Network {
  return network as unknown as Network;
}

function describeModel(
  folder: string,
  architecture: Architecture,
  { metadata }: Checkpoint,
  params: ParamTree,
  parts: Pick<Model, 'name' | 'scheme' | 'tokenizer' | 'eosIds' | 'weightBytes'>,
): Model {
  const { config, network } = architecture;
  const forwardFunction = forwardOf(network);
  const weights = [...weightEntries(params)].map(([, weight]) => weight);
  return {
    ...architecture,
    ...parts,
    folder,
    params,
    forwardFunction,
    forward: eager(forwardFunction),
    everyLogits: everyLogitsOf(network),
    vocabSize: config.vocabSize,
    maxPositions: config.maxPositions,
    newCache: (capacity, batch = 1) => allocate(cacheSpecOf(config, capacity), batch),
    weights:
      parts.scheme.name === 'stored'
        ? storedScheme(
            metadata,
            weights.map(({ kind }) => kind),
          )
        : parts.scheme.name,
    randomWeights: metadata.random !== undefined,
    parameterCount: weights.reduce((count, { shape }) => count + sizeOf(shape), 0),
    dispose: () => releaseTensors(params),
  };
}

/** What a checkpoint's own weights are called: the scheme that a quantized one names, else 'stored'. */
function storedScheme(metadata: Readonly<Record<string, string>>, kinds: readonly string[]): string {
  if (kinds.every((kind) => kind === 'float')) return 'stored';
  return metadata.scheme ?? 'stored';
}
