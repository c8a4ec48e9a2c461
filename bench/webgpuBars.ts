// bench/webgpuBars.ts: the Runs of one GPU, by their labels -> what was measured beside what it is compared with, and
// which bars are met. Pure. Whatever was not measured shows as missing.

import type { Run } from 'response-time/results';
import { decodeTokensPerSecond } from 'response-time/results/compare';
import { columns } from './table.js';

type Figure = (run: Run) => number;

const decode: Figure = decodeTokensPerSecond;
const whole: Figure = ({ summary, newTokens, batch }) => (1000 * newTokens * batch) / summary.latencyMs.p50;
const firstTokenMs: Figure = ({ summary }) => summary.firstTokenMs.p50;
const gpuGB: Figure = ({ memory }) => (memory.gpuBytes ?? Number.NaN) / 1e9;
const tokenMs: Figure = (run) => 1000 / decode(run);

interface Unit {
  readonly name: string;
  readonly figure: Figure;
  /** A ratio of 2 means twice as good: of times and bytes it is the other's by ours. */
  readonly lessIsBetter: boolean;
}

const UNITS = {
  decode: { name: 'tok/s after the first', figure: decode, lessIsBetter: false },
  whole: { name: 'tok/s of the whole request', figure: whole, lessIsBetter: false },
  first: { name: 'ms to the first token', figure: firstTokenMs, lessIsBetter: true },
  memory: { name: 'GB on the GPU', figure: gpuGB, lessIsBetter: true },
  token: { name: 'ms a token', figure: tokenMs, lessIsBetter: true },
} as const satisfies Readonly<Record<string, Unit>>;

export interface Bar {
  readonly ours: string;
  readonly against: string;
  readonly unit: keyof typeof UNITS;
  /** Of the ratio; without one the figures are only shown. */
  readonly atLeast?: number;
}

const MISTRAL = 'mistral-7b-instruct-v0.2';
const speeds = ['int8 fast', 'int8 exact', 'int4 fast', 'f16 exact'].flatMap((form): Bar[] =>
  ['f16 PyTorch', 'f16 PyTorch compile', 'f32 tfjs eager'].flatMap((peer) =>
    (['decode', 'whole'] as const).map((unit) => {
      return { ours: `${MISTRAL} ${form}`, against: `${MISTRAL} ${peer}`, unit };
    }),
  ),
);
const ofGpt2 = ['f16 PyTorch', 'f16 PyTorch compile'].flatMap((peer): Bar[] =>
  (['decode', 'whole'] as const).map((unit) => {
    return { ours: 'gpt2 f16 exact', against: `gpt2 ${peer}`, unit };
  }),
);
const firstTokens = ['', ' prompt 2048'].flatMap((prompt) =>
  ['int8 fast', 'int8 exact'].map((form): Bar => {
    return {
      ours: `${MISTRAL} ${form}${prompt}`,
      against: `${MISTRAL} f16 PyTorch${prompt}`,
      unit: 'first',
    };
  }),
);

/** All that is compared, in the table's order. */
export const BARS: readonly Bar[] = [
  ...speeds,
  ...firstTokens,
  ...['int8 fast', 'int4 fast'].map((form): Bar => {
    return { ours: `${MISTRAL} ${form}`, against: `${MISTRAL} f16 PyTorch`, unit: 'memory' };
  }),
  { ours: `${MISTRAL} int8 fast depth 8000`, against: `${MISTRAL} int8 fast depth 128`, unit: 'token' },
  { ours: `${MISTRAL} int8 fast x8`, against: `${MISTRAL} int8 fast`, unit: 'decode', atLeast: 5 },
  ...ofGpt2,
  ...(['decode', 'whole'] as const).map((unit): Bar => {
    return { ours: 'gpt2 f32 exact', against: 'gpt2 f32 tfjs eager', unit, atLeast: 10 };
  }),
  { ours: 'gpt2 f32 exact', against: 'gpt2 f32 tfjs eager uncached', unit: 'whole' },
];

export interface BarResult extends Bar {
  readonly measured: number | null;
  readonly theirs: number | null;
  readonly ratio: number | null;
  readonly verdict: 'met' | 'missed' | 'shown' | 'missing';
}

/** @param runs the newest of a label counts */
export function judge(runs: readonly Run[], bars: readonly Bar[] = BARS): BarResult[] {
  const byLabel = new Map(runs.map((run) => [run.label, run]));
  return bars.map((bar) => {
    const { figure, lessIsBetter } = UNITS[bar.unit];
    const [measured, theirs] = [bar.ours, bar.against].map((label) => {
      const run = byLabel.get(label);
      const value = run && figure(run);
      return value !== undefined && Number.isFinite(value) ? value : null;
    }) as [number | null, number | null];
    if (measured === null || theirs === null)
      return { ...bar, measured, theirs, ratio: null, verdict: 'missing' };
    const ratio = lessIsBetter ? theirs / measured : measured / theirs;
    const isMet = ratio >= (bar.atLeast ?? 0);
    return {
      ...bar,
      measured,
      theirs,
      ratio,
      verdict: bar.atLeast === undefined ? 'shown' : isMet ? 'met' : 'missed',
    };
  });
}

export function barsTable(results: readonly BarResult[]): string {
  const cell = (value: number | null, unit = ''): string =>
    value === null ? '-' : `${value.toPrecision(value >= 1000 ? 4 : 3)}${unit}`;
  const rows = results.map(({ ours, against, unit, measured, theirs, ratio, atLeast, verdict }) => [
    ...[ours, UNITS[unit].name, cell(measured), against, cell(theirs), cell(ratio, ' x')],
    ...[atLeast === undefined ? '' : `>= ${atLeast} x`, verdict],
  ]);
  const header = ['measured', 'figure', 'value', 'against', 'its value', 'times as good', 'bar', ''];
  return columns([header, ...rows]);
}
