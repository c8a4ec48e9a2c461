// lib/plot/quality.ts: what quantization costs: ROUGE by prompt length, quality against size, error by layer.
// Runs, points or layer errors -> Plotly figures, as plain data.

import { decimal } from '../results/compare.js';
import type { Quality, Run } from '../results.js';
import {
  axis,
  describeRuns,
  type Figure,
  GREY,
  layout,
  logAxis,
  type Missing,
  schemeColor,
  symbolOf,
  wrap,
} from './look.js';

/** Upper ends of the bins of prompt lengths, tokens; longer prompts share the last bin. */
const LENGTHS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, Number.POSITIVE_INFINITY];

/** From poor to good, light throughout, so that the numbers in the cells stay readable. */
const LIGHT_SCALE = [
  [0, '#f2a07b'],
  [0.5, '#fbe8d0'],
  [1, '#8ecae6'],
];

/** Scores of one configuration, sample by sample. */
export interface ScoredTexts {
  readonly label: string;
  readonly promptTokens: readonly number[];
  /** 0 to 1. */
  readonly rougeL: readonly number[];
}

/**
 * Mean ROUGE-L of the samples by configuration and prompt length. Cells without samples stay empty; configurations
 * without scores, or named as missing, have an empty row that says so.
 */
export function rougeHeatmap(runs: readonly Run[], missing: readonly Missing[] = []): Figure {
  const scored = runs.flatMap(({ label, samples: { promptTokens, rougeL } }) =>
    rougeL ? [{ label, promptTokens, rougeL }] : [],
  );
  const absent = [
    ...runs.filter((run) => !run.samples.rougeL).map(({ label }) => ({ label, reason: 'not scored' })),
    ...missing,
  ];
  const against =
    [...new Set(runs.flatMap((run) => run.quality?.against ?? []))].join(' / ') || 'the reference';
  return rougeByLengthFigure(scored, `against ${against}; n samples. ${describeRuns(runs)}`, absent);
}

/**
 * Mean ROUGE-L by configuration and prompt length, whatever the texts were compared with.
 * @param subtitle goes on after 'Mean F-measure'
 */
export function rougeByLengthFigure(
  scored: readonly ScoredTexts[],
  subtitle: string,
  absent: readonly Missing[] = [],
): Figure {
  const bins = binnedLengths(scored);
  const columns = bins.map(({ name }) => name);
  const cells = scored.map((texts) => bins.map(({ from, to }) => meanRouge(texts, from, to)));
  const means = cells.flat().flatMap((cell) => (cell ? [cell.mean] : []));
  const rows = [...scored, ...absent].map(({ label }) => wrap(label, 24).join('<br>'));
  return {
    data: [
      {
        type: 'heatmap',
        x: columns,
        y: rows,
        z: [
          ...cells.map((row) => row.map((cell) => cell?.mean ?? null)),
          ...absent.map(() => columns.map(() => null)),
        ],
        text: [
          ...cells.map((row) =>
            row.map((cell) => (cell ? `${cell.mean.toFixed(3)}<br>n = ${cell.samples}` : '')),
          ),
          ...absent.map(() => columns.map(() => '')),
        ],
        texttemplate: '%{text}',
        textfont: { size: 11, color: '#1a1a1a' },
        hovertemplate: '%{y}, %{x} tokens: %{text}<extra></extra>',
        colorscale: LIGHT_SCALE,
        zmin: Math.min(0.9, Math.floor(Math.min(...means) * 10) / 10),
        zmax: 1,
        xgap: 2,
        ygap: 2,
        colorbar: { title: { text: 'ROUGE-L', side: 'right' }, thickness: 14 },
      },
    ],
    layout: layout(
      'ROUGE-L by prompt length',
      `Mean F-measure ${subtitle}`,
      {
        xaxis: axis('tokens of the prompt', { type: 'category', showgrid: false }),
        yaxis: axis('', { type: 'category', autorange: 'reversed', showgrid: false }),
      },
      {
        height: 190 + 52 * rows.length,
        annotations: absent.map(({ reason }, i) => ({
          x: (columns.length - 1) / 2,
          y: scored.length + i,
          text: `<b>missing</b>: ${reason}`,
          showarrow: false,
          font: { size: 11, color: GREY },
        })),
      },
    ),
  };
}

interface Bin {
  readonly name: string;
  /** Tokens: more than `from`, at most `to`. */
  readonly from: number;
  readonly to: number;
}

/** The bins that some sample falls into. */
function binnedLengths(scored: readonly ScoredTexts[]): Bin[] {
  const lengths = scored.flatMap(({ promptTokens }) => promptTokens);
  return LENGTHS.flatMap((to, i) => {
    const from = LENGTHS[i - 1] ?? 0;
    if (!lengths.some((length) => length > from && length <= to)) return [];
    return [{ from, to, name: Number.isFinite(to) ? `${from + 1} to ${to}` : `over ${from}` }];
  });
}

function meanRouge(
  { promptTokens, rougeL }: ScoredTexts,
  from: number,
  to: number,
): { mean: number; samples: number } | undefined {
  const scores = rougeL.filter((_, i) => {
    const length = promptTokens[i]!;
    return length > from && length <= to;
  });
  if (scores.length === 0) return undefined;
  return { mean: scores.reduce((sum, score) => sum + score, 0) / scores.length, samples: scores.length };
}

/** A set of weights: its size and how good it is. */
export interface SizedQuality {
  readonly label: string;
  readonly weightBytes: number;
  readonly quality: number;
  /** Scheme, for the colour. */
  readonly weights: string;
}

/** Points from the Runs that have the measure; look.ts's describeRuns gives the figure's subtitle. */
export function sizedQualities(
  runs: readonly Run[],
  measure: Exclude<keyof Quality, 'samples' | 'against'>,
): SizedQuality[] {
  return runs.flatMap(({ label, memory, quality, weights }) => {
    const value = quality?.[measure];
    return value === undefined ? [] : [{ label, weightBytes: memory.weightBytes, quality: value, weights }];
  });
}

/**
 * Quality against the size of the weights: up and to the left is better, unless the measure says otherwise.
 * @param measure axis title with its direction, such as 'ROUGE-L (higher is better)'
 */
export function qualitySizeFigure(
  points: readonly SizedQuality[],
  measure: string,
  subtitle: string,
): Figure {
  const ascending = [...points].sort((a, b) => a.weightBytes - b.weightBytes);
  const largest = Math.max(...points.map(({ weightBytes }) => weightBytes)) / 1e6;
  const values = points.map(({ quality }) => quality);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(most - least, Math.abs(most) * 0.001) * 0.15;
  return {
    // A trace a point: names in the legend cannot cover each other, as labels at the points would.
    data: ascending.map(({ label, weightBytes, quality, weights }, i) => ({
      type: 'scatter',
      mode: 'markers',
      name: `${label}: ${quality.toFixed(3)}, ${decimal(weightBytes / 1e6)} MB`,
      x: [weightBytes / 1e6],
      y: [quality],
      marker: {
        size: 13,
        symbol: symbolOf(i),
        color: schemeColor(weights),
        line: { width: 1, color: '#444444' },
      },
      hovertemplate: `${label}: %{x:.4g} MB, %{y:.4g}<extra></extra>`,
    })),
    layout: layout(
      'Quality against size',
      subtitle,
      {
        xaxis: axis('weights, MB', { range: [0, largest * 1.08] }),
        yaxis: axis(measure, { range: [least - room, most + room] }),
      },
      { height: 400 + 18 * Math.ceil(points.length / 2) },
    ),
  };
}

/** Errors of one scheme, layer by layer. */
export interface LayerErrors {
  readonly label: string;
  readonly weights: string;
  readonly layers: readonly { readonly path: string; readonly error: number }[];
}

/**
 * Error of each quantized layer, one line a scheme, logarithmic; layers in the model's order.
 * @param measure axis title, such as 'relative error of the weights'
 */
export function layerErrorFigure(schemes: readonly LayerErrors[], measure: string, subtitle: string): Figure {
  const errors = schemes.flatMap(({ layers }) => layers.flatMap(({ error }) => (error > 0 ? [error] : [])));
  const paths = [...new Set(schemes.flatMap(({ layers }) => layers.map(({ path }) => path)))];
  return {
    data: schemes.map(({ label, weights, layers }, i) => ({
      type: 'scatter',
      mode: 'markers',
      name: label,
      x: layers.map(({ path }) => shortPath(path)),
      // A logarithmic axis has no place for 0: a layer that was kept has no error to show.
      y: layers.map(({ error }) => (error > 0 ? error : null)),
      marker: {
        size: 8,
        symbol: symbolOf(i),
        color: schemeColor(weights),
        line: { width: 1, color: '#555555' },
      },
      hovertemplate: '%{x}: %{y:.3g}<extra></extra>',
    })),
    layout: layout(
      'Quantization error by layer',
      subtitle,
      {
        xaxis: axis('', {
          type: 'category',
          categoryorder: 'array',
          categoryarray: paths.map(shortPath),
          tickangle: -90,
          tickfont: { size: paths.length > 60 ? 7 : paths.length > 30 ? 9 : 11 },
          dtick: Math.ceil(paths.length / 60),
        }),
        yaxis: logAxis(measure, Math.min(...errors), Math.max(...errors)),
      },
      { height: 520 },
    ),
  };
}

/** 'h.0.attn.c_attn.kernel' -> '0 attn.c_attn': the block's number first, without what all paths share. */
function shortPath(path: string): string {
  return path.replace(/\.(kernel|embedding)$/, '').replace(/^(?:model\.)?(?:h|layers)\.(\d+)\./, '$1 ');
}
