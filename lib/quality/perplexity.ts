// lib/quality/perplexity.ts: how well a model expects the reference answers of samples -> one perplexity.
// Each answer is read, not written (teacher forcing), with the end-of-sequence token after it.

import { type InstructionSample, samplePrompt } from '../dataset.js';
import type { GenerativeModel } from '../generate.js';
import { perplexity, tokenLogProbabilities } from '../quality.js';
import { teacherForcedLogits } from '../teacherForcing.js';
import type { Tokenizer } from '../tokenizer.js';

/**
 * Perplexity of the samples' answers, all their tokens together.
 * @throws RangeError if there is no sample, or the model has no tokenizer
 * @throws the signal's reason when stopped
 */
export async function answerPerplexity(
  model: GenerativeModel,
  samples: readonly InstructionSample[],
  signal?: AbortSignal,
): Promise<number> {
  const { tokenizer, eosIds, vocabSize } = model;
  if (!tokenizer) throw new RangeError('perplexity: expected a model with a tokenizer, received none');
  const logProbabilities: number[] = [];
  for (const sample of samples) {
    signal?.throwIfAborted();
    const answerIds = answerTokens(tokenizer, eosIds, sample);
    const logits = await teacherForcedLogits(model, samplePrompt(tokenizer, sample), answerIds, signal);
    logProbabilities.push(...tokenLogProbabilities(logits, answerIds, vocabSize));
  }
  return perplexity(logProbabilities);
}

/** The reference answer as the model should end it: its tokens and one end-of-sequence token. */
export function answerTokens(
  tokenizer: Tokenizer,
  eosIds: readonly number[],
  { output }: InstructionSample,
): number[] {
  return [...tokenizer.encode(output, { addSpecialTokens: false }), ...eosIds.slice(0, 1)];
}
