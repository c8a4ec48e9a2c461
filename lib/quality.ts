// lib/quality.ts: how good the text and the logits are, beside a reference.
// texts -> ROUGE and exact match; logits [positions, vocab] -> perplexity, KL divergence, same-top-token share.
// Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", as rouge_score 0.1.2 computes it.

import * as jsRouge from 'rouge';
import { percentile } from './results/statistics.js';

export interface RougeScores {
  /** Shared words. F-measures, 0 to 1. */
  readonly rouge1: number;
  /** Shared pairs of neighbours. */
  readonly rouge2: number;
  /** Longest common subsequence of words. */
  readonly rougeL: number;
}

/** Means over samples; the scores of each sample beside them. */
export interface TextQuality extends RougeScores {
  readonly samples: number;
  readonly exactMatch: number;
  /** ROUGE-L of each sample, in the order given. */
  readonly rougeLOfSamples: readonly number[];
}

export interface TextPair {
  readonly text: string;
  readonly reference: string;
}

/** Words as rouge_score finds them: lower case, runs of a-z and 0-9; everything else separates. */
export function rougeWords(text: string): string[] {
  return text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
}

/**
 * ROUGE-1, ROUGE-2 and ROUGE-L of a text, without stemming.
 * @returns F-measures equal to rouge_score's; all 0 if either side has no words, even if both have none
 */
export function rouge(text: string, reference: string): RougeScores {
  // js-rouge refuses blank texts and keeps letters outside a-z; rouge_score scores the first 0 and drops the second.
  if (rougeWords(text).length === 0 || rougeWords(reference).length === 0) {
    return { rouge1: 0, rouge2: 0, rougeL: 0 };
  }
  const options = { tokenizer: rougeWords };
  return {
    rouge1: jsRouge.n(text, reference, { ...options, n: 1 }),
    rouge2: jsRouge.n(text, reference, { ...options, n: 2 }),
    // The whole text as one sentence: rouge_score's rougeL, not its rougeLsum.
    rougeL: jsRouge.l(text, reference, { ...options, segmenter: (whole) => [whole] }),
  };
}

/** True if both texts are the same but for blanks at the ends. */
export function exactMatch(text: string, reference: string): boolean {
  return text.trim() === reference.trim();
}

/**
 * Mean scores of generated texts.
 * @throws RangeError if there is no pair
 */
export function textQuality(pairs: readonly TextPair[]): TextQuality {
  if (pairs.length === 0) throw new RangeError('pairs: expected at least one text, received none');
  const scores = pairs.map(({ text, reference }) => rouge(text, reference));
  const mean = (value: (scores: RougeScores) => number) =>
    scores.reduce((sum, score) => sum + value(score), 0) / scores.length;
  return {
    samples: pairs.length,
    rouge1: mean(({ rouge1 }) => rouge1),
    rouge2: mean(({ rouge2 }) => rouge2),
    rougeL: mean(({ rougeL }) => rougeL),
    exactMatch: pairs.filter(({ text, reference }) => exactMatch(text, reference)).length / pairs.length,
    rougeLOfSamples: scores.map(({ rougeL }) => rougeL),
  };
}

/**
 * Logarithm of each target token's probability under the logits of its position.
 * @param logits [positions, vocab]; position p predicts targets[p]
 * @param targets [positions] token ids
 * @returns [positions] nats, <= 0, from a log-softmax in float64
 * @throws RangeError if the sizes do not fit, an id is outside the vocabulary, or a logit is not finite
 */
export function tokenLogProbabilities(
  logits: Float32Array,
  targets: ArrayLike<number>,
  vocab: number,
): Float64Array {
  const positions = positionsOf(logits, vocab);
  if (targets.length !== positions) {
    throw new RangeError(`targets: expected ${positions} ids, one a position, received ${targets.length}`);
  }
  return Float64Array.from({ length: positions }, (_, position) => {
    const target = targets[position]!;
    if (!Number.isInteger(target) || target < 0 || target >= vocab) {
      throw new RangeError(
        `targets: expected ids from 0 to ${vocab - 1}, received ${target} at position ${position}`,
      );
    }
    const row = rowOf(logits, position, vocab);
    return row[target]! - logSumExp(row, position);
  });
}

/**
 * Perplexity: how many tokens the model was in doubt between, on average.
 * @param logProbabilities nats, of all positions of all texts together
 * @throws RangeError if there is none
 */
export function perplexity(logProbabilities: ArrayLike<number>): number {
  if (logProbabilities.length === 0)
    throw new RangeError('log-probabilities: expected at least one, received none');
  let sum = 0;
  for (let i = 0; i < logProbabilities.length; i++) sum += logProbabilities[i]!;
  return Math.exp(-sum / logProbabilities.length);
}

/** Two sets of logits of the same positions, compared one by one. */
export interface LogitsComparison {
  /** [positions] KL divergence of the candidate from the reference, nats. */
  readonly klDivergence: Float64Array;
  /** [positions] 1 where both put the same token first. */
  readonly sameTop: Uint8Array;
}

/**
 * KL(reference || candidate) and agreement on the most likely token, at each position.
 * @param reference logits [positions, vocab]
 * @param candidate logits [positions, vocab]
 * @throws RangeError if the sizes differ or a logit is not finite
 */
export function compareLogits(
  reference: Float32Array,
  candidate: Float32Array,
  vocab: number,
): LogitsComparison {
  const positions = positionsOf(reference, vocab);
  if (candidate.length !== reference.length) {
    throw new RangeError(
      `candidate logits: expected ${reference.length} as in the reference, received ${candidate.length}`,
    );
  }
  const klDivergence = new Float64Array(positions);
  const sameTop = new Uint8Array(positions);
  for (let position = 0; position < positions; position++) {
    const expected = rowOf(reference, position, vocab);
    const found = rowOf(candidate, position, vocab);
    klDivergence[position] = divergence(expected, found, position);
    sameTop[position] = topToken(expected) === topToken(found) ? 1 : 0;
  }
  return { klDivergence, sameTop };
}

export interface Divergence {
  readonly positions: number;
  readonly klMean: number;
  readonly klP99: number;
  /** Share of positions, 0 to 1. */
  readonly sameTopToken: number;
}

/**
 * Comparisons of many texts in four numbers.
 * @throws RangeError if there is no position
 */
export function summarizeDivergence(comparisons: readonly LogitsComparison[]): Divergence {
  const divergences = comparisons.flatMap(({ klDivergence }) => [...klDivergence]);
  const positions = divergences.length;
  if (positions === 0) throw new RangeError('comparisons: expected at least one position, received none');
  const same = comparisons.reduce((sum, { sameTop }) => sum + sameTop.reduce((a, b) => a + b, 0), 0);
  return {
    positions,
    klMean: divergences.reduce((sum, value) => sum + value, 0) / positions,
    klP99: percentile(divergences, 99),
    sameTopToken: same / positions,
  };
}

/** Index of the largest logit; the first of equal ones, as argmax has it. */
export function topToken(row: Float32Array): number {
  let top = 0;
  for (let i = 1; i < row.length; i++) if (row[i]! > row[top]!) top = i;
  return top;
}

function divergence(expected: Float32Array, found: Float32Array, position: number): number {
  const expectedSum = logSumExp(expected, position);
  const foundSum = logSumExp(found, position);
  let sum = 0;
  for (let i = 0; i < expected.length; i++) {
    const logProbability = expected[i]! - expectedSum;
    sum += Math.exp(logProbability) * (logProbability - (found[i]! - foundSum));
  }
  return Math.max(0, sum); // rounding can leave -1e-17 where both are equal
}

/** log(sum(exp(row))) in float64; the largest is taken out first, so that nothing overflows. */
function logSumExp(row: Float32Array, position: number): number {
  const largest = row[topToken(row)]!;
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i]! - largest);
  if (!Number.isFinite(largest) || !Number.isFinite(sum)) {
    throw new RangeError(`logits: expected finite numbers, position ${position} holds others`);
  }
  return largest + Math.log(sum);
}

function positionsOf(logits: Float32Array, vocab: number): number {
  const positions = logits.length / vocab;
  if (!Number.isInteger(positions)) {
    throw new RangeError(
      `logits: expected [positions, ${vocab}], received ${logits.length} values, no multiple of ${vocab}`,
    );
  }
  return positions;
}

function rowOf(logits: Float32Array, position: number, vocab: number): Float32Array {
  return logits.subarray(position * vocab, (position + 1) * vocab);
}
