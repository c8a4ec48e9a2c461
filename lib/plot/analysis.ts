// lib/plot/analysis.ts: where the time went: step by step, and against what the hardware could do.
// Steps or kernels -> Plotly figures, as plain data. Source of the roofline: Williams et al. 2009, CACM 52(4).

import { decimal } from '../results/compare.js';
import { topNote } from './bars.js';
import { axis, type Figure, layout, logAxis, symbolOf, tickLabel } from './look.js';

/** A state of the program: its value after the step. */
export interface Step {
  readonly label: string;
  readonly value: number;
}

/**
 * What each step took off, from the first state to the last.
 * @param steps at least two, in the order taken; values are states, not differences
 * @param unit such as 'ms per token'
 * @throws RangeError for fewer than two steps
 */
export function waterfallFigure(steps: readonly Step[], unit: string, subtitle: string): Figure {
  if (steps.length < 2) throw new RangeError(`steps: expected two or more, received ${steps.length}`);
  const [first, last] = [steps[0]!, steps.at(-1)!];
  const labels = [...steps.map(({ label }) => label), 'now'].map((label) =>
    tickLabel(label, steps.length + 1),
  );
  const changes = steps.map(({ value }, i) => (i === 0 ? value : value - steps[i - 1]!.value));
  const signed = (value: number) => `${value > 0 ? '+' : '−'}${decimal(Math.abs(value))}`;
  const notes = [
    ...changes.map((change, i) => (i === 0 ? decimal(change) : signed(change))),
    decimal(last.value),
  ];
  // Above the higher end of each bar: Plotly's own labels hang below a falling one and run into the axis.
  const tops = [...steps.map(({ value }, i) => Math.max(value, steps[i - 1]?.value ?? 0)), last.value];
  const largest = Math.max(...steps.map(({ value }) => value));
  return {
    data: [
      {
        type: 'waterfall',
        x: labels,
        measure: [...steps.map((_, i) => (i === 0 ? 'absolute' : 'relative')), 'total'],
        y: [...changes, last.value],
        text: notes,
        textposition: 'none',
        connector: { line: { color: '#999999', width: 1 } },
        increasing: { marker: { color: '#D55E00' } },
        decreasing: { marker: { color: '#009E73' } },
        totals: { marker: { color: '#0072B2' } },
        hovertemplate: '%{x}: %{text}<extra></extra>',
        showlegend: false,
      },
    ],
    layout: layout(
      'What each step takes off',
      `${subtitle} ${first.label}: ${decimal(first.value)}, now ${decimal(last.value)} ${unit}.`,
      {
        xaxis: axis('', { type: 'category', showgrid: false }),
        yaxis: axis(unit, { range: [0, largest * 1.15] }),
      },
      { annotations: notes.map((note, i) => topNote(labels[i]!, tops[i]!, note)) },
    ),
  };
}

/** What the hardware can do, measured or stated. */
export interface Roof {
  readonly label: string;
  readonly peakGflops: number;
  readonly bandwidthGBps: number;
}

/** A measured kernel or a whole program. */
export interface RooflinePoint {
  readonly label: string;
  readonly flops: number;
  /** Read and written, by the algorithm: not what caches saved. */
  readonly bytes: number;
  readonly ms: number;
}

const POINTS = ['#D55E00', '#0072B2', '#009E73', '#E69F00', '#CC79A7', '#56B4E9'];

/** Speed against arithmetic intensity, under the roof of memory bandwidth and arithmetic. Both axes logarithmic. */
export function rooflineFigure(
  roofs: readonly Roof[],
  points: readonly RooflinePoint[],
  subtitle: string,
): Figure {
  const intensities = points.map(({ flops, bytes }) => flops / bytes);
  const speeds = points.map(({ flops, ms }) => flops / ms / 1e6); // GFLOP/s
  const ridges = roofs.map(({ peakGflops, bandwidthGBps }) => peakGflops / bandwidthGBps);
  const low = Math.min(...intensities, ...ridges) / 5;
  const high = Math.max(...intensities, ...ridges) * 10;
  const shades = ['#444444', '#999999', '#c4a000'];
  return {
    data: [
      ...roofs.map(({ label, peakGflops, bandwidthGBps }, i) => ({
        type: 'scatter',
        mode: 'lines',
        name: `${label}: ${decimal(peakGflops)} GFLOP/s, ${decimal(bandwidthGBps)} GB/s`,
        x: [low, ridges[i], high],
        y: [low * bandwidthGBps, peakGflops, peakGflops],
        line: { color: shades[i % shades.length], width: 2 },
        hoverinfo: 'skip',
      })),
      // A trace a point: names in the legend cannot cover each other, as labels at the points would.
      ...points.map(({ label }, i) => ({
        type: 'scatter',
        mode: 'markers',
        name: `${label}: ${decimal(speeds[i]!)} GFLOP/s`,
        x: [intensities[i]],
        y: [speeds[i]],
        marker: {
          size: 11,
          symbol: symbolOf(i),
          color: POINTS[i % POINTS.length],
          line: { width: 1, color: '#444444' },
        },
        hovertemplate: `${label}: %{x:.3g} FLOP/byte, %{y:.4g} GFLOP/s<extra></extra>`,
      })),
    ],
    layout: layout(
      'Roofline',
      subtitle,
      {
        xaxis: logAxis('arithmetic intensity, FLOP per byte', low, high, {
          range: [Math.log10(low), Math.log10(high)],
        }),
        yaxis: logAxis(
          'GFLOP/s',
          Math.min(...speeds, ...roofs.map((roof) => low * roof.bandwidthGBps)),
          Math.max(...speeds, ...roofs.map((roof) => roof.peakGflops)),
        ),
      },
      { height: 440 + 18 * Math.ceil((roofs.length + points.length) / 2) },
    ),
  };
}
