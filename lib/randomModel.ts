// lib/randomModel.ts: a model's real shape -> a checkpoint of seeded random weights in Hugging Face's layout.
// For speed and memory, which depend on shapes alone, and for reading true files of true size without a download.
// Its answers mean nothing, and config.json and the file's metadata say so.
// Source: initialisation of Radford et al. 2019, section 2.3: normal, 0.02; residual projections / sqrt(2 layers).

import { readdir, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { storedBytes } from './checkpoint/entry.js';
import { type TensorToWrite, writeSafetensors } from './checkpoint/writer.js';
import { expandRules, sourceName, storedShape, type WeightMap } from './convert.js';
import { makeFolder } from './folders.js';
import { gpt2WeightMap } from './models/gpt2.weights.js';
import { mistralWeightMap } from './models/mistral.weights.js';
import { normalStream } from './randomModel/normal.js';
import { type FloatDType, sizeOf } from './tensor.js';

/** What a random checkpoint needs to know of a model. */
export interface RandomShape {
  /** config.json, as published. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly map: WeightMap;
  /** The type that the published weights have. */
  readonly dtype: FloatDType;
}

export const randomShapeNames = [
  'gpt2',
  'gpt2-medium',
  'mistral-7b-instruct-v0.2',
  'tinyllama-1.1b',
  'smollm2-135m',
] as const;
export type RandomShapeName = (typeof randomShapeNames)[number];

/** Config and weight map of a published model's shape. */
export function randomShape(name: RandomShapeName): RandomShape {
  switch (name) {
    case 'gpt2':
      return gpt2Shape({ n_embd: 768, n_layer: 12, n_head: 12 });
    case 'gpt2-medium':
      return gpt2Shape({ n_embd: 1024, n_layer: 24, n_head: 16 });
    case 'mistral-7b-instruct-v0.2':
      return llamaShape({
        ...{ architectures: ['MistralForCausalLM'], model_type: 'mistral', vocab_size: 32000 },
        ...{ hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32 },
        ...{ num_attention_heads: 32, num_key_value_heads: 8, tie_word_embeddings: false },
        ...{ max_position_embeddings: 32768, rope_theta: 1e6, sliding_window: null },
      });
    case 'tinyllama-1.1b':
      return llamaShape({
        ...{ architectures: ['LlamaForCausalLM'], model_type: 'llama', vocab_size: 32000 },
        ...{ hidden_size: 2048, intermediate_size: 5632, num_hidden_layers: 22 },
        ...{ num_attention_heads: 32, num_key_value_heads: 4, tie_word_embeddings: false },
        ...{ max_position_embeddings: 2048, rope_theta: 1e4 },
      });
    case 'smollm2-135m':
      return llamaShape({
        ...{ architectures: ['LlamaForCausalLM'], model_type: 'llama', vocab_size: 49152 },
        ...{ hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30 },
        ...{ num_attention_heads: 9, num_key_value_heads: 3, tie_word_embeddings: true },
        ...{ max_position_embeddings: 8192, rope_theta: 1e5 },
      });
  }
}

interface RandomOptions {
  readonly seed?: number;
  readonly dtype?: FloatDType;
  /** Larger checkpoints are split into shards with an index, as transformers does. */
  readonly maxShardBytes?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/**
 * Writes config.json and model.safetensors, or shards and their index, with seeded random weights.
 * @param folder must not exist, or be empty; it appears when it is complete
 * @param shape a name of randomShapeNames, or a shape of your own
 * @throws Error naming the folder if it holds files already, or if the disk is full (gives the bytes needed)
 */
export async function writeRandomCheckpoint(
  folder: string,
  shape: RandomShapeName | RandomShape,
  { seed = 0, dtype, maxShardBytes = 5e9, signal, onProgress }: RandomOptions = {},
): Promise<void> {
  const { config, map, dtype: publishedDType } = typeof shape === 'string' ? randomShape(shape) : shape;
  const found = await readdir(folder).catch(() => []);
  if (found.length > 0)
    throw new Error(`${folder}: expected a new folder, found ${found[0]}; remove it first`);
  const tensors = randomTensors(map, dtype ?? publishedDType, seed);
  const shards = splitShards(tensors, maxShardBytes);
  const bytesTotal = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const note = `random weights, seed ${seed}: for speed and memory only, answers mean nothing`;
  const temporary = `${folder}.${process.pid}.tmp`;
  try {
    await makeFolder(temporary);
    let bytesBefore = 0;
    for (const { name, tensors } of shards) {
      await writeSafetensors(join(temporary, name), tensors, (_, i) => tensors[i]!.pieces(), {
        metadata: { format: 'pt', random: note },
        signal,
        onProgress: (bytesDone) => onProgress?.(Math.min(bytesBefore + bytesDone, bytesTotal), bytesTotal),
      });
      bytesBefore += tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    }
    if (shards.length > 1)
      await writeJson(join(temporary, 'model.safetensors.index.json'), indexOf(shards, bytesTotal));
    await writeJson(join(temporary, 'config.json'), {
      ...config,
      torch_dtype: torchNames[dtype ?? publishedDType],
      random_weights: note,
    });
    await rmdir(folder).catch(() => {}); // an empty one; rename replaces it on POSIX alone
    await makeFolder(dirname(folder));
    await rename(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
}

const torchNames = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' } as const;

interface RandomTensor extends TensorToWrite {
  readonly bytes: number;
  readonly pieces: () => Generator<Uint8Array>;
}

interface Shard {
  readonly name: string;
  readonly tensors: readonly RandomTensor[];
}

/** Every tensor of the map in the checkpoint's names and shapes; a tied head is left out, as it is in published files. */
function randomTensors(map: WeightMap, dtype: FloatDType, seed: number): RandomTensor[] {
  const residualDeviation = 0.02 / Math.sqrt(2 * map.layers);
  return expandRules(map)
    .filter((rule) => !rule.optional)
    .map((rule) => {
      const name = sourceName(rule, map.prefixes[0]!);
      const shape = storedShape(rule);
      const isResidual = /\b(c_proj|o_proj|down_proj)\.kernel$/.test(rule.target);
      const deviation = isResidual ? residualDeviation : 0.02;
      const last = rule.target.slice(rule.target.lastIndexOf('.') + 1);
      const fill = last === 'scale' ? 1 : last === 'bias' ? 0 : normalStream(seed, name, deviation, dtype);
      return {
        name,
        dtype,
        shape,
        bytes: storedBytes(dtype, shape),
        pieces: () => pieces(sizeOf(shape), dtype, fill),
      };
    });
}

/** Elements of one piece: 16 MiB of float32. */
const pieceElements = 2 ** 22;
const bitsOfOne = { f32: 0x3f800000, f16: 0x3c00, bf16: 0x3f80 } as const;

function* pieces(
  size: number,
  dtype: FloatDType,
  fill: number | ((elements: Uint16Array | Uint32Array) => void),
): Generator<Uint8Array> {
  const Elements = dtype === 'f32' ? Uint32Array : Uint16Array;
  const elements = new Elements(Math.min(size, pieceElements));
  for (let done = 0; done < size; done += elements.length) {
    const part = elements.subarray(0, Math.min(elements.length, size - done));
    if (typeof fill === 'number') part.fill(fill * bitsOfOne[dtype]);
    else fill(part);
    yield new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
  }
}

function splitShards(tensors: readonly RandomTensor[], maxShardBytes: number): Shard[] {
  const groups: RandomTensor[][] = [[]];
  let groupBytes = 0;
  for (const tensor of tensors) {
    if (groupBytes > 0 && groupBytes + tensor.bytes > maxShardBytes) {
      groups.push([]);
      groupBytes = 0;
    }
    groups.at(-1)!.push(tensor);
    groupBytes += tensor.bytes;
  }
  if (groups.length === 1) return [{ name: 'model.safetensors', tensors: groups[0]! }];
  const five = (number: number): string => String(number).padStart(5, '0');
  return groups.map((tensors, i) => {
    return { name: `model-${five(i + 1)}-of-${five(groups.length)}.safetensors`, tensors };
  });
}

function indexOf(shards: readonly Shard[], bytesTotal: number): unknown {
  const pairs = shards.flatMap(({ name, tensors }) => tensors.map((tensor) => [tensor.name, name]));
  return { metadata: { total_size: bytesTotal }, weight_map: Object.fromEntries(pairs) };
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}

function gpt2Shape(sizes: { n_embd: number; n_layer: number; n_head: number }): RandomShape {
  const { n_embd: dim, n_layer: layers } = sizes;
  const config = {
    ...{ architectures: ['GPT2LMHeadModel'], model_type: 'gpt2', vocab_size: 50257, n_positions: 1024 },
    ...{ n_ctx: 1024, ...sizes, n_inner: null, activation_function: 'gelu_new', layer_norm_epsilon: 1e-5 },
    ...{ bos_token_id: 50256, eos_token_id: 50256, tie_word_embeddings: true },
  };
  const map = gpt2WeightMap({
    ...{ vocabSize: 50257, maxPositions: 1024, dim, layers, innerDim: 4 * dim, tiedHead: true },
  });
  return { config, map, dtype: 'f32' };
}

function llamaShape(sizes: {
  readonly architectures: readonly string[];
  readonly model_type: string;
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly tie_word_embeddings: boolean;
  readonly [option: string]: unknown;
}): RandomShape {
  const map = mistralWeightMap({
    vocabSize: sizes.vocab_size,
    dim: sizes.hidden_size,
    innerDim: sizes.intermediate_size,
    layers: sizes.num_hidden_layers,
    heads: sizes.num_attention_heads,
    kvHeads: sizes.num_key_value_heads,
    headDim: sizes.hidden_size / sizes.num_attention_heads,
    tiedHead: sizes.tie_word_embeddings,
    attentionBias: false,
    mlpBias: false,
  });
  const config = { ...sizes, hidden_act: 'silu', rms_norm_eps: 1e-5, bos_token_id: 1, eos_token_id: 2 };
  return { config, map, dtype: 'bf16' };
}
