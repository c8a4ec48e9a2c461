// lib/plot.ts: Run[] -> Plotly figures of speed, memory and cost, as plain data.
// Nothing is drawn here: notebook/render.ts makes pictures of them. Quality: plot/quality.ts; where time goes:
// plot/analysis.ts. Each figure's subtitle says on what it was measured and how its numbers were formed.

import { barLayout, barMarker, columnLabels, missingNote, topNote } from './plot/bars.js';
import { axis, colorOf, describeRuns, type Figure, layout, logAxis, type Missing } from './plot/look.js';
import { decimal, ratio } from './results/compare.js';
import { percentile } from './results/statistics.js';
import type { Run } from './results.js';

export interface BarOptions {
  /** Configurations to show as missing, after the Runs. */
  readonly missing?: readonly Missing[];
  /** Run that ratios are taken to, where they may be (results/compare.ts). */
  readonly baseline?: Run;
}

/**
 * Tokens per second, one bar a Run; whiskers from the 5th to the 95th percentile of its samples.
 * Runs of another machine than the first one's are hatched and say so: no ratio is formed with them.
 */
export function throughputFigure(runs: readonly Run[], { missing = [], baseline }: BarOptions = {}): Figure {
  const columns = columnLabels(runs, missing);
  const speeds = runs.map((run) => {
    const samples = run.samples.latencyMs.map((ms, i) => (1000 * run.samples.newTokens[i]!) / ms);
    const value = run.summary.tokensPerSecond;
    return {
      value,
      low: Math.min(value, percentile(samples, 5)),
      high: Math.max(value, percentile(samples, 95)),
    };
  });
  const times = runs.map((run) => {
    const speed = baseline && run !== baseline ? ratio(run, baseline) : undefined;
    // Of another session: the machine may have been in another mood.
    return speed && 'value' in speed && speed.sideBySide ? `<br>${decimal(speed.value)}x` : '';
  });
  const note = `Bars: all new tokens by all time${baseline ? `, and how many times ${baseline.label}` : ''}. Whiskers: 5th to 95th percentile of the samples.`;
  return {
    data: [
      {
        type: 'bar',
        x: columns.slice(0, runs.length),
        y: speeds.map(({ value }) => value),
        marker: barMarker(runs),
        error_y: {
          type: 'data',
          symmetric: false,
          array: speeds.map(({ value, high }) => high - value),
          arrayminus: speeds.map(({ value, low }) => value - low),
          color: '#444444',
          thickness: 1,
          width: 5,
        },
        hovertemplate: '%{x}: %{y:.3g} tokens/s<extra></extra>',
        showlegend: false,
      },
    ],
    layout: barLayout('Tokens per second', `${note} ${describeRuns(runs)}`, 'tokens per second', columns, {
      top: Math.max(1, ...speeds.map(({ high }) => high)),
      annotations: [
        ...speeds.map(({ value, high }, i) =>
          topNote(columns[i]!, high, `<b>${decimal(value)}</b>${times[i]}`),
        ),
        ...missing.map((entry, i) => missingNote(entry, columns[runs.length + i]!)),
      ],
    }),
  };
}

const MEMORY_PARTS = [
  { key: 'weightBytes', name: 'weights', color: '#0072B2' },
  { key: 'cacheBytes', name: 'key/value cache', color: '#E69F00' },
  { key: 'arenaBytes', name: 'arena (planned buffers)', color: '#009E73' },
  { key: 'gpuBytes', name: 'GPU buffers', color: '#CC79A7' },
] as const;

/**
 * Bytes that the configuration itself needs, stacked; the process's resident size apart, as a mark, since it
 * contains the parts and everything else.
 */
export function memoryFigure(runs: readonly Run[], { missing = [] }: BarOptions = {}): Figure {
  const columns = columnLabels(runs, missing);
  const x = columns.slice(0, runs.length);
  const largest = Math.max(...runs.map((run) => Math.max(totalBytes(run), run.memory.peakRssBytes ?? 0)));
  const unit = largest >= 4e9 ? { name: 'GB', bytes: 1e9 } : { name: 'MB', bytes: 1e6 };
  const parts = MEMORY_PARTS.filter(({ key }) => runs.some((run) => run.memory[key]));
  const resident = runs.map((run) => run.memory.peakRssBytes && run.memory.peakRssBytes / unit.bytes);
  return {
    data: [
      ...parts.map(({ key, name, color }) => ({
        type: 'bar',
        name,
        x,
        y: runs.map((run) => (run.memory[key] ?? 0) / unit.bytes),
        marker: { color },
        hovertemplate: `%{x}, ${name}: %{y:.4g} ${unit.name}<extra></extra>`,
      })),
      ...(resident.some((value) => value)
        ? [
            {
              type: 'scatter',
              mode: 'markers',
              name: 'whole process (peak resident size)',
              x,
              y: resident.map((value) => value ?? null),
              marker: { symbol: 'diamond-open', size: 11, color: '#333333', line: { width: 2 } },
              hovertemplate: `%{x}, whole process: %{y:.4g} ${unit.name}<extra></extra>`,
            },
          ]
        : []),
    ],
    layout: barLayout('Memory', `Number: sum of the parts. ${describeRuns(runs)}`, unit.name, columns, {
      top: largest / unit.bytes,
      annotations: [
        ...runs.map((run, i) =>
          topNote(
            columns[i]!,
            totalBytes(run) / unit.bytes,
            `<b>${decimal(totalBytes(run) / unit.bytes)}</b>`,
          ),
        ),
        ...missing.map((entry, i) => missingNote(entry, columns[runs.length + i]!)),
      ],
      more: { barmode: 'stack' },
    }),
  };
}

/** Where on a distribution a mark is put. */
const MARKS = [
  { key: 'p50', share: 0.5, symbol: 'circle', label: 'p50', anchor: 'middle' },
  { key: 'p95', share: 0.95, symbol: 'square', label: 'p95', anchor: 'top' },
  { key: 'p99', share: 0.99, symbol: 'diamond', label: 'p99', anchor: 'bottom' },
] as const;

/** Most steps of a distribution's line: more cannot be told apart, and a notebook keeps every one. */
const MOST_STEPS = 250;

/** Values of a distribution and the share that is at most as large; of very many values, evenly chosen ones. */
function steps(ascending: readonly number[]): { values: number[]; shares: number[] } {
  const count = Math.min(ascending.length, MOST_STEPS);
  const places = Array.from({ length: count }, (_, i) => Math.ceil(((i + 1) * ascending.length) / count));
  return {
    values: places.map((place) => ascending[place - 1]!),
    shares: places.map((place) => place / ascending.length),
  };
}

/**
 * Cumulative distribution of whole requests, or of first tokens, one line a Run, with p50, p95 and p99 marked.
 * The time axis is logarithmic where the longest is over twenty times the shortest.
 */
export function latencyFigure(
  runs: readonly Run[],
  {
    of = 'latencyMs',
    missing = [],
  }: Pick<BarOptions, 'missing'> & { readonly of?: 'latencyMs' | 'firstTokenMs' } = {},
): Figure {
  const least = Math.min(...runs.map((run) => run.summary[of].min));
  const most = Math.max(...runs.map((run) => run.summary[of].max));
  const lines = runs.map((run) => {
    const { values, shares } = steps([...run.samples[of]].sort((a, b) => a - b));
    return {
      type: 'scatter',
      mode: 'lines',
      name: `${run.label}: p50 ${decimal(run.summary[of].p50)}, p95 ${decimal(run.summary[of].p95)}, p99 ${decimal(run.summary[of].p99)} ms`,
      x: [values[0], ...values],
      y: [0, ...shares],
      line: { shape: 'hv', width: 2, color: colorOf(run), dash: run.cache ? 'solid' : 'dot' },
      hovertemplate: '%{x:.4g} ms: %{y:.0%}<extra></extra>',
    };
  });
  const marks = runs.map((run) => ({
    type: 'scatter',
    mode: 'markers',
    x: MARKS.map(({ key }) => run.summary[of][key]),
    y: MARKS.map(({ share }) => share),
    marker: {
      size: 8,
      color: colorOf(run),
      symbol: MARKS.map(({ symbol }) => symbol),
      line: { width: 1, color: '#ffffff' },
    },
    showlegend: false,
    hoverinfo: 'skip',
  }));
  const what = of === 'latencyMs' ? 'Latency of a whole request' : 'Time to the first token';
  const absent = missing.map(({ label, reason }) => ` Missing: ${label} (${reason}).`).join('');
  return {
    data: [...lines, ...marks],
    layout: layout(
      what,
      `Share of samples that took at most so long.${absent} ${describeRuns(runs)}`,
      {
        xaxis:
          most > 20 * least && least > 0
            ? logAxis('milliseconds', least, most)
            : axis('milliseconds', { rangemode: 'tozero' }),
        yaxis: axis('share of samples', { tickformat: '.0%', range: [0, 1.04] }),
      },
      {
        height: 420 + 18 * Math.ceil(runs.length / 2),
        shapes: MARKS.map(({ share }) => ({
          type: 'line',
          xref: 'paper',
          x0: 0,
          x1: 1,
          y0: share,
          y1: share,
          line: { dash: 'dot', width: 1, color: '#999999' },
        })),
        annotations: MARKS.map(({ share, label, anchor }) => ({
          xref: 'paper',
          x: 1,
          xanchor: 'right',
          y: share,
          yanchor: anchor === 'middle' ? 'bottom' : anchor,
          text: label,
          showarrow: false,
          font: { size: 10, color: '#666666' },
        })),
      },
    ),
  };
}

/**
 * Dollars for a million new tokens at a stated price of the machine.
 * @param price dollars an hour, one for all or one for each Run (undefined: shown as missing), and where it is from
 */
export function costFigure(
  runs: readonly Run[],
  price: {
    readonly dollarsPerHour: number | ((run: Run) => number | undefined);
    readonly source: string;
  },
  { missing = [] }: BarOptions = {},
): Figure {
  const { dollarsPerHour } = price;
  const hourly = (run: Run) => (typeof dollarsPerHour === 'number' ? dollarsPerHour : dollarsPerHour(run));
  const priced = runs.filter((run) => hourly(run) !== undefined && run.summary.tokensPerSecond > 0);
  const absent: Missing[] = [
    ...runs.filter((run) => !priced.includes(run)).map(({ label }) => ({ label, reason: 'no price given' })),
    ...missing,
  ];
  const columns = columnLabels(priced, absent);
  const dollars = priced.map((run) => costPerMillionTokens(run.summary.tokensPerSecond, hourly(run)!));
  const prices = [...new Set(priced.map((run) => `$${hourly(run)} an hour`))].join(' / ');
  return {
    data: [
      {
        type: 'bar',
        x: columns.slice(0, priced.length),
        y: dollars,
        marker: barMarker(priced),
        hovertemplate: '%{x}: $%{y:.4g}<extra></extra>',
        showlegend: false,
      },
    ],
    layout: barLayout(
      'Cost of a million new tokens',
      `At ${prices || 'no price'} (${price.source}), one request at a time. ${describeRuns(priced)}`,
      'US dollars',
      columns,
      {
        top: Math.max(1e-9, ...dollars),
        annotations: [
          ...dollars.map((value, i) => topNote(columns[i]!, value, `<b>$${decimal(value)}</b>`)),
          ...absent.map((entry, i) => missingNote(entry, columns[priced.length + i]!)),
        ],
      },
    ),
  };
}

/** Dollars for a million tokens from a speed and an hourly price. */
export function costPerMillionTokens(tokensPerSecond: number, dollarsPerHour: number): number {
  return ((dollarsPerHour / 3600) * 1e6) / tokensPerSecond;
}

function totalBytes({ memory }: Run): number {
  return MEMORY_PARTS.reduce((sum, { key }) => sum + (memory[key] ?? 0), 0);
}
