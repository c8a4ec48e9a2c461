// lib/quality/perplexity.ts: how well a model expects the reference answers of samples -> one perplexity.
// Each answer is read, not written (teacher forcing), with the end-of-sequence token after it.

import { type InstructionSample, samplePrompt } from '../dataset.js';
import type { GenerativeModel } from '../generate.js';
import { perplexity, tokenLogProbabilities } from '../quality.js';
import { type PromptAndAnswer, teacherForcedLogits } from '../teacherForcing.js';
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
    const { promptIds, answerIds } = promptAndAnswer(tokenizer, eosIds, sample);
    const logits = await teacherForcedLogits(model, promptIds, answerIds, signal);
    logProbabilities.push(...tokenLogProbabilities(logits, answerIds, vocabSize));
  }
  return perplexity(logProbabilities);
}

/**
 * A sample's prompt, and its reference answer as the model should end it: its tokens and one end-of-sequence token.
 * @param most tokens of the answer; all if absent
 */
export function promptAndAnswer(
  tokenizer: Tokenizer,
  eosIds: readonly number[],
  sample: InstructionSample,
  most?: number,
): PromptAndAnswer {
  const answer = tokenizer.encode(sample.output, { addSpecialTokens: false });
  return {
    promptIds: samplePrompt(tokenizer, sample),
    answerIds: [...answer, ...eosIds.slice(0, 1)].slice(0, most),
  };
}
