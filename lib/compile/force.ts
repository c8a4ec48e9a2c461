// lib/compile/force.ts: given texts -> the logits before each of their tokens, by the loop that writes texts: the same
// kernels as decoding, fed with tokens that are known. One program for all lengths and as many rows as there are texts.
import * as tf from '@tensorflow/tfjs-core';
import { disposeCache, type KVCache } from '../cache.js';
import type { ForwardFunction, ForwardOutput, GivenText } from '../forward.js';
import { type Jitted, scan } from '../jit/jit.js';
import type { ParamTree } from '../tensor.js';

/** Rounds of the program: each leaves a row of logits a text behind. Longer texts run it again. */
const ROUNDS = 64;

interface Carry {
  readonly place: tf.Tensor1D; // [1] int32, of the next tokens in `tokens`
  readonly position: tf.Tensor1D; // [batch] int32, of those tokens in their texts
  readonly cache: KVCache;
}

type Loop = ReturnType<typeof forcedLoop>;
export type ForcedProgram = Jitted<Parameters<Loop>, ReturnType<Loop>>;

/**
 * The function that a ForcedProgram is compiled from: tokens [ROUNDS, batch] int32, of which a text's first `count`
 * [batch] are real. A text that has ended waits for the others: it writes nothing to its cache.
 */
export function forcedLoop(forward: ForwardFunction) {
  return (params: ParamTree, begun: Carry, tokens: tf.Tensor2D, count: tf.Tensor1D) =>
    scan(
      ({ place, position, cache }: Carry) => {
        const token = tf.reshape(tf.gather(tokens, place), [-1, 1]) as tf.Tensor2D;
        const active = tf.cast(tf.less(place, count), 'int32') as tf.Tensor1D;
        const output = forward(params, { tokens: token, start: position, count: active }, cache);
        return {
          carry: {
            place: tf.add(place, tf.tensor1d([1], 'int32')) as tf.Tensor1D,
            position: tf.add(position, active) as tf.Tensor1D,
            cache: output.cache,
          },
          output: output.logits,
        };
      },
      begun,
      ROUNDS,
      { until: ({ place }) => tf.reshape(tf.greaterEqual(place, tf.max(count)), []) },
    );
}

/**
 * Logits of each answer token's position.
 * @param prompts the prompts' pass: logits of their last tokens, and the cache, which is taken over
 * @returns [answer, vocab] float32 of each text
 */
export async function forcedLogits(
  program: ForcedProgram,
  params: ParamTree,
  prompts: ForwardOutput,
  texts: readonly GivenText[],
  signal: AbortSignal | undefined,
): Promise<Float32Array[]> {
  const vocab = prompts.logits.shape[1];
  const batch = texts.length;
  const first = (await prompts.logits.data()) as Float32Array; // [batch, vocab]
  prompts.logits.dispose();
  const rows = texts.map(({ answerIds }, text) => {
    const logits = new Float32Array(answerIds.length * vocab);
    logits.set(first.subarray(text * vocab, (text + 1) * vocab));
    return logits;
  });
  const given = texts.map(({ answerIds }) => answerIds.slice(0, -1)); // nothing follows the last one
  const longest = Math.max(...given.map(({ length }) => length));
  let held = prompts.cache;
  try {
    for (let done = 0; done < longest; done += ROUNDS) {
      const pieces = given.map((ids) => ids.slice(done, done + ROUNDS));
      const numbers = (values: readonly number[]) => tf.tensor1d([...values], 'int32');
      const tokens = tf.tensor2d(interleaved(pieces), [ROUNDS, batch], 'int32');
      const [place, count] = [numbers([0]), numbers(pieces.map(({ length }) => length))];
      const position = numbers(
        texts.map(({ promptLength }, i) => promptLength + Math.min(done, given[i]!.length)),
      );
      const result = await program.run([params, { place, position, cache: held }, tokens, count], { signal });
      const logits = (await result.outputs.data()) as Float32Array; // [ROUNDS, batch, vocab]
      for (const [text, { length }] of pieces.entries()) {
        for (let round = 0; round < length; round++) {
          const from = (round * batch + text) * vocab;
          rows[text]!.set(logits.subarray(from, from + vocab), (done + round + 1) * vocab);
        }
      }
      disposeCache(held);
      held = result.carry.cache;
      tf.dispose([tokens, count, place, position, result.carry.place, result.carry.position]);
      tf.dispose([result.outputs, result.steps]);
    }
  } finally {
    disposeCache(held);
  }
  return rows;
}

/** [ROUNDS * batch]: a token of each text, then the next of each; 0 where a text has ended. */
function interleaved(pieces: readonly (readonly number[])[]): number[] {
  return Array.from({ length: ROUNDS }, (_, round) => pieces.map((ids) => ids[round] ?? 0)).flat();
}
