// The committed notebooks, as files: executed, readable on GitHub, and built as the course promises. That they run,
// unsolved and solved, is checked by running them (npm start, and with --solved).
import { readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { courseNotebooks } from '../lib/notebook/course.js';
import {
  type NotebookCell,
  type Output,
  parameterNames,
  readNotebook,
  solveExercises,
} from '../lib/notebook/document.js';
import { KERNEL_NAME } from '../lib/notebook/install.js';
import { projectRoot } from '../lib/paths.js';

const MAX_BYTES = 1_000_000;
const COURSE = [
  '00_foundations',
  '01_baseline',
  '02_conversion',
  '03_quantization',
  '04_optimization',
  '05_benchmark',
  '06_demo',
  '07_visualization',
];
const paths = courseNotebooks(join(projectRoot(), 'notebooks'));
const nameOf = (path: string) => basename(path, '.ipynb');
const hasTag = (tag: string) => (cell: NotebookCell) => cell.metadata.tags?.includes(tag) ?? false;

/** What a reader sees of an output as text. */
function textOf(output: Output): string {
  if (output.output_type === 'stream') return output.text;
  if (output.output_type === 'error') return `${output.ename}: ${output.evalue}`;
  return String(output.data['text/plain'] ?? '');
}

test('the course is whole', () => {
  expect(paths.map(nameOf)).toEqual(COURSE);
});

describe.each(paths.map((path) => [nameOf(path), path] as const))('%s', (name, path) => {
  const notebook = readNotebook(path);
  const { cells } = notebook;
  const code = cells.filter(({ cell_type, source }) => cell_type === 'code' && source.trim());
  const markdown = cells.filter(({ cell_type }) => cell_type === 'markdown');
  const outputs = code.flatMap((cell) => cell.outputs ?? []);
  const texts = outputs.map(textOf);

  test('is nbformat 4.5 for our kernel, with stable cell ids, under 1 MB', () => {
    const file = JSON.parse(readFileSync(path, 'utf8')) as {
      nbformat_minor: number;
      cells: { id?: string }[];
    };
    expect(file.nbformat_minor).toBe(5);
    expect(notebook.metadata.kernelspec).toMatchObject({ name: KERNEL_NAME, language: 'typescript' });
    const ids = file.cells.map(({ id }) => id ?? '');
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^[\w-]{1,64}$/);
    expect(statSync(path).size).toBeLessThan(MAX_BYTES);
  });

  test('was executed from top to bottom without an error, with its own parameters', () => {
    expect(code.map(({ execution_count }) => execution_count)).toEqual(code.map((_, i) => i + 1));
    expect(outputs.filter(({ output_type }) => output_type === 'error')).toEqual([]);
    expect(cells.filter(hasTag('injected-parameters'))).toEqual([]);
  });

  test('names nothing of the machine that it ran on', () => {
    const parts = [...cells.map(({ source }) => source), ...texts];
    expect(
      parts.filter((part) => /(^|[\s'"`(])(\/(work|root|home|tmp|Users)\/|file:\/\/)/m.test(part)),
    ).toEqual([]);
  });

  test('its checkpoints passed, and it saved a record', () => {
    const lines = texts.join('\n').split('\n');
    expect(lines.filter((line) => line.startsWith('FAIL'))).toEqual([]);
    expect(lines.filter((line) => line.startsWith('PASS')).length).toBeGreaterThanOrEqual(2);
    expect(code.some(({ source }) => /\b(saveRecord|writeRun)\(/.test(source))).toBe(true);
  });

  test('has one parameters cell, before all other code', () => {
    expect(cells.filter(hasTag('parameters'))).toEqual([code[0]]);
    expect(parameterNames(notebook).length).toBeGreaterThan(0);
  });

  test('has one exercise: a starter that is not yet solved, a check, a folded solution', () => {
    const places = ['exercise', 'solution'].map((tag) =>
      cells.flatMap((cell, i) => (hasTag(tag)(cell) ? [i] : [])),
    );
    expect(places.map(({ length }) => length)).toEqual([1, 1]);
    const [starter, solution] = places.map(([i]) => i!) as [number, number];
    expect(starter).toBeLessThan(solution);
    expect(cells[solution]!.source).toMatch(/<details>[\s\S]*<\/details>/);
    expect(
      cells.slice(starter + 1, solution).some(({ source }) => /^\s*await exercise\(/m.test(source)),
    ).toBe(true);
    expect(solveExercises(notebook).cells[starter]!.source).not.toBe(cells[starter]!.source);
    expect(texts.filter((text) => /^Exercise .*: not yet/m.test(text))).toHaveLength(1);
  });

  test('its figures show on GitHub: a picture beside the interactive one, no HTML', () => {
    for (const output of outputs) {
      if (output.output_type !== 'display_data' && output.output_type !== 'execute_result') continue;
      const types = Object.keys(output.data);
      expect(types).not.toContain('text/html');
      if (types.includes('application/vnd.plotly.v1+json')) expect(types).toContain('image/png');
    }
  });

  test('asks for predictions, says what was learned and what comes next', () => {
    const title = markdown[0]!.source.split('\n')[0]!;
    expect(title).toMatch(new RegExp(`^# ${name.slice(0, 2)} \\S`));
    expect(markdown.some(({ source }) => source.includes('**Predict'))).toBe(true);
    const end = markdown.at(-1)!.source;
    expect(end).toContain('**Learned');
    const next = COURSE[COURSE.indexOf(name) + 1];
    if (next) expect(end).toContain(`](${next}.ipynb)`);
  });
});
