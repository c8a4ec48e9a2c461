// bench/bars.ts: what was measured -> each bar's figure: met, missed, or missing with the reason.
// Pure. A ratio compares medians of one run, measured in turns; a whole generation unless the bar says a token.

import { statistics } from 'response-time/results/statistics';
import type { Sizes } from './plan.js';
import { THREADS } from './plan.js';
import type { Facts, Timing } from './protocol.js';

export type Measured = readonly Timing[] | { readonly missing: string };

/** All that was measured of the models, by the measurements' ids and the contenders' ids. */
export interface Outcome {
  readonly measured: ReadonlyMap<string, Measured>;
  readonly facts: ReadonlyMap<string, Facts>;
  readonly sizes: Sizes;
}

export interface Bar {
  readonly against: string;
  readonly ours: string;
  readonly unit: 'x' | '%';
  readonly atLeast?: number;
  readonly atMost?: number;
  /** @throws Missing */
  readonly value: (outcome: Outcome) => number;
  /** The same by the token after the first, where `value` is a whole generation's. */
  readonly perToken?: (outcome: Outcome) => number;
}

export interface BarResult extends Omit<Bar, 'value' | 'perToken'> {
  readonly value: number | null;
  readonly perToken: number | null;
  readonly verdict: 'met' | 'missed' | 'missing';
  /** Why it is missing. */
  readonly reason: string | null;
}

class Missing extends Error {}

type Figure = (timing: Timing) => number;
const total: Figure = ({ totalMs }) => totalMs;
const first: Figure = ({ firstTokenMs }) => firstTokenMs;
const token: Figure = ({ totalMs, firstTokenMs, newTokens }) =>
  (totalMs - firstTokenMs) / Math.max(1, newTokens - (firstTokenMs > 0 ? 1 : 0));

/** Median of a measurement. */
export function median({ measured }: Pick<Outcome, 'measured'>, id: string, figure: Figure): number {
  const found = measured.get(id);
  if (!found) throw new Missing(`${id} was not asked for`);
  if ('missing' in found) throw new Missing(found.missing);
  return statistics(found.map(figure)).p50;
}

/** A peer's best over the numbers of threads. */
function best(outcome: Outcome, id: string, figure: Figure): number {
  return Math.min(...THREADS.map((threads) => median(outcome, `${id}/${threads}`, figure)));
}

function bandwidth(outcome: Outcome, model: string): number {
  return median(outcome, `${model}/bandwidth/2`, ({ gigabytesPerSecond = 0 }) => gigabytesPerSecond);
}

function factsOf({ facts }: Outcome, contender: string): Required<Facts> {
  const found = facts.get(contender);
  if (found?.weightBytes === undefined) throw new Missing(`${contender} did not run`);
  return found as Required<Facts>;
}

/** How many times as fast `ours` is as one other measurement, or as the best of a peer's. */
function faster(ours: string, other: string, ofBest: boolean) {
  const by = (figure: Figure) => (outcome: Outcome) =>
    (ofBest ? best(outcome, other, figure) : median(outcome, other, figure)) / median(outcome, ours, figure);
  return { value: by(total), perToken: by(token) };
}

/** (weights + cache of the middle token) / read bandwidth, of the time that a token took. */
function shareOfLimit(contender: string) {
  return (outcome: Outcome): number => {
    const { weightBytes, cacheBytesPerToken } = factsOf(outcome, contender);
    const { promptTokens, newTokens } = outcome.sizes;
    const bytes = weightBytes + cacheBytesPerToken * (promptTokens + newTokens / 2);
    const limitMs = bytes / 1e6 / bandwidth(outcome, contender.split('/')[0]!);
    return (100 * limitMs) / median(outcome, contender, token);
  };
}

/** Added time a token between the two depths, by the time of reading the added cache. */
function costOfDepth(contender: string) {
  return (outcome: Outcome): number => {
    const [near, far] = outcome.sizes.depths;
    const addedMs =
      median(outcome, `${contender}/depth${far}`, token) -
      median(outcome, `${contender}/depth${near}`, token);
    const addedBytes = factsOf(outcome, contender).cacheBytesPerToken * (far - near);
    return addedMs / (addedBytes / 1e6 / bandwidth(outcome, contender.split('/')[0]!));
  };
}

function gainOfBatch(contender: string) {
  return (outcome: Outcome): number =>
    median(outcome, `${contender}/batch1`, token) / median(outcome, `${contender}/batch4`, token);
}

const [F32, INT8, INT4] = ['gpt2/f32/2', 'gpt2/int8/2', 'gpt2/int4/2'] as const;
const EAGER = 'gpt2/eager-f32';

/** The bars that the project set itself, in the order of the table. */
export const BARS: readonly Bar[] = [
  against('tfjs eager, uncached', 'INT8', 120, faster(INT8, `${EAGER}/uncached`, false)),
  against(
    'tfjs eager, uncached, short run',
    'INT8',
    20,
    faster(`${INT8}/short`, `${EAGER}/uncached-short`, false),
  ),
  against('tfjs eager, cached', 'INT8', 3.2, faster(INT8, EAGER, false)),
  against('tfjs eager, cached', 'f32', 1.1, faster(F32, EAGER, false)),
  against('PyTorch fp32 generate()', 'INT8', 5, faster(INT8, 'gpt2/pytorch-generate', true)),
  against('PyTorch fp32 generate()', 'f32', 1.6, faster(F32, 'gpt2/pytorch-generate', true)),
  against(
    'PyTorch fp32 generate(), SmolLM2',
    'INT8',
    6,
    faster('smollm2/int8/2', 'smollm2/pytorch-generate', true),
  ),
  against('PyTorch dynamic INT8', 'INT8', 1.3, faster(INT8, 'gpt2/pytorch-int8', true)),
  against('node-llama-cpp Q8_0', 'INT8', 1, faster(INT8, 'gpt2/llama-Q8_0', true)),
  against('node-llama-cpp Q4_0', 'INT4', 1.1, faster(INT4, 'gpt2/llama-Q4_0', true)),
  against(
    'transformers.js q8, SmolLM2',
    'INT8',
    1.7,
    faster('smollm2/int8/2', 'smollm2/transformers.js-q8', true),
  ),
  { against: 'limit of the read bandwidth', ours: 'INT8', unit: '%', atLeast: 65, value: shareOfLimit(INT8) },
  { against: 'limit of the read bandwidth', ours: 'f32', unit: '%', atLeast: 85, value: shareOfLimit(F32) },
  atMost('first token: node-llama-cpp Q8_0', 'INT8', 1.8, (outcome) => {
    return median(outcome, INT8, first) / best(outcome, 'gpt2/llama-Q8_0', first);
  }),
  atMost('first token: PyTorch fp32', 'f32', 2.2, (outcome) => {
    return median(outcome, F32, first) / best(outcome, 'gpt2/pytorch-generate', first);
  }),
  atMost('reading the added cache, by depth', 'f32', 1.3, costOfDepth(F32)),
  atMost('reading the added cache, by depth', 'INT8', 1.3, costOfDepth(INT8)),
  { against: 'batch 1: tokens/s of batch 4', ours: 'f32', unit: 'x', atLeast: 2.2, value: gainOfBatch(F32) },
];

function against(
  name: string,
  ours: string,
  atLeast: number,
  ratios: Required<Pick<Bar, 'value' | 'perToken'>>,
): Bar {
  return { against: name, ours, unit: 'x', atLeast, ...ratios };
}

function atMost(name: string, ours: string, bound: number, value: Bar['value']): Bar {
  return { against: name, ours, unit: 'x', atMost: bound, value };
}

/** Judges all bars. */
export function judge(outcome: Outcome, bars: readonly Bar[] = BARS): BarResult[] {
  return bars.map(({ value, perToken, ...bar }) => {
    try {
      const found = value(outcome);
      const isMet = found >= (bar.atLeast ?? Number.NEGATIVE_INFINITY) && found <= (bar.atMost ?? Infinity);
      const verdict = isMet ? 'met' : 'missed';
      return { ...bar, value: found, perToken: perToken?.(outcome) ?? null, verdict, reason: null };
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
      return { ...bar, value: null, perToken: null, verdict: 'missing', reason: error.message };
    }
  });
}

/** A line of the table of all that was measured. */
export interface FigureLine {
  readonly id: string;
  readonly missing?: string;
  readonly totalMs?: number;
  readonly firstTokenMs?: number;
  readonly tokenMs?: number;
  readonly gigabytesPerSecond?: number;
  readonly newTokens?: number;
  readonly runs?: number;
  /** That ran, run by run where they differ: the target falls back to one when a core is busy. */
  readonly threads?: string;
}

/** The lines of all that was measured, and of all that was not. */
export function figures({ measured }: Outcome): FigureLine[] {
  return [...measured].map(([id, found]) => {
    if ('missing' in found) return { id, missing: found.missing };
    const of = (figure: Figure): number => median({ measured }, id, figure);
    const speed = found[0]!.gigabytesPerSecond;
    if (speed !== undefined) {
      return { id, runs: found.length, gigabytesPerSecond: of((timing) => timing.gigabytesPerSecond ?? 0) };
    }
    const { newTokens } = found[0]!;
    const threads = [...new Set(found.map((timing) => timing.threads ?? 1))].join(' and ');
    const times = { totalMs: of(total), firstTokenMs: of(first), tokenMs: of(token) };
    return { id, runs: found.length, threads, newTokens, ...times };
  });
}
