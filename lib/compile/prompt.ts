// lib/compile/prompt.ts: prompts of any length -> calls of a few compiled programs. Prompts are padded to one of a few
// lengths, longer ones are cut into pieces; padding is never written to the cache.
import * as tf from '@tensorflow/tfjs-core';
import type { CacheSpec, KVCache } from '../cache.js';
import { allocate, disposeCache, ringSlots } from '../cache.js';
import type { ForwardFunction, ForwardInput, ForwardOutput } from '../forward.js';
import type { Jitted } from '../jit/jit.js';
import type { ParamTree } from '../tensor.js';

/**
 * Prompts are padded to one of these, longer ones cut into pieces of the last that a target takes at once: few programs
 * serve every length. Where work grows with length, from 256 on, less of it is padding.
 */
const BUCKETS = [16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048];
/** A ring of a sliding window is written in pieces of this, so that it need not be much larger than the window. */
const WINDOW_BUCKET = 64;
/** Capacities are rounded up to powers of two from here on, so that a longer text seldom needs a new program. */
const LEAST_CAPACITY = 256;

/** The first piece of a prompt, which makes the cache inside the target; and the pieces after it. */
export type PromptProgram = Jitted<[ParamTree, ForwardInput, CacheSpec], ForwardOutput>;
export type ForwardProgram = Jitted<[ParamTree, ForwardInput, KVCache], ForwardOutput>;

/** The function that a PromptProgram is compiled from. */
export function beginPrompt(forward: ForwardFunction) {
  return (params: ParamTree, input: ForwardInput, spec: CacheSpec): ForwardOutput =>
    forward(params, input, allocate(spec, input.tokens.shape[0], 'fixed'));
}

/** A cache that takes memory only when the first program runs: that program makes it, inside the target. */
export function emptyCache(spec: CacheSpec): KVCache {
  return { spec, layout: 'fixed', keys: [], values: [], positions: null, padding: 0 };
}

/**
 * The spec of a compiled cache: capacity 256, 512, 1024, ... up to what the model knows. A window's ring needs slots
 * for itself and one piece of the prompt, no more.
 */
export function roundedSpec(spec: CacheSpec, maxPositions: number): CacheSpec {
  const { window, capacity } = spec;
  if (window !== null) return { ...spec, capacity: ringSlots(window, WINDOW_BUCKET) };
  const rounded = Math.max(LEAST_CAPACITY, 2 ** Math.ceil(Math.log2(capacity)));
  return { ...spec, capacity: Math.min(maxPositions, rounded) };
}

/** The programs that prompts run on. */
export interface PromptPrograms {
  readonly begin: PromptProgram;
  readonly goOn: ForwardProgram;
  /** Tokens of all rows together that one call takes at most. */
  readonly mostTokens: number;
}

/** Runs the rows' tokens in padded pieces. @returns each row's logits of its last token, and the cache */
export async function inBuckets(
  { begin, goOn, mostTokens }: PromptPrograms,
  params: ParamTree,
  input: ForwardInput,
  cache: KVCache,
): Promise<ForwardOutput> {
  const rows = await rowsOf(input);
  const longest = Math.max(...rows.map(({ ids }) => ids.length));
  const size = pieceSize(rows.length, cache.spec, mostTokens);
  const pieces: tf.Tensor2D[] = []; // logits of each piece
  let held = cache;
  for (let at = 0; at < longest; at += size) {
    const piece = paddedInput(rows, at, size);
    const isFirst = held.keys.length === 0;
    const output = isFirst ? await begin(params, piece, held.spec) : await goOn(params, piece, held);
    if (!isFirst) disposeCache(held);
    tf.dispose([piece.tokens, piece.start, piece.count]);
    pieces.push(output.logits);
    held = output.cache;
  }
  const lastPieces = rows.map(({ ids }) => Math.ceil(ids.length / size) - 1);
  return { logits: pickRows(pieces, lastPieces), cache: held };
}

interface Row {
  readonly ids: readonly number[];
  readonly start: number;
}

async function rowsOf({ tokens, start, count }: ForwardInput): Promise<Row[]> {
  const [ids, starts, counts] = await Promise.all([tokens.data(), start.data(), count.data()]);
  const query = tokens.shape[1];
  return [...starts].map((from, row) => ({
    ids: [...ids.subarray(row * query, row * query + counts[row]!)],
    start: from,
  }));
}

/** Tokens of a piece: many rows share the work of one long one. No more than the cache has slots for. */
function pieceSize(rows: number, { window, capacity }: CacheSpec, mostTokens: number): number {
  const most = window === null ? Math.max(capacity, LEAST_CAPACITY) : WINDOW_BUCKET;
  return BUCKETS.findLast((size) => size <= most && size * rows <= mostTokens) ?? BUCKETS[0]!;
}

function paddedInput(rows: readonly Row[], at: number, size: number): ForwardInput {
  const pieces = rows.map(({ ids }) => ids.slice(at, at + size));
  const longest = Math.max(...pieces.map((piece) => piece.length));
  const bucket = longest === 1 ? 1 : BUCKETS.find((length) => length >= longest)!;
  const padded = pieces.flatMap((piece) => [...piece, ...new Array<number>(bucket - piece.length).fill(0)]);
  const counts = pieces.map((piece) => piece.length);
  return {
    tokens: tf.tensor2d(padded, [rows.length, bucket], 'int32'),
    start: tf.tensor1d(
      rows.map(({ ids, start }) => start + Math.min(at, ids.length)),
      'int32',
    ),
    count: tf.tensor1d(counts, 'int32'),
  };
}

/** Row r of pieces[chosen[r]]; the pieces are freed. */
function pickRows(pieces: readonly tf.Tensor2D[], chosen: readonly number[]): tf.Tensor2D {
  const last = pieces.at(-1)!;
  const isLast = chosen.every((piece) => piece === pieces.length - 1);
  const picked = isLast
    ? last
    : tf.tidy(() => tf.concat(chosen.map((piece, row) => tf.slice(pieces[piece]!, [row, 0], [1, -1]))));
  tf.dispose(pieces.filter((piece) => piece !== picked));
  return picked;
}
