// lib/teacherForcing.ts: what a model thinks of a given text: the logits before each of its tokens, none of them chosen.
// An eager model answers in one call, a compiled one by the loop that generates, fed with the given tokens.
import * as tf from '@tensorflow/tfjs-core';
import { disposeCache } from './cache.js';
import { forwardInput } from './forward.js';
import type { GenerativeModel } from './generate.js';

/**
 * Logits of each answer token's position, given the prompt and the answer before it.
 * @param promptIds at least one
 * @param answerIds at least one; prompt and answer fit the model's context
 * @returns [answerIds.length, vocab] float32; row i is what the model expected in place of answerIds[i]
 * @throws RangeError if a list is empty or both together are too long (gives the lengths)
 */
export async function teacherForcedLogits(
  model: GenerativeModel,
  promptIds: readonly number[],
  answerIds: readonly number[],
  signal?: AbortSignal,
): Promise<Float32Array> {
  const tokens = promptIds.length + answerIds.length;
  if (promptIds.length === 0 || answerIds.length === 0 || tokens > model.maxPositions) {
    throw new RangeError(
      `teacher forcing: expected a prompt and an answer of at most ${model.maxPositions} tokens together, ` +
        `received ${promptIds.length} and ${answerIds.length}`,
    );
  }
  if (model.everyLogits) {
    const all = await model.everyLogits(model.params, [...promptIds, ...answerIds.slice(0, -1)]);
    return all.slice((promptIds.length - 1) * model.vocabSize);
  }
  if (model.forcedLogits) {
    const input = forwardInput([promptIds], [0]);
    const prompt = await model.forward(model.params, input, model.newCache(tokens));
    tf.dispose([input.tokens, input.start, input.count]);
    return model.forcedLogits(model.params, prompt, promptIds.length, answerIds, signal);
  }
  return stepByStep(model, promptIds, answerIds, signal);
}

/** Through the calls of generate: for a model that has no more than a Forward. */
async function stepByStep(
  model: GenerativeModel,
  promptIds: readonly number[],
  answerIds: readonly number[],
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const rows = new Float32Array(answerIds.length * model.vocabSize);
  let cache = model.newCache(promptIds.length + answerIds.length);
  try {
    for (let i = 0; i < answerIds.length; i++) {
      signal?.throwIfAborted();
      const fresh = i === 0 ? promptIds : answerIds.slice(i - 1, i);
      const input = forwardInput([fresh], [promptIds.length + i - fresh.length]);
      const output = await model.forward(model.params, input, cache);
      cache = output.cache;
      rows.set((await output.logits.data()) as Float32Array, i * model.vocabSize);
      tf.dispose([output.logits, input.tokens, input.start, input.count]);
    }
  } finally {
    disposeCache(cache);
  }
  return rows;
}
