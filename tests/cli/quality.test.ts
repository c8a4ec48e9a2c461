import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { memoryWarning } from '../../lib/cli/load.js';
import { runCli, writeModelFolder } from './fixture.js';

let scratch: string;
let model: string;
let data: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-quality-'));
  model = join(scratch, 'model');
  data = join(scratch, 'data.json');
  await writeModelFolder(model);
  const samples = ['Say a', 'Say b'].map((instruction) => ({ instruction, input: '', output: 'ab' }));
  await writeFile(data, JSON.stringify(samples));
});
afterAll(() => rm(scratch, { recursive: true }));

const quality = (...args: string[]) =>
  runCli(['quality', model, '--backend', 'cpu', '--dataset', data, '--samples', '2', '--new', '4', ...args]);

test('a model passes against itself, with the figures of equality', async () => {
  const { exitCode, stdout, stderr } = await quality('--weights', 'f32', '--json', '--min-rouge-l', '0');
  expect(exitCode).toBe(0);
  expect(stderr).toMatch(/^((Loading|Comparing)[^\n]*\n)*$/); // progress, on a slow machine
  expect(JSON.parse(stdout)).toMatchObject({
    perplexityRatio: 1,
    klMean: 0,
    klP99: 0,
    sameTopToken: 1,
    failed: [],
  });
});

test('a threshold that does not hold ends with 2 and is named', async () => {
  const { exitCode, stdout, stderr } = await quality('--weights', 'int4', '--max-kl-mean', '1e-12');
  expect(exitCode).toBe(2);
  expect(stdout).toMatch(/^perplexity .*ratio .*\nKL divergence .*\nsame top token .*\n/);
  expect(stderr).toMatch(/not passed: mean KL divergence: expected at most 1e-12, found /);
});

test('a quantized folder against the model that it was made from', async () => {
  const folder = join(scratch, 'int8');
  await runCli(['quantize', model, folder, '--scheme', 'int8']);
  const args = [
    '--backend',
    'cpu',
    '--dataset',
    data,
    '--samples',
    '1',
    '--new',
    '2',
    '--min-rouge-l',
    '0',
    '--json',
  ];
  const { stdout } = await runCli(['quality', folder, '--against', model, ...args]);
  const { klMean } = JSON.parse(stdout);
  expect(klMean).toBeGreaterThan(0);
  expect(klMean).toBeLessThan(0.01);
});

test.each([
  ['a share above 1', ['--min-same-top', '1.5'], /--min-same-top.*from 0 to 1/],
  ['a ratio of 0', ['--max-perplexity-ratio', '0'], /--max-perplexity-ratio.*above 0/],
  ['an unknown other', ['--against', 'no-such-model'], /model no-such-model/],
])('bad input: %s', async (_, args, message) => {
  const { exitCode, stdout, stderr } = await quality(...args);
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n$/);
  expect([exitCode, stdout]).toEqual([1, '']);
});

test('before loading, a scheme that does not fit is named with one that does', () => {
  const forecast = (scheme: 'stored' | 'int4', totalBytes: number, eagerTotalBytes: number) => {
    return { scheme, weightBytes: 0, totalBytes, eagerTotalBytes };
  };
  const schemes = [forecast('stored', 14e9, 40e9), forecast('int4', 4e9, 6e9)];
  expect(memoryWarning(schemes, 'stored', 64e9)).toBeUndefined();
  expect(memoryWarning(schemes, 'stored', 8e9)).toMatch(
    /stored need 40\.0 GB.* has 8\.0 GB: --weights int4 needs 6\.0 GB/,
  );
  expect(memoryWarning(schemes, 'stored', 4e9)).toMatch(/no scheme would fit/);
  expect(memoryWarning(schemes, 'stored', 20e9, 'wasm')).toBeUndefined();
  expect(memoryWarning(schemes, 'stored', 8e9, 'wasm')).toMatch(
    /compiled for wasm, weights stored need 14\.0 GB.*--weights int4 needs 4\.0 GB/,
  );
});
