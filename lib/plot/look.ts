// lib/plot/look.ts: what all figures share: colours, titles, margins, labels that fit.
// Run, texts -> pieces of a Plotly layout. Colours: Okabe and Ito, "Color Universal Design", 2008.

import type { Run } from '../results.js';

/** A Plotly figure: plain data, drawn elsewhere. */
export interface Figure {
  readonly data: readonly Readonly<Record<string, unknown>>[];
  readonly layout: Readonly<Record<string, unknown>>;
}

/** A configuration that a reader expects and nobody measured here: shown as missing, with the reason. */
export interface Missing {
  readonly label: string;
  readonly reason: string;
}

/** Plotly's own font stack begins with it, and the renderer has its widths. */
const FONT = '"Open Sans", verdana, arial, sans-serif';
export const GREY = '#6b6b6b';
/** Characters of a subtitle's line that fit a figure 760 pixels wide. */
const SUBTITLE_CHARACTERS = 135;

const HUES: Readonly<Record<string, string>> = {
  pytorch: '#7a7a7a',
  reference: '#CC79A7',
  wasm: '#D55E00',
  webgpu: '#009E73',
  'eager cpu': '#8C6BB1',
  'eager wasm': '#0072B2',
  'eager tensorflow': '#3B9BD9',
  'eager webgpu': '#1AA6A6',
};

/**
 * Colour of a configuration, the same in every figure: the hue tells what runs it, lighter means fewer bits a
 * weight, darker means without cache.
 */
export function colorOf({
  target,
  backend,
  weights,
  cache,
}: Pick<Run, 'target' | 'backend' | 'weights' | 'cache'>): string {
  const hue = HUES[target === 'eager' ? `eager ${backend}` : target] ?? '#E69F00';
  const bits = weights.startsWith('int4') ? 4 : weights.startsWith('int8') ? 8 : 32;
  const lighter = mix(hue, '#ffffff', { 32: 0, 8: 0.3, 4: 0.55 }[bits]);
  return cache ? lighter : mix(lighter, '#000000', 0.4);
}

const SCHEME_COLORS: Readonly<Record<string, string>> = {
  stored: '#777777',
  f32: '#333333',
  f16: '#777777',
  bf16: '#777777',
  int8: '#0072B2',
  'int8-tensor': '#E69F00',
  'int8-group': '#56B4E9',
  int4: '#D55E00',
};

/** Colour of a quantization scheme, where schemes are compared and all else is equal. */
export function schemeColor(weights: string): string {
  return SCHEME_COLORS[weights] ?? '#009E73';
}

/** One sign each for the points of a figure, so that colour is never the only difference. */
export function symbolOf(i: number): string {
  const symbols = ['circle', 'diamond', 'square', 'triangle-up', 'x', 'star', 'cross', 'pentagon'];
  return symbols[i % symbols.length]!;
}

/** @param share of `other`, 0 to 1 */
function mix(color: string, other: string, share: number): string {
  const channel = (from: string, i: number) => Number.parseInt(from.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `#${[0, 1, 2]
    .map((i) => Math.round(channel(color, i) * (1 - share) + channel(other, i) * share))
    .map((value) => value.toString(16).padStart(2, '0'))
    .join('')}`;
}

/** Breaks a text between words into lines of at most `width` characters, where words allow. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** A label under a bar: as many lines as it needs, broken between words and after hyphens. */
export function tickLabel(text: string, labels: number): string {
  const lines = wrap(text.replaceAll('-', '-\0 '), labels > 6 ? 10 : labels > 4 ? 14 : 20);
  return lines.map((line) => line.replaceAll(/\0 ?/g, '')).join('<br>');
}

/**
 * What a figure's numbers belong to, for its subtitle: model and weights, work, samples, machine, date.
 * Where the Runs differ, all values are named; of numbers the range.
 * @throws RangeError if there is no Run: a figure has to say what it shows
 */
export function describeRuns(runs: readonly Run[]): string {
  if (runs.length === 0) throw new RangeError('runs: expected at least one, received none; measure first');
  const all = (value: (run: Run) => string) => [...new Set(runs.map(value))].join(' / ');
  const range = (value: (run: Run) => number) => {
    const [least, most] = [Math.min(...runs.map(value)), Math.max(...runs.map(value))];
    return least === most ? String(least) : `${least} to ${most}`;
  };
  const samples = range((run) => run.samples.latencyMs.length);
  return [
    all(({ model }) => `${model.name}${model.randomWeights ? ' (random weights)' : ''}`),
    `weights ${all(({ weights }) => weights)}`,
    `prompts of up to ${range((run) => run.promptTokens)} tokens, ${range((run) => run.newTokens)} new`,
    `${samples} ${samples === '1' ? 'sample' : 'samples'} each`,
    all(machineName),
    all((run) => run.createdAt.slice(0, 10)),
  ].join('; ');
}

export function machineName({ machine }: Run): string {
  const cores = `${machine.cores} ${machine.cores === 1 ? 'core' : 'cores'}`;
  return `${machine.gpu ? `${machine.gpu}, ` : ''}${shortCpu(machine.cpu)}, ${cores}`;
}

/** Drops from a processor's name what says nothing: (R), (TM), CPU, Processor, the clock. */
function shortCpu(cpu: string): string {
  return cpu
    .replaceAll(/\((R|TM)\)|\bCPU\b|\bProcessor\b|\d+-Core\b|@.*$/gi, '')
    .replaceAll(/ +/g, ' ')
    .trim();
}

/** One axis. Extra keys go to Plotly as they are. */
export function axis(title: string, more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    title: { text: title, standoff: 8 },
    automargin: true,
    gridcolor: '#e6e6e6',
    zerolinecolor: '#bdbdbd',
    linecolor: '#bdbdbd',
    ...more,
  };
}

/**
 * A logarithmic axis with a number at 1, 2 and 5 of each power of ten; Plotly's own labels there read as 2 and 5 alone.
 * Beyond three powers only the powers are named.
 */
export function logAxis(
  title: string,
  least: number,
  most: number,
  more: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const [low, high] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most))];
  const steps = high - low > 3 ? [1] : [1, 2, 5];
  const ticks = Array.from({ length: high - low + 1 }, (_, i) =>
    steps.map((step) => step * 10 ** (low + i)),
  ).flat();
  return axis(title, {
    type: 'log',
    tickvals: ticks,
    ticktext: ticks.map((tick) =>
      tick >= 1e6 || tick < 1e-4 ? tick.toExponential(0) : String(Number(tick.toPrecision(1))),
    ),
    ...more,
  });
}

/** The layout that all figures share. Extra keys go to Plotly as they are. */
export function layout(
  title: string,
  subtitle: string,
  axes: { readonly xaxis: object; readonly yaxis: object },
  more: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const lines = wrap(subtitle, SUBTITLE_CHARACTERS);
  return {
    title: {
      text: title,
      subtitle: { text: lines.join('<br>'), font: { size: 11, color: GREY } },
      x: 0.01,
      xanchor: 'left',
      y: 1,
      yanchor: 'top',
      yref: 'container',
      pad: { t: 12 },
      font: { size: 17 },
    },
    font: { family: FONT, size: 12, color: '#2a2a2a' },
    plot_bgcolor: '#ffffff',
    paper_bgcolor: '#ffffff',
    margin: { t: 56 + 15 * lines.length, r: 24, b: 48, l: 64 },
    // Below the figure, measured from its edge: however long the labels above it are, nothing overlaps.
    legend: {
      orientation: 'h',
      traceorder: 'normal',
      yref: 'container',
      y: 0.01,
      yanchor: 'bottom',
      x: 0,
      font: { size: 11 },
    },
    ...axes,
    ...more,
  };
}
