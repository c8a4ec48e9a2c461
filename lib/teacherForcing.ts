// lib/teacherForcing.ts: what a model thinks of a given text: the logits before each of its tokens, none of them chosen.
// An eager model answers in one call, a compiled one by the loop that generates, fed with the given tokens.
import * as tf from '@tensorflow/tfjs-core';
import { disposeCache } from './cache.js';
import { type ForcedLogits, forwardInput } from './forward.js';
import type { GenerativeModel } from './generate.js';

/** A prompt, and the answer that is measured. */
export interface PromptAndAnswer {
  readonly promptIds: readonly number[];
  readonly answerIds: readonly number[];
}

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
  return (await teacherForcedBatch(model, [{ promptIds, answerIds }], signal))[0]!;
}

/** Texts that are best measured together: more rows gain little, and the logits of all are kept at once. */
export const TEXTS_AT_ONCE = 4;

/** The same for several texts, which a compiled model measures together. @throws as teacherForcedLogits */
export async function teacherForcedBatch(
  model: GenerativeModel,
  texts: readonly PromptAndAnswer[],
  signal?: AbortSignal,
): Promise<Float32Array[]> {
  for (const text of texts) checkText(model, text);
  if (texts.length === 0) return [];
  if (model.forcedLogits && !model.everyLogits)
    return togetherForced(model, model.forcedLogits, texts, signal);
  const all: Float32Array[] = [];
  for (const { promptIds, answerIds } of texts) {
    if (!model.everyLogits) all.push(await stepByStep(model, promptIds, answerIds, signal));
    else {
      const every = await model.everyLogits(model.params, [...promptIds, ...answerIds.slice(0, -1)]);
      all.push(every.slice((promptIds.length - 1) * model.vocabSize));
    }
    signal?.throwIfAborted();
  }
  return all;
}

function checkText({ maxPositions }: GenerativeModel, { promptIds, answerIds }: PromptAndAnswer): void {
  if (promptIds.length > 0 && answerIds.length > 0 && promptIds.length + answerIds.length <= maxPositions)
    return;
  throw new RangeError(
    `teacher forcing: expected a prompt and an answer of at most ${maxPositions} tokens together, ` +
      `received ${promptIds.length} and ${answerIds.length}`,
  );
}

async function togetherForced(
  model: GenerativeModel,
  forcedLogits: ForcedLogits,
  texts: readonly PromptAndAnswer[],
  signal: AbortSignal | undefined,
): Promise<Float32Array[]> {
  const input = forwardInput(
    texts.map(({ promptIds }) => promptIds),
    texts.map(() => 0),
  );
  const longest = Math.max(...texts.map(({ promptIds, answerIds }) => promptIds.length + answerIds.length));
  const prompts = await model.forward(model.params, input, model.newCache(longest, texts.length));
  tf.dispose([input.tokens, input.start, input.count]);
  const given = texts.map(({ promptIds, answerIds }) => ({ promptLength: promptIds.length, answerIds }));
  return forcedLogits(model.params, prompts, given, signal);
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
