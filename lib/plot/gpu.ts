// lib/plot/gpu.ts: Runs that were measured on one GPU -> figures of each model: tokens per second, time to the first
// token, memory. A bar a configuration; plain data, drawn elsewhere.

import { decimal, decodeTokensPerSecond } from '../results/compare.js';
import type { Run } from '../results.js';
import { barLayout, barMarker, columnLabels, topNote } from './bars.js';
import { describeRuns, type Figure } from './look.js';

/** What one figure shows of each Run. */
interface Measure {
  readonly title: string;
  readonly note: string;
  /** Of the axis. */
  readonly unit: string;
  readonly figureOf: (run: Run) => number;
}

const SPEED: Measure = {
  title: 'Tokens per second after the first',
  note: 'Medians of whole generations, the prompt left out; one text at a time.',
  unit: 'tokens per second',
  figureOf: decodeTokensPerSecond,
};
const FIRST_TOKEN: Measure = {
  title: 'Time to the first token',
  note: 'Medians: reading the whole prompt.',
  unit: 'milliseconds',
  figureOf: ({ summary }) => summary.firstTokenMs.p50,
};
const MEMORY: Measure = {
  title: 'Memory on the GPU',
  note: 'Buffers in GB: weights, cache, scratch; of PyTorch the most that its allocator held.',
  unit: 'GB',
  figureOf: ({ memory }) => (memory.gpuBytes ?? Number.NaN) / 1e9,
};

/** Runs of one text at a time from its first token on: without several at once, and those begun deep in a text. */
export function plainRuns(runs: readonly Run[]): Run[] {
  // Begun at a position of choice, the prompt that the Run states is not the text before its tokens.
  return runs.filter(({ batch, label }) => batch === 1 && !/ depth \d/.test(label));
}

/**
 * The figures of a GPU's Runs, by name: MODEL-tokens-per-second and MODEL-memory of the shortest prompt,
 * MODEL-first-token-PROMPT of each.
 * @param runs of any models, of which plainRuns are shown; a figure that would have a single bar is left out
 */
export function gpuFigures(runs: readonly Run[]): ReadonlyMap<string, Figure> {
  const figures = new Map<string, Figure>();
  const plain = plainRuns(runs);
  for (const model of new Set(plain.map((run) => run.model.name))) {
    const own = plain.filter((run) => run.model.name === model);
    const prompts = [...new Set(own.map(({ promptTokens }) => promptTokens))].sort((a, b) => a - b);
    const add = (name: string, promptTokens: number, measure: Measure) => {
      const shown = own.filter(
        (run) => run.promptTokens === promptTokens && Number.isFinite(measure.figureOf(run)),
      );
      if (shown.length > 1) figures.set(`${model}-${name}`, barsFigure(shown, measure));
    };
    add('tokens-per-second', prompts[0]!, SPEED);
    add('memory', prompts[0]!, MEMORY);
    for (const prompt of prompts) add(`first-token-${prompt}`, prompt, FIRST_TOKEN);
  }
  return figures;
}

function barsFigure(runs: readonly Run[], { title, note, unit, figureOf }: Measure): Figure {
  // The subtitle says which model and prompt: the labels need not.
  const named = runs.map((run) => {
    return { ...run, label: run.label.replace(`${run.model.name} `, '').replace(/ prompt \d+/, '') };
  });
  const columns = columnLabels(named, []);
  const values = named.map(figureOf);
  return {
    data: [
      {
        type: 'bar',
        x: columns,
        y: values,
        marker: barMarker(named),
        hovertemplate: `%{x}: %{y:.4g} ${unit}<extra></extra>`,
        showlegend: false,
      },
    ],
    layout: barLayout(title, `${note} ${describeRuns(named)}`, unit, columns, {
      top: Math.max(...values),
      annotations: values.map((value, i) => topNote(columns[i]!, value, `<b>${decimal(value)}</b>`)),
    }),
  };
}
