// lib/quantize.ts: float Weights -> int8 or int4 Weights, a quarter or an eighth of the float32 bytes.
// Symmetric, weights only: value = integer * scale, scale = max|w| / 127 (int8) or / 7 (int4) over the values that
// share it. Norms, biases and position embeddings keep their stored type.
// Source: Jacob et al. 2018, arXiv:1712.05877, with zero point 0.

import { basename, join } from 'node:path';
import { refuseSource, type TensorToWrite, writeSafetensors } from './checkpoint/writer.js';
import type { Checkpoint } from './checkpoint.js';
import { savedFormat, tensorsToWrite, type WeightLayout } from './convert/saved.js';
import {
  buildTree,
  type ConversionStep,
  convertSteps,
  type LoadOptions,
  planConversion,
  type WeightMap,
} from './convert.js';
import { type QuantizationError, quantizationError, quantizeMatrix } from './quantize/integers.js';
import {
  type FloatDType,
  float32Values,
  floatWeight,
  type Granularity,
  mapWeights,
  type ParamTree,
  sizeOf,
  type Weight,
  weightBytes,
  weightEntries,
} from './tensor.js';

/**
 * stored: as in the checkpoint. f32: widened. int8: a scale per output channel. int8-tensor: one scale a tensor, as
 * in the original. int8-group, int4: a scale per group of input values.
 */
export const schemeNames = ['stored', 'f32', 'int8', 'int8-tensor', 'int8-group', 'int4'] as const;
export type SchemeName = (typeof schemeNames)[number];

export interface Scheme {
  readonly name: SchemeName;
  /** Values that share a scale in int8-group and int4; 64 unless given. */
  readonly groupSize?: 32 | 64 | 128;
  /** Mixed precision: paths that keep their stored type, `*` for any characters: 'h.*.attn.*'. */
  readonly keep?: readonly string[];
}

/** One line of a quantization report: what a Weight became, and what that cost. */
export interface LayerReport extends QuantizationError {
  readonly path: string;
  readonly kind: Weight['kind'];
  readonly bytes: number;
  readonly f32Bytes: number;
  readonly f16Bytes: number;
}

/** Position embeddings are added, not multiplied, and small: nothing is gained by rounding them. */
const alwaysKept = ['wpe.embedding'];

/**
 * Quantizes a whole tree in memory.
 * @returns a tree of the same structure; what the scheme keeps is the same Weight, not a copy
 * @throws RangeError if a Weight is quantized already in another way, or not finite (gives its path), or a pattern
 *   of scheme.keep fits nothing
 */
export function quantizeParams<Params extends ParamTree>(params: Params, scheme: Scheme): Params {
  const paths = Array.from(weightEntries(params), ([path]) => path);
  checkKeep(scheme, paths);
  return mapWeights(params, (weight, path) => quantizeWeight(weight, path, scheme));
}

/** How a checkpoint is loaded and quantized. */
export interface LoadQuantizedOptions extends LoadOptions {
  /**
   * The same checkpoint, loaded as 'f32' or 'stored': what is to be rounded is taken from there, the rest is read, so
   * that the trees share no memory.
   */
  readonly loaded?: ParamTree | undefined;
  /** Told each Weight as soon as it is made, and waited for: whoever moves it elsewhere never holds all of them here. */
  readonly place?: ((path: string, weight: Weight) => Promise<void>) | undefined;
}

/**
 * Loads a checkpoint and quantizes each tensor as it comes: the tree in its stored type is never whole in memory.
 * @returns what quantizeParams makes of what loadParams gives
 * @throws as both do
 */
export async function loadQuantizedParams<Params extends ParamTree>(
  checkpoint: Checkpoint,
  map: WeightMap,
  scheme: Scheme,
  { loaded = {}, place = async () => {}, ...options }: LoadQuantizedOptions = {},
): Promise<Params> {
  const steps = await planConversion(checkpoint, map);
  const paths = steps.map(({ target }) => target);
  checkKeep(scheme, paths);
  const isSaved = checkpoint.metadata.format === savedFormat; // integers in the file are not rounded again
  const sources = new Map(isSaved ? [] : weightEntries(loaded));
  const isLoaded = ({ target, shape }: ConversionStep) =>
    sources.get(target)?.kind === 'float' && (targetOf(target, shape, scheme)?.kind ?? 'float') !== 'float';
  const weights = new Map<string, Weight>();
  const keep = async (path: string, source: Weight) => {
    const weight = quantizeWeight(source, path, scheme);
    weights.set(path, weight);
    await place(path, weight);
  };
  const toRead = steps.filter((step) => !isLoaded(step));
  for await (const [path, weight] of convertSteps(checkpoint, toRead, options)) await keep(path, weight);
  for (const { target } of steps.filter(isLoaded)) {
    options.signal?.throwIfAborted();
    await keep(target, sources.get(target)!);
    await new Promise((resolve) => setImmediate(resolve)); // others get their turn, as while a file is read
  }
  // The map decides which tree it is, as in loadParams.
  return buildTree(paths.map((path) => [path, weights.get(path)!] as const)) as Params;
}

/** Quantizes the Weight at a path as the scheme says. */
export function quantizeWeight(weight: Weight, path: string, scheme: Scheme): Weight {
  const target = targetOf(path, weight.shape, scheme);
  if (target === undefined) return weight;
  if (target.kind === 'float') {
    const isWide = weight.kind === 'float' && weight.dtype === 'f32';
    return isWide ? weight : floatWeight(float32Values(weight), weight.shape);
  }
  if (weight.kind !== 'float') {
    const same = { kind: weight.kind, granularity: weight.granularity };
    if (JSON.stringify(same) === JSON.stringify(target)) return weight;
    throw new RangeError(
      `${path}: expected float values for ${scheme.name}, received ${weight.kind}; use 'stored'`,
    );
  }
  try {
    return quantizeMatrix(weight, target.kind, target.granularity);
  } catch (error) {
    throw new RangeError(`${path}: ${(error as Error).message}`);
  }
}

/**
 * Compares a quantized tree with the one that it was made from.
 * @returns a line for each Weight, in the tree's order; kept ones have error 0
 */
export function quantizationReport(original: ParamTree, quantized: ParamTree): LayerReport[] {
  const before = new Map(weightEntries(original));
  return [...weightEntries(quantized)].map(([path, weight]) => reportLine(path, before.get(path)!, weight));
}

/**
 * Bytes of a report's Weights: as they are, and as all float32 and all float16 would take. Published checkpoints
 * are mostly float16 or bfloat16: against those, int8 halves the size, and only against float32 quarters it.
 */
export function reportBytes(
  report: readonly LayerReport[],
): Pick<LayerReport, 'bytes' | 'f32Bytes' | 'f16Bytes'> {
  const total = (key: 'bytes' | 'f32Bytes' | 'f16Bytes') => report.reduce((sum, line) => sum + line[key], 0);
  return { bytes: total('bytes'), f32Bytes: total('f32Bytes'), f16Bytes: total('f16Bytes') };
}

/**
 * Quantizes a checkpoint into folder/model.safetensors, one tensor in memory at a time. The caller copies
 * config.json and the tokenizer's files.
 * @returns the report of every tensor written
 * @throws Error as convert and writeSafetensors do; the folder's former model.safetensors, if any, is then untouched
 */
export async function quantizeCheckpoint(
  checkpoint: Checkpoint,
  map: WeightMap,
  folder: string,
  scheme: Scheme,
  options: LoadOptions = {},
): Promise<LayerReport[]> {
  if (checkpoint.metadata.format === savedFormat) {
    throw new Error(`${checkpoint.source}: is quantized already; give the model that it was made from`);
  }
  const steps = await planConversion(checkpoint, map);
  const paths = steps.map(({ target }) => target);
  checkKeep(scheme, paths);
  const path = join(folder, 'model.safetensors');
  await refuseSource(path, checkpoint.files);
  const layouts = steps.map(({ source, target, shape }) =>
    schemeLayout(target, shape, checkpoint.entry(source).dtype as FloatDType, scheme),
  );
  const entries = steps.flatMap(({ target }, i) => tensorsToWrite(target, layouts[i]!));
  const metadata = describeScheme(checkpoint, scheme, steps, layouts);
  const report: LayerReport[] = [];
  const weights = convertSteps(checkpoint, steps, options);
  let scales = new Float32Array(0);
  const data = async (entry: TensorToWrite): Promise<Uint8Array> => {
    if (entry.name.endsWith('.scales')) return new Uint8Array(scales.buffer);
    const [target, original] = (await weights.next()).value as [string, Weight];
    const weight = quantizeWeight(original, target, scheme);
    report.push(reportLine(target, original, weight));
    if (weight.kind !== 'float') scales = new Float32Array(weight.scales);
    return new Uint8Array(weight.bytes.buffer, weight.bytes.byteOffset, weight.bytes.byteLength);
  };
  await writeSafetensors(path, entries, data, { metadata, signal: options.signal });
  return report;
}

type Target =
  | { readonly kind: 'float' }
  | { readonly kind: 'int8' | 'int4'; readonly granularity: Granularity };

/** What the scheme makes of the Weight at a path; undefined where it stays as it is stored. */
function targetOf(path: string, shape: readonly number[], scheme: Scheme): Target | undefined {
  const { name, groupSize = 64, keep = [] } = scheme;
  if (name === 'stored' || keep.some((pattern) => matches(path, pattern))) return undefined;
  if (name === 'f32') return { kind: 'float' };
  const last = path.slice(path.lastIndexOf('.') + 1);
  const isMatrix = shape.length === 2 && (last === 'kernel' || last === 'embedding');
  if (!isMatrix || alwaysKept.includes(path)) return undefined;
  const axis = last === 'embedding' ? 0 : 1;
  if (name === 'int8-tensor') return { kind: 'int8', granularity: { per: 'tensor' } };
  if (name === 'int8') return { kind: 'int8', granularity: { per: 'channel', axis } };
  if (![32, 64, 128].includes(groupSize)) {
    throw new RangeError(`groupSize: expected 32, 64 or 128, received ${groupSize}`);
  }
  const kind = name === 'int4' ? 'int4' : 'int8';
  return { kind, granularity: { per: 'group', axis, size: groupSize } };
}

/** A pattern with a slip of the pen would keep nothing, and nobody would notice. */
function checkKeep({ keep = [] }: Scheme, paths: readonly string[]): void {
  const idle = keep.find((pattern) => !paths.some((path) => matches(path, pattern)));
  if (idle === undefined) return;
  const some = paths.slice(0, 8).join(', ');
  throw new RangeError(
    `keep: expected patterns of parameters, received ${idle}, which fits none of ${some}, ...`,
  );
}

function matches(path: string, pattern: string): boolean {
  const parts = pattern.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`).test(path);
}

function reportLine(path: string, original: Weight, weight: Weight): LayerReport {
  const size = sizeOf(weight.shape);
  const error =
    original.kind === 'float' && weight.kind !== 'float'
      ? quantizationError(original, weight)
      : { maxError: 0, meanError: 0, snrDb: Number.POSITIVE_INFINITY };
  return {
    path,
    kind: weight.kind,
    bytes: weightBytes(weight),
    f32Bytes: 4 * size,
    f16Bytes: 2 * size,
    ...error,
  };
}

/**
 * The form that a scheme gives a parameter, known from its path and shape alone: for sizes before anything is read.
 * @param stored the checkpoint's type, which what the scheme keeps stays in
 */
export function schemeLayout(
  path: string,
  shape: readonly number[],
  stored: FloatDType,
  scheme: Scheme,
): WeightLayout {
  const become = targetOf(path, shape, scheme);
  if (become === undefined) return { kind: 'float', shape, dtype: stored };
  return become.kind === 'float' ? { kind: 'float', shape, dtype: 'f32' } : { ...become, shape };
}

/** What a reader of the file needs to know: how it was made, and the layout of each quantized tensor by its path. */
function describeScheme(
  checkpoint: Checkpoint,
  { name, groupSize = 64, keep = [] }: Scheme,
  steps: readonly ConversionStep[],
  layouts: readonly WeightLayout[],
): Record<string, string> {
  const isGrouped = name === 'int4' || name === 'int8-group';
  const quantized = steps.flatMap(({ target }, i) =>
    layouts[i]!.kind === 'float' ? [] : [[target, JSON.stringify(layouts[i])] as const],
  );
  return {
    format: savedFormat,
    scheme: name,
    ...(isGrouped ? { groupSize: String(groupSize) } : {}),
    ...(keep.length > 0 ? { keep: keep.join(' ') } : {}),
    source: basename(checkpoint.source),
    ...(checkpoint.metadata.random === undefined ? {} : { random: checkpoint.metadata.random }),
    ...Object.fromEntries(quantized),
  };
}
