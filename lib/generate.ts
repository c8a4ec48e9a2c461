// lib/generate.ts: prompt -> text, token by token: prefill the prompt, then decode one token a step.
// Takes a Forward and cannot tell an eager model from a compiled one.
import * as tf from '@tensorflow/tfjs-core';
import type { CacheSpec, KVCache } from './cache.js';
import { allocate, cacheBytes, disposeCache } from './cache.js';
import type { EveryLogits, Forward } from './forward.js';
import { forwardInput } from './forward.js';
import type { Sampling } from './sample.js';
import { checkSampling, GREEDY, randomKey, sampleToken } from './sample.js';
import type { ParamTree } from './tensor.js';
import type { Tokenizer } from './tokenizer.js';
import { createTextStream } from './tokenizer.js';

/** What generation needs of a model; lib/model.ts loads one. */
export interface GenerativeModel {
  readonly params: ParamTree;
  readonly forward: Forward;
  /** Absent: texts are measured through `forward`, token by token. */
  readonly everyLogits?: EveryLogits;
  readonly vocabSize: number;
  readonly maxPositions: number;
  /** The cache for this many tokens. */
  readonly cacheSpec: (capacity: number) => CacheSpec;
  readonly tokenizer: Tokenizer | null;
  readonly eosIds: readonly number[];
}

export interface GenerateOptions {
  readonly maxNewTokens: number;
  readonly sampling?: Sampling;
  /** false: the whole sequence is computed again for each token, for the comparison. */
  readonly useCache?: boolean;
  /** true: goes on after an end-of-sequence token, so that runs compare at equal lengths. */
  readonly ignoreEos?: boolean;
  /** Stops between two tokens; what was generated is kept. */
  readonly signal?: AbortSignal;
  /** true: the result carries the logits of the prompt's last position. */
  readonly keepLogits?: boolean;
}

export interface GeneratedToken {
  readonly id: number;
  /** Text that is whole by now; '' while a character is split over tokens. */
  readonly text: string;
  /** From the last token, or from the call for the first one, until this one was known. */
  readonly latencyMs: number;
}

export interface Generation {
  readonly promptIds: readonly number[];
  /** Includes the end-of-sequence token where one ended the text. */
  readonly newIds: readonly number[];
  /** Null without a tokenizer. Special tokens are left out. */
  readonly text: string | null;
  readonly finish: 'eos' | 'length' | 'aborted';
  readonly firstTokenMs: number;
  /** Of the tokens after the first. */
  readonly perTokenMs: readonly number[];
  readonly totalMs: number;
  readonly cacheBytes: number;
  /** [vocab], of the prompt's last position; null unless asked for. */
  readonly logits: Float32Array | null;
}

/**
 * Generates token by token: each is yielded as soon as it is known, the whole generation is returned at the end.
 * @param promptIds at least one token id, each in the vocabulary
 * @throws RangeError for an empty or too long prompt, an id outside the vocabulary, or sampling settings
 */
export async function* generate(
  model: GenerativeModel,
  promptIds: readonly number[],
  options: GenerateOptions,
): AsyncGenerator<GeneratedToken, Generation, void> {
  const { maxNewTokens, sampling = GREEDY, useCache = true, ignoreEos = false, signal } = options;
  checkSampling(sampling);
  checkPrompt(model, promptIds, maxNewTokens);
  const stream = model.tokenizer && createTextStream(model.tokenizer);
  const newIds: number[] = [];
  const pieces: string[] = [];
  const latencies: number[] = [];
  const key = randomKey(sampling.seed);
  const spec = model.cacheSpec(promptIds.length + maxNewTokens - 1);
  let finish: Generation['finish'] = 'length';
  let logits: Float32Array | null = null;
  let cache = allocate(spec, 1);
  let bytes = 0;
  try {
    while (newIds.length < maxNewTokens) {
      const begun = performance.now();
      if (signal?.aborted) {
        finish = 'aborted';
        break;
      }
      const known = promptIds.length + newIds.length;
      const isFirst = newIds.length === 0;
      if (!useCache && !isFirst) {
        disposeCache(cache);
        cache = allocate(spec, 1);
      }
      const whole = isFirst || !useCache;
      const fresh = whole ? [...promptIds, ...newIds] : newIds.slice(-1);
      const output = await step(model, fresh, known - fresh.length, cache, {
        sampling,
        key,
        keepLogits: isFirst && !!options.keepLogits,
      });
      cache = output.cache;
      bytes = Math.max(bytes, cacheBytes(cache));
      logits ??= output.logits;
      newIds.push(output.id);
      const isEnd = !ignoreEos && model.eosIds.includes(output.id);
      const isLast = isEnd || newIds.length === maxNewTokens;
      const text = (stream?.push(output.id) ?? '') + (isLast ? (stream?.flush() ?? '') : '');
      pieces.push(text);
      latencies.push(performance.now() - begun);
      yield { id: output.id, text, latencyMs: latencies.at(-1)! };
      if (isEnd) {
        finish = 'eos';
        break;
      }
      await nextTurn();
    }
  } finally {
    disposeCache(cache);
    key.dispose();
  }
  if (finish === 'aborted') pieces.push(stream?.flush() ?? '');
  return {
    promptIds,
    newIds,
    text: stream && pieces.join(''),
    finish,
    firstTokenMs: latencies[0] ?? 0,
    perTokenMs: latencies.slice(1),
    totalMs: latencies.reduce((sum, ms) => sum + ms, 0),
    cacheBytes: bytes,
    logits,
  };
}

/** Runs a generation to its end. @throws as generate */
export async function collect(
  model: GenerativeModel,
  promptIds: readonly number[],
  options: GenerateOptions,
  onToken: (token: GeneratedToken) => void = () => {},
): Promise<Generation> {
  const tokens = generate(model, promptIds, options);
  for (;;) {
    const next = await tokens.next();
    if (next.done) return next.value;
    onToken(next.value);
  }
}

/** One forward call and the choice of its token; frees all but the new cache. */
async function step(
  model: GenerativeModel,
  ids: readonly number[],
  start: number,
  cache: KVCache,
  { sampling, key, keepLogits }: { sampling: Sampling; key: tf.Tensor1D; keepLogits: boolean },
): Promise<{ id: number; cache: KVCache; logits: Float32Array | null }> {
  const input = forwardInput([ids], [start]);
  const output = await model.forward(model.params, input, cache);
  const choice = tf.tidy(() => {
    const position = tf.tensor1d([start + ids.length], 'int32');
    return sampleToken(output.logits, sampling, key, position);
  });
  const [id] = await choice.data();
  const logits = keepLogits ? ((await output.logits.data()).slice() as Float32Array) : null;
  tf.dispose([choice, output.logits, input.tokens, input.start, input.count]);
  return { id: id!, cache: output.cache, logits };
}

/** Lets timers, signals and other requests run: some backends never leave the microtask queue by themselves. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * What generate demands of a prompt; for callers that want to know before they load a model.
 * @throws RangeError that says what was expected, what was received and what would do
 */
export function checkPrompt(
  { vocabSize, maxPositions }: Pick<GenerativeModel, 'vocabSize' | 'maxPositions'>,
  promptIds: readonly number[],
  maxNewTokens: number,
): void {
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new RangeError(`new tokens: expected a positive integer, received ${maxNewTokens}`);
  }
  if (promptIds.length === 0) throw new RangeError('prompt: expected at least one token, received none');
  const stray = promptIds.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (stray !== undefined) {
    throw new RangeError(`prompt: expected token ids from 0 to ${vocabSize - 1}, received ${stray}`);
  }
  const length = promptIds.length;
  if (length > maxPositions) {
    throw new RangeError(
      `prompt: ${length} tokens exceed the model's context of ${maxPositions}; shorten it by ${length - maxPositions}`,
    );
  }
  const room = maxPositions - length + 1; // the last new token is never read by the model
  if (maxNewTokens > room) {
    throw new RangeError(
      `new tokens: ${length} prompt tokens and ${maxNewTokens} new ones exceed the model's context of ` +
        `${maxPositions}; ask for at most ${room}`,
    );
  }
}
