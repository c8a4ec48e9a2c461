import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { runCli } from './fixture.js';

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-notebook-'));
  vi.stubEnv('RESPONSE_TIME_RESULTS', join(scratch, 'results'));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(scratch, { recursive: true });
});

test('install writes an absolute kernelspec and prints its folder', async () => {
  const { exitCode, stdout } = await runCli([
    'notebook',
    'install',
    '--data-folder',
    join(scratch, 'jupyter'),
  ]);
  expect(exitCode).toBe(0);
  const spec = JSON.parse(await readFile(join(stdout.trim(), 'kernel.json'), 'utf8'));
  expect(spec.argv[0]).toBe(process.execPath);
});

test('report joins the executed notebooks of the last run, or those that are named', async () => {
  const none = await runCli(['notebook', 'report']);
  expect(none).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/^error: .*notebook run[^\n]*\n$/),
  });
  const cell = { cell_type: 'markdown', id: 'a', metadata: {}, source: '# A title to find' };
  const notebook = { nbformat: 4, nbformat_minor: 5, metadata: {}, cells: [cell] };
  await mkdir(join(scratch, 'results', 'notebooks'), { recursive: true });
  const path = join(scratch, 'results', 'notebooks', '00_test.ipynb');
  await writeFile(path, JSON.stringify(notebook));
  expect((await runCli(['notebook', 'report'])).stdout).toBe(`${join(scratch, 'results', 'report.html')}\n`);
  const named = join(scratch, 'named.html');
  await runCli(['notebook', 'report', path, '--output', named]);
  for (const file of [join(scratch, 'results', 'report.html'), named]) {
    expect(await readFile(file, 'utf8')).toContain('A title to find');
  }
});

test.each([
  ['a parameter without value', ['--param', 'samples'], /--param.*NAME=VALUE/],
  ['an unknown notebook', ['--only', '99'], /notebook 99/],
  ['an unknown model', ['--model', 'no-such-model'], /model no-such-model: expected/],
  ['a limit of 0', ['--cell-limit', '0'], /--cell-limit.*at least 1/],
])('run: bad input: %s', async (_, args, message) => {
  const { exitCode, stdout, stderr } = await runCli(['notebook', 'run', ...args]);
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n$/);
  expect([exitCode, stdout]).toEqual([1, '']);
  expect(existsSync(join(scratch, 'results', 'latest'))).toBe(false);
});

test('notebook alone shows its parts and ends with 1', async () => {
  const { exitCode, stderr } = await runCli(['notebook']);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/run .*install .*report /s);
  expect(stderr).not.toMatch(/error/);
});
