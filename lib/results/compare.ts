// lib/results/compare.ts: Runs beside each other: ratios where they mean something, tables always.
// Run, Run -> a ratio, or the reason why there is none; Run[] -> lines of text.

import type { Run } from '../results.js';
import { statistics } from './statistics.js';

/** A ratio, or why it may not be taken. */
export type Ratio = { readonly value: number; readonly sideBySide: boolean } | { readonly missing: string };

/**
 * Why two Runs may not be divided by each other, or undefined if they may: one machine, one model, one piece of work.
 */
export function incomparable(a: Run, b: Run): string | undefined {
  const machine = (['id', 'cpu', 'cores', 'memoryBytes', 'os'] as const).find(
    (key) => a.machine[key] !== b.machine[key],
  );
  if (machine) {
    return `measured on two machines (${machine} ${a.machine[machine]} and ${b.machine[machine]})`;
  }
  if (a.model.name !== b.model.name) return `two models (${a.model.name} and ${b.model.name})`;
  for (const key of ['promptTokens', 'newTokens'] as const) {
    if (a[key] !== b[key]) return `different work (${key} ${a[key]} and ${b[key]})`;
  }
  return undefined;
}

export function comparable(a: Run, b: Run): boolean {
  return incomparable(a, b) === undefined;
}

/**
 * How many times as large a figure is in `run` as in `baseline`.
 * @param figure by default tokens per second, so that 2 means twice as fast
 * @returns missing with the reason when the two may not be compared, or the baseline's figure is absent or 0;
 *   sideBySide tells whether both were measured alternately in one go
 */
export function ratio(
  run: Run,
  baseline: Run,
  figure: (run: Run) => number | undefined = tokensPerSecond,
): Ratio {
  const reason = incomparable(run, baseline);
  if (reason) return { missing: reason };
  const [above, below] = [figure(run), figure(baseline)];
  if (above === undefined || !below) return { missing: 'not measured in both' };
  return { value: above / below, sideBySide: run.session === baseline.session };
}

export function tokensPerSecond(run: Run): number {
  return run.summary.tokensPerSecond;
}

/**
 * Tokens a second after the first one, of all texts of the batch together: the median over the samples.
 * @returns NaN where the samples have one token only
 */
export function decodeTokensPerSecond({ samples, batch }: Pick<Run, 'samples' | 'batch'>): number {
  const speeds = samples.latencyMs.map(
    (latencyMs, i) => (1000 * (samples.newTokens[i]! - batch)) / (latencyMs - samples.firstTokenMs[i]!),
  );
  return statistics(speeds).p50;
}

/** What makes two Runs the same configuration, measured twice or on two machines. */
export function configurationKey(run: Run): string {
  const { model, weights, target, backend, mode, cache, promptTokens, newTokens, batch } = run;
  return [model.name, weights, target, backend, mode, cache, promptTokens, newTokens, batch].join(' | ');
}

const COLUMNS: readonly (readonly [title: string, value: (run: Run) => string])[] = [
  ['configuration', (run) => run.label],
  ['model', (run) => run.model.name + (run.model.randomWeights ? ' (random weights)' : '')],
  ['weights', (run) => run.weights],
  ['runs on', (run) => (run.target === 'eager' ? `tfjs ${run.backend}` : `${run.target}, ${run.mode}`)],
  ['cache', (run) => (run.cache ? 'yes' : 'no')],
  ['tokens', (run) => `${run.promptTokens}+${run.newTokens}`],
  ['samples', (run) => String(run.samples.latencyMs.length)],
  ['tok/s', (run) => decimal(run.summary.tokensPerSecond)],
  ['first ms', (run) => decimal(run.summary.firstTokenMs.p50)],
  ['p50 ms', (run) => decimal(run.summary.latencyMs.p50)],
  ['p95 ms', (run) => decimal(run.summary.latencyMs.p95)],
  ['p99 ms', (run) => decimal(run.summary.latencyMs.p99)],
  ['weights MB', (run) => decimal(run.memory.weightBytes / 1e6)],
  ['RSS MB', (run) => (run.memory.peakRssBytes ? decimal(run.memory.peakRssBytes / 1e6) : '-')],
  ['ROUGE-L', (run) => run.quality?.rougeL?.toFixed(3) ?? '-'],
];

/**
 * All Runs as an aligned table, one a line, in the order given.
 * @returns lines joined by newlines, or a sentence when there are none
 */
export function formatRuns(runs: readonly Run[]): string {
  if (runs.length === 0) return 'No results yet: npm start, or npx response-time benchmark, makes some.';
  return alignColumns([
    COLUMNS.map(([title]) => title),
    ...runs.map((run) => COLUMNS.map(([, value]) => value(run))),
  ]);
}

/**
 * Your Runs beside the committed ones of the same configuration; the newest of each counts.
 * A ratio is given only where both come from one machine.
 */
export function formatComparison(mine: readonly Run[], committed: readonly Run[]): string {
  const reference = new Map(committed.map((run) => [configurationKey(run), run]));
  const newest = new Map(mine.map((run) => [configurationKey(run), run]));
  const rows = [...newest].flatMap(([key, run]) => {
    const other = reference.get(key);
    if (!other) return [];
    const speed = ratio(run, other);
    const cell = 'value' in speed ? `${speed.value.toFixed(2)}x` : `- ${speed.missing}`;
    return [
      [run.label, run.model.name, decimal(tokensPerSecond(run)), decimal(tokensPerSecond(other)), cell],
    ];
  });
  if (rows.length === 0) return 'None of your runs has a committed one of the same configuration.';
  return alignColumns([['configuration', 'model', 'your tok/s', 'committed tok/s', 'ratio'], ...rows]);
}

/** Pads the cells of each column to one width; numbers end together, words begin together. */
export function alignColumns(rows: readonly (readonly string[])[]): string {
  const [header = [], ...body] = rows;
  const columns = header.map((_, i) => ({
    width: Math.max(...rows.map((row) => row[i]!.length)),
    numeric: body.length > 0 && body.every((row) => /^[-\d.+x]+$/.test(row[i]!)),
  }));
  return rows
    .map((row) =>
      row
        .map((cell, i) =>
          columns[i]!.numeric ? cell.padStart(columns[i]!.width) : cell.padEnd(columns[i]!.width),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Three digits that count: 0.123, 1.23, 12.3, 123. */
export function decimal(value: number): string {
  const digits = value === 0 ? 0 : Math.min(3, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return value.toFixed(digits);
}
