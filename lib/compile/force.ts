// lib/compile/force.ts: a given text -> the logits before each of its tokens, by the loop that writes texts: the same
// kernels as decoding, fed with tokens that are known. One program for all lengths.
import * as tf from '@tensorflow/tfjs-core';
import { disposeCache, type KVCache } from '../cache.js';
import type { ForwardFunction, ForwardOutput } from '../forward.js';
import { type Jitted, scan } from '../jit/jit.js';
import type { ParamTree } from '../tensor.js';

/** Rounds of the program: each leaves a row of logits behind. Longer texts run it again. */
const ROUNDS = 64;

interface Carry {
  readonly place: tf.Tensor1D; // [1] int32, of the next token in `tokens`
  readonly position: tf.Tensor1D; // [1] int32, of that token in the text
  readonly cache: KVCache;
}

type Loop = ReturnType<typeof forcedLoop>;
export type ForcedProgram = Jitted<Parameters<Loop>, ReturnType<Loop>>;

/** The function that a ForcedProgram is compiled from: tokens [ROUNDS] int32, of which the first `count` [1] are real. */
export function forcedLoop(forward: ForwardFunction) {
  return (params: ParamTree, begun: Carry, tokens: tf.Tensor1D, count: tf.Tensor1D) =>
    scan(
      ({ place, position, cache }: Carry) => {
        const one = tf.tensor1d([1], 'int32');
        const token = tf.reshape(tf.gather(tokens, place), [1, 1]) as tf.Tensor2D;
        const output = forward(params, { tokens: token, start: position, count: one }, cache);
        const next = (value: tf.Tensor1D) => tf.add(value, one) as tf.Tensor1D;
        return {
          carry: { place: next(place), position: next(position), cache: output.cache },
          output: output.logits,
        };
      },
      begun,
      ROUNDS,
      { until: ({ place }) => tf.reshape(tf.greaterEqual(place, count), []) },
    );
}

/**
 * Logits of each answer token's position.
 * @param prompt the prompt's pass: logits of its last token, and the cache, which is taken over
 * @returns [answerIds.length, vocab] float32
 */
export async function forcedLogits(
  program: ForcedProgram,
  params: ParamTree,
  prompt: ForwardOutput,
  promptLength: number,
  answerIds: readonly number[],
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const vocab = prompt.logits.shape[1];
  const rows = new Float32Array(answerIds.length * vocab);
  rows.set((await prompt.logits.data()) as Float32Array);
  prompt.logits.dispose();
  let held = prompt.cache;
  try {
    for (let done = 0; done < answerIds.length - 1; done += ROUNDS) {
      const piece = answerIds.slice(done, Math.min(done + ROUNDS, answerIds.length - 1));
      const numbers = (values: readonly number[]) => tf.tensor1d([...values], 'int32');
      const [tokens, count] = [numbers(padded(piece)), numbers([piece.length])];
      const [place, position] = [numbers([0]), numbers([promptLength + done])];
      const result = await program.run([params, { place, position, cache: held }, tokens, count], { signal });
      const logits = (await result.outputs.data()) as Float32Array; // [ROUNDS, 1, vocab]
      rows.set(logits.subarray(0, piece.length * vocab), (done + 1) * vocab);
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

function padded(piece: readonly number[]): number[] {
  return [...piece, ...new Array<number>(ROUNDS - piece.length).fill(0)];
}
