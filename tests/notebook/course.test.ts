import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { courseNotebooks, runCourse } from '../../lib/notebook/course.js';
import { readNotebook } from '../../lib/notebook/document.js';
import { cell, saveNotebook, streamText, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
const notebooks = [
  saveNotebook(
    folder,
    '00_one',
    '# One',
    cell("let samples = 1;\nlet speedModel = 'a';", 'parameters'),
    'console.log(samples, speedModel);',
  ),
  saveNotebook(folder, '01_two', '# Two', "throw new Error('stop');"),
  saveNotebook(folder, '02_three', '# Three', '1'),
];

/** A stream that keeps what was written, as the course's terminal. */
function terminal() {
  const stream = new PassThrough();
  let text = '';
  stream.on('data', (chunk) => {
    text += chunk;
  });
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => text }; // only `write` is used off a terminal
}

test('runs in order, shares parameters, shows a line a notebook, and reports also after a failure', async () => {
  const outputFolder = join(folder, 'results');
  const { stream, text } = terminal();
  const defaults = { samples: 9, speedModel: 'b', nobodys: 1 };
  const run = runCourse({ notebooks, outputFolder, stream, parameters: { samples: 7 }, defaults });
  await expect(run).rejects.toThrow(/01_two\.ipynb: cell 2 \(Two\): Error: stop/);
  expect(text()).toMatch(/^00_one +\d+\.\d s\n$/);
  expect(streamText(readNotebook(join(outputFolder, 'notebooks', '00_one.ipynb')).cells[3]!.outputs!)).toBe(
    '7 b\n',
  );
  const report = readFileSync(join(outputFolder, 'report.html'), 'utf8');
  expect(report).toContain('id="00_one"');
  expect(report).toContain('Error: stop');
  expect(existsSync(join(outputFolder, 'notebooks', '02_three.ipynb'))).toBe(false);
}, 180_000);

test('unknown notebooks and parameters run nothing', async () => {
  await expect(runCourse({ notebooks, only: ['05'] })).rejects.toThrow(
    'notebook 05: expected one of 00_one, 01_two, 02_three',
  );
  await expect(runCourse({ notebooks, parameters: { sample: 1 } })).rejects.toThrow(
    'unknown parameter sample; known: samples, speedModel',
  );
});

test("finds the course's notebooks in order", () => {
  expect(courseNotebooks(folder)).toEqual(notebooks);
});
