import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  cellName,
  collapseCarriageReturns,
  formatNotebook,
  injectParameters,
  parameterNames,
  readNotebook,
  solveExercises,
} from '../../lib/notebook/document.js';
import { cell, notebookOf, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();

test('text of cells and outputs is read from lines or strings and written as lines; the rest stays', () => {
  const path = join(folder, 'a.ipynb');
  const outputs = [
    { output_type: 'stream', name: 'stdout', text: ['a\n', 'b'] },
    {
      output_type: 'display_data',
      metadata: {},
      data: { 'text/plain': ['x\n', 'y'], 'image/png': 'AAAA', 'application/json': { deep: [1] } },
    },
    { output_type: 'error', ename: 'E', evalue: 'v', traceback: ['t'] },
  ];
  const code = {
    cell_type: 'code',
    id: 'c',
    metadata: {},
    source: ['1;\n', '2'],
    outputs,
    execution_count: 3,
  };
  writeFileSync(
    path,
    JSON.stringify({ nbformat: 4, nbformat_minor: 4, metadata: { kernelspec: {} }, cells: [code] }),
  );
  const notebook = readNotebook(path);
  expect(notebook.cells[0]).toMatchObject({ source: '1;\n2', outputs: [{ text: 'a\nb' }, {}, {}] });
  const written = JSON.parse(formatNotebook(notebook));
  expect(written).toMatchObject({ nbformat_minor: 5, metadata: { kernelspec: {} } });
  expect(written.cells[0]).toEqual(code);
});

test('a line shows its last version after carriage returns', () => {
  expect(collapseCarriageReturns('a\rb\n  c  \n1\r2   \r\nx\r')).toBe('b\n  c  \n2\nx');
  fc.assert(
    fc.property(
      fc.string().filter((text) => !text.includes('\r')),
      (text) => {
        expect(collapseCarriageReturns(text)).toBe(text);
      },
    ),
  );
});

test('a cell is named by its name, its tag or the heading before it', () => {
  const notebook = notebookOf('1', '# Top\n\n## Inner `x`', '2', cell('3', 'check'));
  notebook.cells[2]!.metadata.name = 'sum';
  expect([0, 2, 3].map((index) => cellName(notebook, index))).toEqual([
    'cell 1',
    'cell 3 (sum)',
    'cell 4 (check)',
  ]);
  delete notebook.cells[2]!.metadata.name;
  expect(cellName(notebook, 2)).toBe('cell 3 (Inner `x`)');
});

test('parameters are assigned in a cell after the declaring one, in place of earlier ones', () => {
  const declared = cell(
    "let samples = 3; // of 100\nlet model: string = 'a';\nconst fixed = 1;",
    'parameters',
  );
  const notebook = notebookOf('# T', declared, 'samples');
  expect(parameterNames(notebook)).toEqual(['samples', 'model']);
  const once = injectParameters(notebook, { samples: 5, model: "it's" });
  expect(once.cells[2]).toMatchObject({ metadata: { tags: ['injected-parameters'] } });
  expect(once.cells[2]!.source).toContain('samples = 5;\nmodel = "it\'s";');
  expect(injectParameters(once, { samples: 6 }).cells).toHaveLength(4);
  expect(injectParameters(once, {}).cells).toHaveLength(3);
  expect(notebook.cells).toHaveLength(3);
  expect(() => injectParameters(notebook, { fixed: 2, sample: 1 }, 'n.ipynb')).toThrow(
    'n.ipynb: unknown parameter fixed, sample; known: samples, model',
  );
  expect(() => injectParameters(notebookOf('1'), { a: 1 })).toThrow(/known: none/);
});

test('a solution replaces its starter, or its absence names the cell', () => {
  const starter = cell('let a = 0;', 'exercise');
  const solution = cell('<details>\n\n```ts\nlet a = 1;\nlet b = 2;\n```\n</details>', 'solution');
  expect(solveExercises(notebookOf(starter, 'a', solution)).cells[0]!.source).toBe('let a = 1;\nlet b = 2;');
  expect(() => solveExercises(notebookOf(starter, 'a'))).toThrow(
    /cell 1 \(exercise\): expected a cell tagged/,
  );
});

test('other formats and broken files are refused by name', () => {
  const path = join(folder, 'old.ipynb');
  writeFileSync(path, '{"nbformat": 3, "worksheets": []}');
  expect(() => readNotebook(path)).toThrow(
    /old\.ipynb: expected a notebook of nbformat 4, received nbformat 3/,
  );
  expect(() => readNotebook(join(folder, 'none.ipynb'))).toThrow(
    /none\.ipynb: expected a notebook, received ENOENT/,
  );
});
