// lib/convert.ts: a checkpoint in Hugging Face's names and layout -> a nested parameter tree of Weights, stored types.
// A weight map, one a model family, is data: it says what each tensor becomes. The engine here knows no model.
// Source: the state dicts of transformers; target names as Flax spells them (kernel, bias, embedding, scale).

import type { Checkpoint } from './checkpoint.js';
import { readSavedWeight, savedFormat, savedShape } from './convert/saved.js';
import { transposed } from './convert/transpose.js';
import { type ParamTree, type Shape, sizeOf, type Weight, weightBytes, weightEntries } from './tensor.js';

/** One tensor of the checkpoint and what it becomes. `{layer}` in both names stands for each layer's number. */
export interface WeightRule {
  /** Name in the checkpoint, without the map's prefix: 'h.{layer}.attn.c_attn.weight'. */
  readonly source: string;
  /** Path in the parameter tree: 'h.{layer}.attn.c_attn.kernel'. */
  readonly target: string;
  /** Shape in the parameter tree, [in, out] for a kernel. */
  readonly shape: Shape;
  /** Stored [out, in], as PyTorch's Linear does. */
  readonly transpose?: boolean;
  /** True if the tensor may be absent. */
  readonly optional?: boolean;
  /** The source name stands in the checkpoint without the map's prefix. */
  readonly unprefixed?: boolean;
  /** Target whose storage this one shares: left out of the tree when the checkpoint holds equal values, or none. */
  readonly tiedTo?: string;
}

export interface WeightMap {
  readonly layers: number;
  /** Prefixes under which the names are published; the one with the most matches counts. */
  readonly prefixes: readonly string[];
  readonly rules: readonly WeightRule[];
  /** Names that are no parameters (mask buffers and the like), without prefix; `{layer}` is any number. */
  readonly skip: readonly string[];
}

/** A tensor to be converted: its names in both worlds. */
export interface ConversionStep {
  readonly source: string;
  readonly target: string;
  readonly shape: Shape;
  readonly transpose: boolean;
}

export interface LoadOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/**
 * Loads all parameters of a model.
 * @returns the tree of the map's targets; arrays where a path has numbers; tied tensors left out
 * @throws Error that lists every missing, unexpected and misshapen tensor
 */
export async function loadParams<Params extends ParamTree>(
  checkpoint: Checkpoint,
  map: WeightMap,
  options: LoadOptions = {},
): Promise<Params> {
  const entries: [string, Weight][] = [];
  for await (const entry of convertEntries(checkpoint, map, options)) entries.push(entry);
  // The caller names the model's own tree type: the map decides which one it is.
  return buildTree(entries) as Params;
}

/**
 * Converts one tensor at a time, so that a model larger than memory can be quantized.
 * @returns pairs of path and Weight, in the map's order
 * @throws as loadParams, before the first tensor
 */
export async function* convertEntries(
  checkpoint: Checkpoint,
  map: WeightMap,
  options: LoadOptions = {},
): AsyncGenerator<[path: string, weight: Weight]> {
  yield* convertSteps(checkpoint, await planConversion(checkpoint, map), options);
}

/** Converts the tensors of a plan, one at a time. */
export async function* convertSteps(
  checkpoint: Checkpoint,
  steps: readonly ConversionStep[],
  { signal, onProgress }: LoadOptions = {},
): AsyncGenerator<[path: string, weight: Weight]> {
  const bytesTotal = steps.reduce((sum, { source }) => sum + checkpoint.entry(source).bytes, 0);
  let bytesDone = 0;
  for (const { source, target, shape, transpose } of steps) {
    signal?.throwIfAborted();
    if (checkpoint.metadata.format === savedFormat) yield [target, await readSavedWeight(checkpoint, source)];
    else {
      const stored = await checkpoint.read(source);
      yield [target, transpose ? transposed(stored) : { ...stored, shape }];
    }
    bytesDone += checkpoint.entry(source).bytes;
    onProgress?.(bytesDone, bytesTotal);
  }
}

/**
 * Matches a checkpoint with a weight map; reads tensors only to see whether a head is tied.
 * @throws Error that lists every missing, unexpected and misshapen tensor
 */
export async function planConversion(checkpoint: Checkpoint, map: WeightMap): Promise<ConversionStep[]> {
  const isSaved = checkpoint.metadata.format === savedFormat;
  const rules = expandRules(map);
  const prefix = isSaved ? '' : bestPrefix(checkpoint, map, rules);
  const steps: ConversionStep[] = [];
  const known = new Set<string>();
  const problems: string[] = [];
  for (const rule of rules) {
    const source = isSaved ? rule.target : sourceName(rule, prefix);
    known.add(source);
    if (isSaved) known.add(`${source}.scales`);
    if (!checkpoint.has(source)) {
      const mayBeAbsent = rule.optional || (isSaved && rule.tiedTo !== undefined);
      if (!mayBeAbsent) problems.push(`missing ${source} [${storedShape(rule, isSaved)}]`);
      continue;
    }
    const found = isSaved ? savedShape(checkpoint, source) : checkpoint.entry(source).shape;
    const expected = storedShape(rule, isSaved);
    if (String(found) !== String(expected)) {
      problems.push(`misshapen ${source}: expected [${expected}], found [${found}]`);
    }
    const { dtype } = checkpoint.entry(source);
    if (!isSaved && !['f32', 'f16', 'bf16'].includes(dtype)) {
      problems.push(`mistyped ${source}: expected f32, f16 or bf16, found ${dtype}`);
    }
    steps.push({ source, target: rule.target, shape: rule.shape, transpose: !isSaved && !!rule.transpose });
  }
  problems.push(...unexpected(checkpoint, map, prefix, known).map((name) => `unexpected ${name}`));
  if (problems.length > 0) throw conversionError(checkpoint, problems);
  return isSaved ? steps : dropTied(checkpoint, rules, prefix, steps);
}

/** Nested objects from dotted paths; a level whose names are all numbers becomes an array. */
export function buildTree(entries: Iterable<readonly [path: string, weight: Weight]>): ParamTree {
  type Branch = Map<string, Branch | Weight>;
  const root: Branch = new Map();
  for (const [path, weight] of entries) {
    const names = path.split('.');
    let branch = root;
    for (const name of names.slice(0, -1)) {
      if (!branch.has(name)) branch.set(name, new Map());
      branch = branch.get(name) as Branch;
    }
    branch.set(names.at(-1)!, weight);
  }
  const toTree = (value: Branch | Weight): unknown => {
    if (!(value instanceof Map)) return value;
    const names = [...value.keys()];
    if (names.length > 0 && names.every((name, i) => name === String(i)))
      return [...value.values()].map(toTree);
    return Object.fromEntries(names.map((name) => [name, toTree(value.get(name)!)]));
  };
  return toTree(root) as ParamTree;
}

/** Elements and bytes of a tree's Weights by their stored type, scales included. */
export function sizeByDType(
  params: ParamTree,
): Record<string, { tensors: number; elements: number; bytes: number }> {
  const sizes: Record<string, { tensors: number; elements: number; bytes: number }> = {};
  for (const [, weight] of weightEntries(params)) {
    const dtype = weight.kind === 'float' ? weight.dtype : weight.kind;
    sizes[dtype] ??= { tensors: 0, elements: 0, bytes: 0 };
    sizes[dtype].tensors += 1;
    sizes[dtype].elements += sizeOf(weight.shape);
    sizes[dtype].bytes += weightBytes(weight);
  }
  return sizes;
}

/** The map's rules with each `{layer}` written out, in order: layers stay together. */
export function expandRules(map: WeightMap): WeightRule[] {
  const inLayers = map.rules.filter((rule) => rule.target.includes('{layer}'));
  const at = map.rules.indexOf(inLayers[0]!);
  const outside = map.rules.filter((rule) => !inLayers.includes(rule));
  const layers = Array.from({ length: map.layers }, (_, layer) =>
    inLayers.map((rule) => withLayer(rule, layer)),
  );
  return [...outside.slice(0, Math.max(at, 0)), ...layers.flat(), ...outside.slice(Math.max(at, 0))];
}

function withLayer(rule: WeightRule, layer: number): WeightRule {
  const number = (name: string): string => name.replace('{layer}', String(layer));
  return { ...rule, source: number(rule.source), target: number(rule.target) };
}

/** The rule's name in a checkpoint published under this prefix. */
export function sourceName(rule: WeightRule, prefix: string): string {
  return rule.unprefixed ? rule.source : prefix + rule.source;
}

/** The rule's shape in the checkpoint; in a file that we saved it is the tree's. */
export function storedShape({ shape, transpose }: WeightRule, isSaved = false): Shape {
  return transpose && !isSaved ? [...shape].reverse() : shape;
}

function bestPrefix(checkpoint: Checkpoint, map: WeightMap, rules: readonly WeightRule[]): string {
  const matches = (prefix: string): number =>
    rules.filter((rule) => !rule.unprefixed && checkpoint.has(sourceName(rule, prefix))).length;
  const counts = map.prefixes.map(matches);
  return map.prefixes[counts.indexOf(Math.max(...counts))]!;
}

/**
 * Tensors that no rule or skip pattern names. One that could not be a parameter of these models, because it is empty
 * or of a type without fractions, is unused but no mistake.
 */
function unexpected(
  checkpoint: Checkpoint,
  map: WeightMap,
  prefix: string,
  known: ReadonlySet<string>,
): string[] {
  const skipped = map.skip.map(skipPattern);
  return checkpoint.names().filter((name) => {
    if (known.has(name)) return false;
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    if (skipped.some((pattern) => pattern.test(bare))) return false;
    const { dtype, bytes } = checkpoint.entry(name);
    return bytes > 0 && /^(f|bf|i8)/.test(dtype);
  });
}

function skipPattern(pattern: string): RegExp {
  const literal = pattern.replaceAll(/[.*+?^$()|[\]\\]/g, '\\$&').replaceAll('{layer}', '\\d+');
  return new RegExp(`^${literal}$`);
}

function conversionError(checkpoint: Checkpoint, problems: readonly string[]): Error {
  const listed = problems.map((problem) => `\n  ${problem}`).join('');
  const advice = 'check that config.json belongs to these weights';
  return new Error(
    `${checkpoint.source}: ${problems.length} tensors do not fit the model; ${advice}:${listed}`,
  );
}

/**
 * Leaves out each tensor that repeats another bit for bit. Where the config says tied but the values differ, the
 * file counts, as in transformers 5.
 */
async function dropTied(
  checkpoint: Checkpoint,
  rules: readonly WeightRule[],
  prefix: string,
  steps: readonly ConversionStep[],
): Promise<ConversionStep[]> {
  const kept: ConversionStep[] = [];
  for (const step of steps) {
    const tiedTo = rules.find((rule) => rule.target === step.target)?.tiedTo;
    const twin = tiedTo === undefined ? undefined : rules.find((rule) => rule.target === tiedTo);
    if (twin && (await equalTensors(checkpoint, step.source, sourceName(twin, prefix)))) continue;
    kept.push(step);
  }
  return kept;
}

async function equalTensors(checkpoint: Checkpoint, a: string, b: string): Promise<boolean> {
  const [first, second] = [checkpoint.entry(a), checkpoint.entry(b)];
  if (first.dtype !== second.dtype || String(first.shape) !== String(second.shape)) return false;
  const sliceBytes = 2 ** 24;
  for (let start = 0; start < first.bytes; start += sliceBytes) {
    const end = Math.min(start + sliceBytes, first.bytes);
    const left = await checkpoint.readSlice(a, start, end);
    const right = await checkpoint.readSlice(b, start, end);
    if (Buffer.compare(left, right) !== 0) return false;
  }
  return true;
}
