// lib/quality/gate.ts: two sets of weights of one model, compared on samples -> figures, and whether they pass.
// Teacher-forced on the reference answers: perplexity, KL divergence and the most likely token at each position; then
// both generate freely and their texts are compared. Source: llama.cpp's perplexity tool, for the choice of figures.
import type { InstructionSample } from '../dataset.js';
import type { GenerativeModel } from '../generate.js';
import { generateBatch } from '../generateBatch.js';
import {
  compareLogits,
  type Divergence,
  type LogitsComparison,
  perplexity,
  summarizeDivergence,
  type TextQuality,
  textQuality,
  tokenLogProbabilities,
} from '../quality.js';
import { TEXTS_AT_ONCE, teacherForcedBatch } from '../teacherForcing.js';
import type { Tokenizer } from '../tokenizer.js';
import { promptAndAnswer } from './perplexity.js';

export interface WeightsComparison extends Divergence {
  readonly samples: number;
  readonly perplexity: number;
  readonly referencePerplexity: number;
  /** perplexity / referencePerplexity: 1.005 is half a percent worse. */
  readonly perplexityRatio: number;
  /** The candidate's free texts against the reference weights' own. */
  readonly text: TextQuality;
}

/** Limits; a figure without one always passes. */
export interface QualityThresholds {
  readonly maxPerplexityRatio?: number;
  readonly maxKlMean?: number;
  readonly maxKlP99?: number;
  readonly minSameTopToken?: number;
  readonly minRougeL?: number;
}

export interface CompareOptions {
  readonly maxNewTokens: number;
  readonly signal?: AbortSignal;
  /** Told some samples at a time. */
  readonly onSample?: (done: number, total: number) => void;
}

/**
 * Compares a candidate's weights with a reference's, sample by sample.
 * @param samples the answers, with the end-of-sequence token after each, are what both are measured on
 * @throws RangeError if the models have different vocabularies or tokenizers, or there is no sample
 */
export async function compareWeights(
  candidate: GenerativeModel,
  reference: GenerativeModel,
  samples: readonly InstructionSample[],
  options: CompareOptions,
): Promise<WeightsComparison> {
  const tokenizer = sharedTokenizer(candidate, reference);
  const comparisons: LogitsComparison[] = [];
  const likelihoods = { candidate: [] as number[], reference: [] as number[] };
  const texts: { text: string; reference: string }[] = [];
  for (let first = 0; first < samples.length; first += TEXTS_AT_ONCE) {
    options.onSample?.(first, samples.length);
    const given = samples
      .slice(first, first + TEXTS_AT_ONCE)
      .map((sample) => promptAndAnswer(tokenizer, reference.eosIds, sample));
    const logits = {
      candidate: await teacherForcedBatch(candidate, given, options.signal),
      reference: await teacherForcedBatch(reference, given, options.signal),
    };
    for (const [i, { answerIds }] of given.entries()) {
      const [mine, theirs] = [logits.candidate[i]!, logits.reference[i]!];
      comparisons.push(compareLogits(theirs, mine, reference.vocabSize));
      likelihoods.candidate.push(...tokenLogProbabilities(mine, answerIds, reference.vocabSize));
      likelihoods.reference.push(...tokenLogProbabilities(theirs, answerIds, reference.vocabSize));
    }
    const prompts = given.map(({ promptIds }) => promptIds);
    const [generated, expected] = [
      await generateBatch(candidate, prompts, options),
      await generateBatch(reference, prompts, options),
    ];
    options.signal?.throwIfAborted();
    for (const [i, { text }] of generated.entries())
      texts.push({ text: text ?? '', reference: expected[i]!.text ?? '' });
  }
  options.onSample?.(samples.length, samples.length);
  const perplexities = {
    candidate: perplexity(likelihoods.candidate),
    reference: perplexity(likelihoods.reference),
  };
  return {
    samples: samples.length,
    ...summarizeDivergence(comparisons),
    perplexity: perplexities.candidate,
    referencePerplexity: perplexities.reference,
    perplexityRatio: perplexities.candidate / perplexities.reference,
    text: textQuality(texts),
  };
}

/** Says which thresholds a comparison misses, a line each: figure, limit, found. */
export function failedThresholds(found: WeightsComparison, limits: QualityThresholds): string[] {
  const atMost = (name: string, value: number, limit: number | undefined) =>
    limit === undefined || value <= limit ? [] : [`${name}: expected at most ${limit}, found ${value}`];
  const atLeast = (name: string, value: number, limit: number | undefined) =>
    limit === undefined || value >= limit ? [] : [`${name}: expected at least ${limit}, found ${value}`];
  return [
    ...atMost('perplexity ratio', found.perplexityRatio, limits.maxPerplexityRatio),
    ...atMost('mean KL divergence', found.klMean, limits.maxKlMean),
    ...atMost('99th percentile of KL divergence', found.klP99, limits.maxKlP99),
    ...atLeast('same top token', found.sameTopToken, limits.minSameTopToken),
    ...atLeast('ROUGE-L', found.text.rougeL, limits.minRougeL),
  ];
}

function sharedTokenizer(candidate: GenerativeModel, reference: GenerativeModel): Tokenizer {
  if (candidate.vocabSize !== reference.vocabSize) {
    throw new RangeError(
      `weights: expected one vocabulary, received ${candidate.vocabSize} and ${reference.vocabSize} tokens`,
    );
  }
  const tokenizer = reference.tokenizer ?? candidate.tokenizer;
  if (!tokenizer)
    throw new RangeError('weights: expected a tokenizer.json beside them, found none in either folder');
  return tokenizer;
}
