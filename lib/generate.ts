// lib/generate.ts: prompt -> text, token by token: prefill the prompt, then decode one token a step.
// Takes a Forward and cannot tell an eager model from a compiled one.
import * as tf from '@tensorflow/tfjs-core';
import type { KVCache } from './cache.js';
import { cacheBytes, disposeCache } from './cache.js';
import type { Decode, EveryLogits, ForcedLogits, Forward } from './forward.js';
import { forwardInput } from './forward.js';
import { textWriter } from './generate/textWriter.js';
import { TokenQueue } from './generate/tokenQueue.js';
import type { Sampling } from './sample.js';
import { checkSampling, GREEDY, greedyToken, randomKey, sampleNext } from './sample.js';
import type { ParamTree } from './tensor.js';
import type { Tokenizer } from './tokenizer.js';

/** What generation needs of a model; lib/model.ts loads one. */
export interface GenerativeModel {
  readonly params: ParamTree;
  readonly forward: Forward;
  /** For measuring given texts: all at once, or by the loop that decodes. Absent: through `forward`, token by token. */
  readonly everyLogits?: EveryLogits;
  readonly forcedLogits?: ForcedLogits;
  readonly vocabSize: number;
  readonly maxPositions: number;
  /** An empty cache for texts of this many tokens, one unless `batch` says more. */
  readonly newCache: (capacity: number, batch?: number) => KVCache;
  /** Writes many tokens in one call; absent: generate calls `forward` for each. */
  readonly decode?: Decode;
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
  /** From when the last token was known, or from the call for the first one, until this one was. */
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
  const { maxNewTokens, sampling = GREEDY, keepLogits = false } = options;
  checkSampling(sampling);
  checkPrompt(model, promptIds, maxNewTokens);
  const text = textWriter(model.tokenizer);
  const newIds: number[] = [];
  const latencies: number[] = [];
  const state: State = {
    promptIds,
    newIds,
    key: randomKey(sampling.seed),
    cacheBytes: 0,
    logits: null,
    finish: 'length',
  };
  const tokens = model.decode && options.useCache !== false ? decodeTogether : decodeSingly;
  try {
    // A compiled loop goes on while its tokens are read here: what happens between two of them counts for the second.
    let knownAt = performance.now();
    for await (const id of tokens(model, state, { ...options, sampling, keepLogits })) {
      const now = performance.now();
      newIds.push(id);
      latencies.push(now - knownAt);
      knownAt = now;
      const isEnd = !options.ignoreEos && model.eosIds.includes(id);
      if (isEnd) state.finish = 'eos';
      yield {
        id,
        text: text.push(id, isEnd || newIds.length === maxNewTokens),
        latencyMs: latencies.at(-1)!,
      };
      if (isEnd || newIds.length === maxNewTokens) break;
    }
  } finally {
    state.key.dispose();
  }
  return {
    promptIds,
    newIds,
    text: text.end(),
    finish: state.finish,
    firstTokenMs: latencies[0] ?? 0,
    perTokenMs: latencies.slice(1),
    totalMs: latencies.reduce((sum, ms) => sum + ms, 0),
    cacheBytes: state.cacheBytes,
    logits: state.logits,
  };
}

/** What a generation knows so far; the decoding loops below fill it. */
interface State {
  readonly promptIds: readonly number[];
  readonly newIds: readonly number[];
  readonly key: tf.Tensor1D;
  cacheBytes: number;
  logits: Float32Array | null;
  finish: Generation['finish'];
}

type Settings = GenerateOptions & { readonly sampling: Sampling; readonly keepLogits: boolean };

/** One forward call a token: any model. Frees its cache when the caller stops. */
async function* decodeSingly(
  model: GenerativeModel,
  state: State,
  settings: Settings,
): AsyncGenerator<number> {
  const { promptIds, newIds } = state;
  const { useCache = true, signal, maxNewTokens } = settings;
  const capacity = promptIds.length + maxNewTokens - 1;
  let cache = model.newCache(capacity);
  try {
    for (;;) {
      if (signal?.aborted) {
        state.finish = 'aborted';
        return;
      }
      const isWhole = newIds.length === 0 || !useCache;
      if (isWhole && newIds.length > 0) {
        disposeCache(cache);
        cache = model.newCache(capacity);
      }
      const known = promptIds.length + newIds.length;
      const fresh = isWhole ? [...promptIds, ...newIds] : newIds.slice(-1);
      const output = await step(model, fresh, known - fresh.length, cache, state, settings);
      cache = output.cache;
      yield output.id;
      await nextTurn();
    }
  } finally {
    disposeCache(cache);
  }
}

/** The prompt in one forward call, all further tokens in one call of a compiled loop, streamed as they come. */
async function* decodeTogether(
  model: GenerativeModel,
  state: State,
  settings: Settings,
): AsyncGenerator<number> {
  const { promptIds, key } = state;
  const { maxNewTokens, sampling, signal, ignoreEos = false } = settings;
  const first = await step(
    model,
    promptIds,
    0,
    model.newCache(promptIds.length + maxNewTokens - 1),
    state,
    settings,
  );
  let cache = first.cache;
  const stop = new AbortController(); // the caller may stop between two tokens, without a signal of its own
  const queue = new TokenQueue();
  let running: Promise<KVCache> | undefined;
  try {
    yield first.id;
    running = model.decode!(
      model.params,
      {
        rows: [{ token: first.id, position: promptIds.length, limit: maxNewTokens - 1 }],
        sampling,
        key,
        eosIds: ignoreEos ? [] : model.eosIds,
        signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
        onToken: (id) => queue.push(id),
      },
      cache,
    );
    running.then(
      () => queue.end(),
      (error) => queue.end(error),
    );
    yield* queue;
    cache = await running;
    if (signal?.aborted) state.finish = 'aborted';
  } finally {
    stop.abort();
    cache = running ? await running.catch(() => cache) : cache;
    disposeCache(cache);
  }
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
  state: State,
  { sampling, keepLogits }: Settings,
): Promise<{ id: number; cache: KVCache }> {
  const input = forwardInput([ids], [start]);
  const output = await model.forward(model.params, input, cache);
  state.cacheBytes = Math.max(state.cacheBytes, cacheBytes(output.cache));
  let logits: Float32Array | undefined; // of the first token only: later ones stay where they were computed
  if (state.newIds.length === 0) {
    logits = (await output.logits.data()) as Float32Array;
    refuseNaN(logits);
    if (keepLogits) state.logits = logits.slice();
  }
  const id =
    logits && sampling.temperature === 0
      ? greedyToken(logits)
      : (await idsOf(sampleNext(output.logits, input, sampling, state.key)))[0]!;
  tf.dispose([output.logits, input.tokens, input.start, input.count]);
  return { id, cache: output.cache };
}

/** A choice [batch] as numbers; it is freed. */
export async function idsOf(choice: tf.Tensor1D): Promise<readonly number[]> {
  const ids = await choice.data();
  choice.dispose();
  return Array.from(ids);
}

/** Damaged weights would otherwise give an answer: the choice among values that are not numbers is token 0. */
export function refuseNaN(logits: Float32Array): void {
  let place = 0; // a plain loop: findIndex calls a function for each of 50,000
  while (place < logits.length && !Number.isNaN(logits[place])) place++;
  if (place === logits.length) return;
  throw new RangeError(
    `logits: expected numbers, received NaN for token ${place}: the weights are damaged; fetch the model again`,
  );
}

/** Lets timers, signals and other requests run: some backends never leave the microtask queue by themselves. */
export function nextTurn(): Promise<void> {
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
