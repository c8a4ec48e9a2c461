// lib/generateBatch.ts: many prompts -> many texts at once: one pass over the weights serves a token of each.
// For evaluations over many samples, where tokens a second count and not the time of one answer.
import * as tf from '@tensorflow/tfjs-core';
import type { KVCache } from './cache.js';
import { cacheBytes, disposeCache } from './cache.js';
import { forwardInput } from './forward.js';
import { decodeByCalls } from './generate/decodeByCalls.js';
import { type TextWriter, textWriter } from './generate/textWriter.js';
import {
  checkPrompt,
  type GeneratedToken,
  type GenerateOptions,
  type Generation,
  type GenerativeModel,
  idsOf,
  refuseNaN,
} from './generate.js';
import { checkSampling, GREEDY, greedyToken, randomKey, sampleNext } from './sample.js';

/** One text in the making. */
interface Row {
  readonly promptIds: readonly number[];
  readonly newIds: number[];
  readonly latencies: number[];
  readonly text: TextWriter;
  finish: Generation['finish'];
  logits: Float32Array | null;
  /** When its last token was known. */
  knownAt: number;
}

/**
 * Generates all texts together: each ends by itself, and all take as long as the longest. Greedy and sampled texts are
 * those that the prompts give one by one, but for rounding. A model without a compiled loop is called once a token.
 * @param prompts token ids of each; prompts of like length waste the least work on padding
 * @param onToken told each token with the number of its prompt
 * @returns one Generation a prompt, in the prompts' order
 * @throws RangeError as generate does
 */
export async function generateBatch(
  model: GenerativeModel,
  prompts: readonly (readonly number[])[],
  options: Omit<GenerateOptions, 'useCache'>,
  onToken: (token: GeneratedToken, prompt: number) => void = () => {},
): Promise<Generation[]> {
  const { maxNewTokens, sampling = GREEDY } = options;
  checkSampling(sampling);
  for (const prompt of prompts) checkPrompt(model, prompt, maxNewTokens);
  if (prompts.length === 0) return [];
  const decode = model.decode ?? decodeByCalls(model.forward);
  const begun = performance.now();
  const rows = prompts.map((promptIds) => newRow(promptIds, model, begun));
  const key = randomKey(sampling.seed);
  const ends = options.ignoreEos ? [] : model.eosIds;
  const note = (id: number, at: number) => onToken(addToken(rows[at]!, id, ends, maxNewTokens), at);
  const longest = Math.max(...prompts.map((prompt) => prompt.length));
  let cache = model.newCache(longest + maxNewTokens - 1, prompts.length);
  let bytes = 0;
  try {
    if (!options.signal?.aborted) {
      cache = await firstTokens(model, rows, cache, { ...options, sampling, key }, note);
      bytes = cacheBytes(cache);
      const unended = ({ finish, newIds }: Row) => (finish === 'eos' ? 0 : maxNewTokens - newIds.length);
      cache = await decode(
        model.params,
        {
          rows: rows.map((row) => ({
            token: row.newIds[0]!,
            position: row.promptIds.length,
            limit: unended(row),
          })),
          sampling,
          key,
          eosIds: ends,
          signal: options.signal ?? new AbortController().signal,
          onToken: note,
        },
        cache,
      );
    }
  } finally {
    key.dispose();
    disposeCache(cache);
  }
  return rows.map((row) => generationOf(row, bytes));
}

function newRow(promptIds: readonly number[], { tokenizer }: GenerativeModel, begun: number): Row {
  const text = textWriter(tokenizer);
  return { promptIds, newIds: [], latencies: [], text, finish: 'aborted', logits: null, knownAt: begun };
}

/** The prompts' pass, and each row's first token. @returns the cache; the old one was taken over */
async function firstTokens(
  model: GenerativeModel,
  rows: readonly Row[],
  cache: KVCache,
  { sampling = GREEDY, keepLogits = false, key }: GenerateOptions & { readonly key: tf.Tensor1D },
  note: (id: number, row: number) => void,
): Promise<KVCache> {
  const input = forwardInput(
    rows.map(({ promptIds }) => promptIds),
    rows.map(() => 0),
  );
  const output = await model.forward(model.params, input, cache);
  const logits = (await output.logits.data()) as Float32Array; // first: a GPU's cannot be read without waiting
  const ofRow = (_: Row, at: number) => logits.subarray(at * model.vocabSize, (at + 1) * model.vocabSize);
  const ids =
    sampling.temperature === 0
      ? rows.map((row, at) => greedyToken(ofRow(row, at)))
      : await idsOf(sampleNext(output.logits, input, sampling, key));
  tf.dispose([output.logits, input.tokens, input.start, input.count]);
  try {
    refuseNaN(logits);
  } catch (error) {
    disposeCache(output.cache);
    throw error;
  }
  rows.forEach((row, at) => {
    if (keepLogits) row.logits = ofRow(row, at).slice();
    note(ids[at]!, at);
  });
  return output.cache;
}

function addToken(row: Row, id: number, ends: readonly number[], maxNewTokens: number): GeneratedToken {
  const now = performance.now();
  const latencyMs = now - row.knownAt;
  row.knownAt = now;
  row.newIds.push(id);
  row.latencies.push(latencyMs);
  const isFull = row.newIds.length === maxNewTokens;
  if (ends.includes(id)) row.finish = 'eos';
  else if (isFull) row.finish = 'length';
  return { id, text: row.text.push(id, isFull || row.finish === 'eos'), latencyMs };
}

function generationOf(row: Row, bytes: number): Generation {
  const { promptIds, newIds, latencies, text, finish, logits } = row;
  return {
    promptIds,
    newIds,
    text: text.end(),
    finish,
    firstTokenMs: latencies[0] ?? 0,
    perTokenMs: latencies.slice(1),
    totalMs: latencies.reduce((sum, ms) => sum + ms, 0),
    cacheBytes: bytes,
    logits,
  };
}
