import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Interrupted } from '../../lib/cli/errors.js';
import type { Run } from '../../lib/results.js';
import { runCli, writeModelFolder } from './fixture.js';

let scratch: string;
let model: string;
let data: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-benchmark-'));
  vi.stubEnv('RESPONSE_TIME_RESULTS', join(scratch, 'results'));
  model = join(scratch, 'model');
  await writeModelFolder(model);
  data = join(scratch, 'data.json');
  const samples = ['Say a', 'Say b', 'Say c'].map((instruction) => ({ instruction, input: '', output: 'a' }));
  await writeFile(data, JSON.stringify(samples));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(scratch, { recursive: true });
});

const benchmark = (...args: string[]) =>
  runCli(['benchmark', model, '--backend', 'cpu', '--new', '4', '--dataset', data, ...args]);

test('each configuration becomes a record that results lists', async () => {
  const { exitCode, stdout, stderr } = await benchmark('--samples', '3');
  expect(exitCode).toBe(0);
  for (const label of ['eager-uncached-f32', 'eager-cached-f32', 'eager-cached-int8']) {
    expect(stdout).toContain(label);
    expect((await runCli(['results'])).stdout).toContain(label);
  }
  expect(stderr).toMatch(/3 records written to .*results\n$/);
  const files = await readdir(join(scratch, 'results'));
  expect(files.filter((name) => name.endsWith('.run.json'))).toHaveLength(3);
  expect(files.filter((name) => name.includes('samples'))).toEqual([]); // nothing left to go on with
});

test('--output takes the records, --json prints them; random weights have no quality', async () => {
  const output = join(scratch, 'out.json');
  const args = ['--samples', '2', '--configurations', 'eager-cached-int4', '--output', output, '--json'];
  const runs = JSON.parse((await benchmark(...args)).stdout) as Run[];
  expect(JSON.parse(await readFile(output, 'utf8'))).toEqual(runs);
  expect(runs).toHaveLength(1);
  expect(runs[0]).toMatchObject({
    label: 'eager-cached-int4',
    weights: 'int4',
    cache: true,
    backend: 'cpu',
    newTokens: 4,
    quality: null,
    model: { name: 'model', source: model, randomWeights: true },
  });
  expect(runs[0]!.samples.latencyMs).toHaveLength(2);
});

test('several texts at once: their tokens count together', async () => {
  const args = ['--samples', '2', '--configurations', 'reference-cached-f32-x3', '--ignore-eos', '--json'];
  const [run] = JSON.parse((await benchmark(...args)).stdout) as Run[];
  expect(run).toMatchObject({ label: 'reference-cached-f32-x3', batch: 3, mode: 'scan', newTokens: 4 });
  expect(run!.samples.newTokens).toEqual([12, 12]);
  const { stderr } = await benchmark('--configurations', 'eager-cached-f32-x3');
  expect(stderr).toMatch(/eager-cached-f32-x3".* -x2 to -x99 for that many texts at once, compiled/);
});

test('a stopped run goes on where it was', async () => {
  const controller = new AbortController();
  const args = ['benchmark', model, '--backend', 'cpu', '--new', '16', '--dataset', data, '--samples', '3'];
  const configurations = ['--configurations', 'eager-uncached-f32', '--ignore-eos'];
  const results = join(scratch, 'results');
  const partial = async () => (await readdir(results)).find((name) => name.endsWith('.samples.jsonl'));
  const lines = async () =>
    (await readFile(join(results, (await partial())!), 'utf8')).trim().split('\n').length;
  const poll = setInterval(async () => {
    if ((await partial()) && (await lines()) > 1) controller.abort(new Interrupted('interrupted', 130));
  }, 5);
  const stopped = await runCli([...args, ...configurations], { signal: controller.signal });
  clearInterval(poll);
  expect(stopped.exitCode).toBe(130);
  expect(stopped.stderr).toMatch(/The same command goes on/);
  const before = await readFile(join(results, (await partial())!), 'utf8');
  const measured = JSON.parse(before.split('\n')[1]!).value.latencyMs;
  const { stdout, exitCode } = await runCli([...args, ...configurations, '--json']);
  expect(exitCode).toBe(0);
  const [run] = JSON.parse(stdout) as Run[];
  expect(run!.samples.latencyMs).toHaveLength(3);
  expect(run!.samples.latencyMs[0]).toBe(measured);
  expect(await partial()).toBeUndefined();
});

describe('--config', () => {
  const config = async (content: unknown, ...args: string[]) => {
    const file = join(scratch, 'config.json');
    await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content));
    return runCli(['benchmark', model, '--config', file, '--json', ...args]);
  };

  test('holds the settings; an option beats it', async () => {
    const settings = {
      samples: 3,
      new: 2,
      dataset: data,
      backend: 'cpu',
      configurations: ['eager-cached-f32'],
      ignoreEos: true,
    };
    const [run] = JSON.parse((await config(settings, '--samples', '1')).stdout) as Run[];
    expect(run).toMatchObject({ label: 'eager-cached-f32', newTokens: 2 });
    expect(run!.samples.latencyMs).toHaveLength(1);
  });

  test.each([
    ['no JSON', '{', /config\.json: expected JSON/],
    ['an unknown key', { sample: 3 }, /config\.json: sample: expected one of samples, .*found "key sample"/],
    ['a number as text', { samples: '3' }, /config\.json: samples: expected a whole number >= 1, found "3"/],
    ['zero', { new: 0 }, /config\.json: new: expected a whole number >= 1, found 0/],
    ['no configurations', { configurations: [] }, /config\.json: configurations: expected one or more/],
    ['an unknown backend', { backend: 'tpu' }, /config\.json: backend: expected "auto" or .*found "tpu"/],
    [
      'an unknown configuration',
      { configurations: ['eager-f32'] },
      /configuration "eager-f32": expected TARGET-cached-WEIGHTS/,
    ],
  ])('refuses %s', async (_, content, message) => {
    const { exitCode, stdout, stderr } = await config(content);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^error: [^\n]+\n$/);
    expect([exitCode, stdout]).toEqual([1, '']);
  });
});

test.each([
  ['more samples than there are', ['--samples', '4'], /data\.json: expected 4 samples, found 3/],
  ['no samples', ['--samples', '0'], /--samples.*at least 1/],
  ['an unknown configuration', ['--configurations', 'jit-cached-f32'], /configuration "jit-cached-f32"/],
  ['an empty configuration', ['--configurations', ''], /--configurations/],
  ['a missing dataset', ['--dataset', '/nowhere.json'], /\/nowhere\.json: expected a dataset/],
])('bad input: %s', async (_, args, message) => {
  const { exitCode, stdout, stderr } = await benchmark(...args);
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n$/);
  expect([exitCode, stdout]).toEqual([1, '']);
});
