// lib/plot/bars.ts: a bar a configuration: labels, marks for other machines, notes above bars and in missing ones.
// Runs and missing configurations -> pieces of a Plotly figure.

import type { Run } from '../results.js';
import { axis, colorOf, GREY, layout, type Missing, machineName, tickLabel, wrap } from './look.js';

/** Labels under the bars. Two Runs of one label are told apart by a number, those of another machine by its name. */
export function columnLabels(runs: readonly Run[], missing: readonly Missing[]): string[] {
  const seen = new Map<string, number>();
  const names = [
    ...runs.map((run) => (isForeign(run, runs) ? `${run.label} (on ${machineName(run)})` : run.label)),
    ...missing.map(({ label }) => label),
  ];
  return names.map((name) => {
    const times = (seen.get(name) ?? 0) + 1;
    seen.set(name, times);
    return tickLabel(times === 1 ? name : `${name} #${times}`, names.length);
  });
}

function isForeign(run: Run, runs: readonly Run[]): boolean {
  return run.machine.id !== runs[0]!.machine.id || run.machine.cpu !== runs[0]!.machine.cpu;
}

export function barMarker(runs: readonly Run[]): Record<string, unknown> {
  return {
    color: runs.map(colorOf),
    pattern: { shape: runs.map((run) => (isForeign(run, runs) ? '/' : '')), solidity: 0.25 },
  };
}

/** A number above a bar, or above its whisker. */
export function topNote(x: string, y: number, text: string): Record<string, unknown> {
  return { x, y, text, showarrow: false, yanchor: 'bottom', yshift: 3, font: { size: 11 } };
}

export function barLayout(
  title: string,
  subtitle: string,
  yTitle: string,
  columns: readonly string[],
  {
    top,
    annotations,
    more = {},
  }: {
    readonly top: number;
    readonly annotations: readonly object[];
    readonly more?: Record<string, unknown>;
  },
): Record<string, unknown> {
  return layout(
    title,
    subtitle,
    {
      // Names columns that have no bar too, so that a missing one keeps its place.
      xaxis: axis('', {
        type: 'category',
        showgrid: false,
        categoryorder: 'array',
        categoryarray: columns,
        range: [-0.6, columns.length - 0.4],
      }),
      yaxis: axis(yTitle, { range: [0, top * 1.18] }),
    },
    { annotations, bargap: 0.35, ...more },
  );
}

/** A note in the place of a bar that is not there. @param y in data units of a linear or logarithmic axis */
export function missingNote({ label, reason }: Missing, x: string, y = 0): Record<string, unknown> {
  return {
    x,
    y,
    yanchor: 'bottom',
    showarrow: false,
    text: ['<b>missing</b>', ...wrap(reason, 16)].join('<br>'),
    hovertext: `${label}: ${reason}`,
    font: { size: 10, color: GREY },
  };
}
