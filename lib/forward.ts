// lib/forward.ts: the seam between a model and those who run it. models/ gives a ForwardFunction, jit may compile it,
// generate calls a Forward and cannot tell which of the two it has.
import * as tf from '@tensorflow/tfjs-core';
import type { KVCache } from './cache.js';
import { disposeCache } from './cache.js';
import type { Sampling } from './sample.js';
import type { ParamTree } from './tensor.js';

/** One call: `tokens` [batch, query] int32; row b's first count[b] are real and follow start[b] earlier tokens. */
export interface ForwardInput {
  readonly tokens: tf.Tensor2D;
  readonly start: tf.Tensor1D;
  readonly count: tf.Tensor1D;
}

/** logits [batch, vocab] of each row's last real token, and the cache with the call's tokens in it. */
export interface ForwardOutput {
  readonly logits: tf.Tensor2D;
  readonly cache: KVCache;
}

/** A model as a pure tfjs function. */
export type ForwardFunction<Params extends ParamTree = ParamTree> = (
  params: Params,
  input: ForwardInput,
  cache: KVCache,
) => ForwardOutput;

/** A model as it is run: eager or compiled. It takes the cache over; the caller disposes what comes back. */
export type Forward<Params extends ParamTree = ParamTree> = (
  params: Params,
  input: ForwardInput,
  cache: KVCache,
) => Promise<ForwardOutput>;

/** A model's logits of every token of a text at once, [tokens, vocab]: for measuring texts, not for writing them. */
export type EveryLogits<Params extends ParamTree = ParamTree> = (
  params: Params,
  tokens: readonly number[],
) => Promise<Float32Array>;

/** A text whose tokens are given: the prompt's length, and the answer that follows it. */
export interface GivenText {
  readonly promptLength: number;
  readonly answerIds: readonly number[];
}

/**
 * Logits of each answer token's position, [answer, vocab] a text, by the loop that decodes.
 * @param prompts what `forward` gave for the prompts, a row a text: taken over
 */
export type ForcedLogits<Params extends ParamTree = ParamTree> = (
  params: Params,
  prompts: ForwardOutput,
  texts: readonly GivenText[],
  signal?: AbortSignal,
) => Promise<Float32Array[]>;

/** One text of a DecodeRequest. */
export interface DecodeRow {
  /** The last token known, not yet in the cache, and its place in the text. */
  readonly token: number;
  readonly position: number;
  /** Tokens to write at most; 0 is allowed. */
  readonly limit: number;
}

/** Many tokens in one call: what a compiled loop is asked for. */
export interface DecodeRequest {
  /** One a row of the cache; each ends by itself. */
  readonly rows: readonly DecodeRow[];
  readonly sampling: Sampling;
  /** randomKey(sampling.seed) */
  readonly key: tf.Tensor1D;
  /** Tokens that end a text, themselves included. */
  readonly eosIds: readonly number[];
  readonly signal: AbortSignal;
  /** Told each token of each row in order, while the loop goes on. */
  readonly onToken: (id: number, row: number) => void;
}

/** Writes tokens until every row has met its limit or an end of sequence, or until an abort. @returns the cache, which was taken over */
export type Decode<Params extends ParamTree = ParamTree> = (
  params: Params,
  request: DecodeRequest,
  cache: KVCache,
) => Promise<KVCache>;

/** Runs a model op by op on the current tfjs backend; nothing but the result outlives the call. */
export function eager<Params extends ParamTree>(forward: ForwardFunction<Params>): Forward<Params> {
  return async (params, input, cache) => {
    try {
      return inScope(() => forward(params, input, cache));
    } finally {
      disposeCache(cache);
    }
  };
}

/** As tf.tidy, for a result that is more than tensors: frees what the call made but its logits and its cache. */
function inScope(call: () => ForwardOutput): ForwardOutput {
  let output: ForwardOutput | undefined;
  tf.tidy(() => {
    output = call();
    const { keys, values, positions } = output.cache;
    for (const tensor of [output.logits, ...keys, ...values, positions]) if (tensor) tf.keep(tensor);
  });
  return output!;
}

/**
 * Puts rows of token ids into tensors, padded to the longest.
 * @param rows token ids of each row, at least one a row
 * @param starts tokens that each row's cache holds already
 */
export function forwardInput(rows: readonly (readonly number[])[], starts: readonly number[]): ForwardInput {
  const query = Math.max(...rows.map((row) => row.length));
  const padded = rows.flatMap((row) => [...row, ...new Array<number>(query - row.length).fill(0)]);
  return {
    tokens: tf.tensor2d(padded, [rows.length, query], 'int32'),
    start: tf.tensor1d([...starts], 'int32'),
    count: tf.tensor1d(
      rows.map((row) => row.length),
      'int32',
    ),
  };
}
