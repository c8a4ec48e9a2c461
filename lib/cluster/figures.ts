// lib/cluster/figures.ts: merged runs -> the figures that may be published: numbers and no text of the dataset.
// One plan says how good the texts are, this or others how fast they came: shards that share a machine can judge texts
// in any number, but slow each other.

import { readFile } from 'node:fs/promises';
import { basename, isAbsolute } from 'node:path';
import { exactMatch, rouge } from '../quality.js';
import { alignColumns, formatRuns } from '../results/compare.js';
import { count, list, moment, number, object, oneOf, optional, orNull, text } from '../results/validate.js';
import { checkRun, type Run, summarize } from '../results.js';
import { type AnswerFigures, type Merged, mergedRuns, summarizeJudged } from './merge.js';
import type { ClusterPlan } from './plan.js';

export const FIGURES_VERSION = 1;

export interface Evaluation {
  readonly kind: 'evaluation';
  readonly schemaVersion: typeof FIGURES_VERSION;
  readonly createdAt: string;
  readonly model: string;
  readonly dataset: string;
  readonly samples: number;
  readonly newTokens: number;
  /** Configuration whose texts and weights the others are compared with. */
  readonly reference: string;
  /** Most tokens of a reference answer that perplexity and divergence are of; null: all. */
  readonly answerTokens: number | null;
  readonly texts: readonly TextFigures[];
  /** Speed and memory, without the times of single tokens. */
  readonly runs: readonly Run[];
}

/** How good a configuration's texts are, over all samples, on whatever machine they were written. */
export interface TextFigures {
  readonly label: string;
  readonly weights: string;
  readonly weightBytes: number;
  /** Against the reference answers, means of 0 to 1. */
  readonly toAnswers: TextScores;
  /** Against the reference configuration's texts. */
  readonly toReference: TextScores;
  /** Of the reference answers under these weights; null where they are another configuration's on the same target. */
  readonly answers: AnswerFigures | null;
  /** By sample, for figures by prompt length. */
  readonly promptTokens: readonly number[];
  readonly rougeLToAnswers: readonly number[];
  readonly rougeLToReference: readonly number[];
}

export interface TextScores {
  readonly rouge1: number;
  readonly rouge2: number;
  readonly rougeL: number;
  readonly exactMatch: number;
}

/** A plan and all that its shards measured. */
export interface MergedPlan {
  readonly plan: ClusterPlan;
  readonly merged: Merged;
}

/**
 * The figures of an evaluation.
 * @param texts a complete run whose plan has a reference
 * @param speeds complete runs of the same model, dataset and length; their Runs are kept
 * @throws RangeError if something is missing, or the runs are not of the same work
 */
export function evaluationFigures(texts: MergedPlan, speeds: readonly MergedPlan[]): Evaluation {
  const { plan, merged } = texts;
  const { reference, model, dataset, newTokens, samples } = plan;
  if (reference === null)
    throw new RangeError('plan: expected one with a reference to compare with, received none');
  for (const { plan: other } of speeds) checkSameWork(plan, other);
  if (merged.missing.length > 0)
    throw new RangeError(`plan: expected a complete run; ${merged.missing.join('; ')}`);
  return {
    kind: 'evaluation',
    schemaVersion: FIGURES_VERSION,
    createdAt: new Date().toISOString(),
    model: model.name,
    ...{ dataset, samples: samples.length, newTokens, reference, answerTokens: plan.answerTokens },
    texts: plan.configurations.map((label) => textFigures(texts, label, reference)),
    runs: speeds.flatMap((speed) => mergedRuns(speed.plan, speed.merged)).map(published),
  };
}

/** The samples of one may be fewer than the other's, from the first on. */
function checkSameWork(plan: ClusterPlan, other: ClusterPlan): void {
  const work = ({ model, dataset, newTokens, samples }: ClusterPlan, least: number) =>
    JSON.stringify([model.digest, dataset, newTokens, samples.slice(0, least).map(({ keys }) => keys[0])]);
  const least = Math.min(plan.samples.length, other.samples.length);
  if (work(plan, least) !== work(other, least)) {
    throw new RangeError(
      `speed: expected runs of ${plan.model.name}, ${plan.dataset}, ${plan.newTokens} new tokens, ` +
        `received one of ${other.model.name}, ${other.dataset}, ${other.newTokens}, or with other samples`,
    );
  }
}

function textFigures({ plan, merged }: MergedPlan, label: string, reference: string): TextFigures {
  const of = (name: string) =>
    merged.samples.filter((sample) => sample.label === name).slice(0, plan.samples.length);
  const [mine, theirs] = [of(label), of(reference)];
  const toAnswers = mine.map(({ value, sample }) => scores(value.text, plan.samples[sample]!.output));
  const toReference = mine.map(({ value }, i) => scores(value.text, theirs[i]!.value.text ?? ''));
  const judged = merged.judged.get(label);
  return {
    label,
    weights: mine[0]!.facts.weights,
    weightBytes: mine[0]!.facts.memory.weightBytes,
    toAnswers: meanScores(toAnswers),
    toReference: meanScores(toReference),
    answers: judged ? summarizeJudged(judged) : null,
    promptTokens: mine.map(({ value }) => value.promptTokens),
    rougeLToAnswers: toAnswers.map(({ rougeL }) => rounded(rougeL)),
    rougeLToReference: toReference.map(({ rougeL }) => rounded(rougeL)),
  };
}

function scores(generated: string | null, expected: string): TextScores {
  if (generated === null) throw new RangeError('texts: expected a model with a tokenizer, received none');
  // ROUGE gives 0 where neither side has a word, such as in a row of emoji; equal texts are equal.
  if (exactMatch(generated, expected)) return { rouge1: 1, rouge2: 1, rougeL: 1, exactMatch: 1 };
  return { ...rouge(generated, expected), exactMatch: 0 };
}

function meanScores(all: readonly TextScores[]): TextScores {
  const mean = (key: keyof TextScores) => all.reduce((sum, score) => sum + score[key], 0) / all.length;
  return {
    rouge1: mean('rouge1'),
    rouge2: mean('rouge2'),
    rougeL: mean('rougeL'),
    exactMatch: mean('exactMatch'),
  };
}

/**
 * Times to the microsecond; without those of single tokens, which would be most of the file, and without the place of
 * the model's folder on the machine that measured.
 */
function published(run: Run): Run {
  const { perTokenMs: _, ...samples } = run.samples;
  const kept = {
    ...samples,
    latencyMs: samples.latencyMs.map(rounded),
    firstTokenMs: samples.firstTokenMs.map(rounded),
    ...(samples.rougeL && { rougeL: samples.rougeL.map(rounded) }),
  };
  const { source } = run.model;
  const model = { ...run.model, source: isAbsolute(source) ? basename(source) : source };
  return { ...run, model, samples: kept, summary: summarize(kept) };
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** The texts' figures as a table, then the Runs'. */
export function formatEvaluation({ texts, runs }: Evaluation): string {
  const head = [
    'configuration',
    'ROUGE-L to answers',
    'to reference',
    'equal texts',
    'perplexity',
    'KL mean',
    'KL p99',
    'same top',
  ];
  const rows = texts.map(({ label, toAnswers, toReference, answers }) => [
    label,
    ...[toAnswers.rougeL, toReference.rougeL, toReference.exactMatch].map((value) => value.toFixed(4)),
    answers?.perplexity.toFixed(4) ?? '-',
    ...[answers?.klMean, answers?.klP99].map((value) => value?.toExponential(2) ?? '-'),
    answers?.sameTopToken?.toFixed(4) ?? '-',
  ]);
  return `${alignColumns([head, ...rows])}\n\n${formatRuns(runs)}`;
}

const share = number(0, 1);
const checkScores = object<TextScores>({ rouge1: share, rouge2: share, rougeL: share, exactMatch: share });
const checkFields = object<Evaluation>({
  kind: oneOf('evaluation'),
  schemaVersion: oneOf(FIGURES_VERSION),
  createdAt: moment,
  model: text,
  dataset: text,
  samples: count(1),
  newTokens: count(1),
  reference: text,
  answerTokens: orNull(count(1)),
  texts: list(
    object<TextFigures>({
      label: text,
      weights: text,
      weightBytes: count(1),
      toAnswers: checkScores,
      toReference: checkScores,
      answers: orNull(
        object<AnswerFigures>({
          perplexity: number(1),
          klMean: optional(number(0)),
          klP99: optional(number(0)),
          sameTopToken: optional(share),
        }),
      ),
      promptTokens: list(count(1)),
      rougeLToAnswers: list(share),
      rougeLToReference: list(share),
    }),
  ),
  runs: list((value, path) => checkRun(value, path)),
});

/**
 * Reads the figures of an evaluation.
 * @returns undefined if there is no such file
 * @throws Error naming the file and what does not fit
 */
export async function readEvaluation(file: string): Promise<Evaluation | undefined> {
  const content = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (content === undefined) return undefined;
  try {
    return checkFields(JSON.parse(content), '');
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}
