import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { readEvaluation } from '../../lib/cluster/figures.js';
import type { Run } from '../../lib/results.js';
import { built } from '../built.js';
import { runCli, writeModelFolder } from './fixture.js';

const bin = fileURLToPath(new URL('../../lib/bin/response-time.js', import.meta.url));
let scratch: string;
let model: string;
let data: string;
beforeAll(async () => {
  built('cli');
  scratch = await mkdtemp(join(tmpdir(), 'cli-cluster-'));
  model = join(scratch, 'model');
  await writeModelFolder(model);
  data = join(scratch, 'data.json');
  const samples = Array.from({ length: 6 }, (_, i) => ({
    instruction: `say ${i}`,
    input: '',
    output: `${i}`,
  }));
  await writeFile(data, JSON.stringify(samples));
  vi.stubEnv('RESPONSE_TIME_RESULTS', join(scratch, 'results'));
  for (const name of ['SLURM_ARRAY_TASK_ID', 'JOB_COMPLETION_INDEX', 'SLURM_JOB_ID'])
    vi.stubEnv(name, undefined);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(scratch, { recursive: true });
});

const WORK = ['--backend', 'cpu', '--samples', '6', '--new', '4', '--configurations', 'eager-cached-f32'];
const at = (name: string) => join(scratch, name);
const makePlan = async (name: string, ...args: string[]) => {
  const planned = await runCli([
    'cluster',
    'plan',
    model,
    '--dataset',
    data,
    ...WORK,
    '--output',
    at(name),
    ...args,
  ]);
  expect(planned.exitCode, planned.stderr).toBe(0);
  return at(name);
};
const cluster = (...args: string[]) => runCli(['cluster', ...args]);
const filesOf = (plan: string) => readdirSync(plan.replace('.json', '.shards')).sort();

test('plan, run, merge: records in the results folder, the progress in a log', async () => {
  const plan = await makePlan('whole.json', '--shards', '2', '--ignore-eos');
  vi.stubEnv('SLURM_ARRAY_TASK_ID', '1');
  const second = await cluster('run', '--plan', plan);
  vi.stubEnv('SLURM_ARRAY_TASK_ID', undefined);
  expect(second).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/shard-0001\.[0-9a-f]{8}\.jsonl\n$/),
  });
  const incomplete = await cluster('merge', '--plan', plan);
  expect(incomplete).toMatchObject({ exitCode: 3, stdout: '' });
  expect(incomplete.stderr).toMatch(
    /^missing: shard 0: no file; 3 of 3 samples missing \(0, 2, 4\)\nincomplete: nothing/,
  );
  expect(existsSync(at('results'))).toBe(false);

  const first = await cluster('run', '--plan', plan, '--shard', '0');
  const lines = first.stderr.trimEnd().split('\n');
  expect(lines.at(-1)).toMatch(
    /^shard 0 of 2, measuring: 3\/3 \(100 %\), [\d.]+ tok\/s, 0 s left, last error: none$/,
  );
  const logs = filesOf(plan).filter((name) => name.endsWith('.log'));
  expect(logs).toHaveLength(2);
  expect(readFileSync(join(at('whole.shards'), logs[0]!), 'utf8')).toBe(first.stderr);

  const merged = await cluster('merge', '--plan', plan, '--json', '--samples', at('texts.jsonl'));
  expect(merged.exitCode, merged.stderr).toBe(0);
  const [run] = JSON.parse(merged.stdout) as Run[];
  expect(run).toMatchObject({ label: 'eager-cached-f32', newTokens: 4, quality: null });
  expect(run!.samples.newTokens).toEqual([4, 4, 4, 4, 4, 4]);
  expect(readdirSync(at('results'))).toHaveLength(1);
  const texts = readFileSync(at('texts.jsonl'), 'utf8').trimEnd().split('\n');
  expect(texts.map((line) => JSON.parse(line).sample)).toEqual([0, 1, 2, 3, 4, 5]);
});

test('with a reference, the records compare the weights token by token', async () => {
  const reference = 'eager-cached-f32';
  const labels = ['eager-cached-int8', 'eager-uncached-f32', reference].join();
  const plan = await makePlan('judged.json', '--configurations', labels, '--reference', reference);
  expect((await cluster('run', '--plan', plan, '--shard', '0')).exitCode).toBe(0);
  const { stdout } = await cluster('merge', '--plan', plan, '--json');
  const lines =
    (await readFile(join(at('judged.shards'), filesOf(plan)[0]!), 'utf8')).split('"judged eager').length - 1;
  expect(lines).toBe(12); // the reference and int8: the configuration that differs in the cache alone needs none
  const runs = JSON.parse(stdout) as Run[];
  // The fixture's weights are random: no text is scored, so that no figure of quality hangs on it.
  expect(runs.map(({ quality }) => quality)).toEqual([null, null, null]);
});

describe('what does not fit ends with 78', () => {
  test.each([
    [
      'a shard out of range',
      ['--shard', '2'],
      /--shard: expected a shard from 0 to 1, as the plan has 2, received 2/,
    ],
    ['no shard', [], /--shard: expected a shard .* received nothing/],
    ['no model', ['--shard', '0', '--model', '/nowhere'], /model \/nowhere: expected/],
  ])('%s', async (_, args, message) => {
    const plan = await makePlan('misfit.json', '--shards', '2');
    const { exitCode, stderr } = await cluster('run', '--plan', plan, ...args);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(78);
    expect(existsSync(at('misfit.shards'))).toBe(false);
  });

  test('another model, a plan of another version, one that was edited, two plans in one folder', async () => {
    const plan = await makePlan('first.json');
    const other = at('other');
    await writeModelFolder(other);
    await copyFile(join(other, 'tokenizer.json'), join(other, 'added.json'));
    const foreign = await cluster('run', '--plan', plan, '--shard', '0', '--model', other);
    expect(foreign).toMatchObject({
      exitCode: 78,
      stderr: expect.stringMatching(/expected the plan's files/),
    });

    const edit = async (from: string, to: string) => {
      await writeFile(at('edited.json'), (await readFile(plan, 'utf8')).replace(from, to));
      return cluster('run', '--plan', at('edited.json'), '--shard', '0');
    };
    const newer = await edit('"schemaVersion": 1', '"schemaVersion": 2');
    expect(newer).toMatchObject({
      exitCode: 78,
      stderr: expect.stringMatching(/plan version: expected 1, found 2/),
    });
    expect(await edit('"newTokens": 4', '"newTokens": 5')).toMatchObject({ exitCode: 78 });

    await cluster('run', '--plan', plan, '--shard', '0');
    const second = await makePlan('second.json', '--new', '3');
    const mixed = await cluster('merge', '--plan', second, '--folder', at('first.shards'));
    expect(mixed).toMatchObject({
      exitCode: 78,
      stderr: expect.stringMatching(/one folder holds one plan's/),
    });
  });

  test('more shards than samples, an unknown reference, a dataset that is not there', async () => {
    const plan = (...args: string[]) =>
      cluster('plan', model, '--dataset', data, ...WORK, '--output', at('none.json'), ...args);
    expect(await plan('--shards', '7')).toMatchObject({
      exitCode: 78,
      stderr: expect.stringMatching(/expected 1 to 6/),
    });
    expect(await plan('--reference', 'x')).toMatchObject({ exitCode: 78 });
    expect(await plan('--dataset', '/nowhere.json')).toMatchObject({ exitCode: 78 });
    expect(existsSync(at('none.json'))).toBe(false);
  });
});

describe('as a process', () => {
  /** A shard that takes its time: uncached, many repeats. */
  const longPlan = (name: string) =>
    makePlan(
      name,
      '--configurations',
      'eager-uncached-f32',
      '--new',
      '16',
      '--ignore-eos',
      '--repeats',
      '200',
    );
  const start = (plan: string) =>
    spawn(process.execPath, [bin, 'cluster', 'run', '--plan', plan, '--shard', '0'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  const measured = async (child: ChildProcess, plan: string) => {
    await once(child.stderr!, 'data');
    const folder = plan.replace('.json', '.shards');
    const lines = () =>
      existsSync(folder) &&
      filesOf(plan).some((name) => readFileSync(join(folder, name), 'utf8').split('"latencyMs"').length > 3);
    while (!lines()) await new Promise((waited) => setTimeout(waited, 20));
  };

  test('SIGTERM ends it with 75, SIGKILL leaves what was measured; both go on', async () => {
    const plan = await longPlan('long.json');
    const stopped = start(plan);
    await measured(stopped, plan);
    stopped.kill('SIGTERM');
    expect((await once(stopped, 'exit'))[0]).toBe(75);
    const [first] = filesOf(plan).filter((name) => name.endsWith('.jsonl'));
    expect(readFileSync(join(at('long.shards'), first!), 'utf8').endsWith('\n')).toBe(true);

    const killed = start(plan);
    let said = '';
    killed.stderr.on('data', (text: Buffer) => {
      said += text;
    });
    await once(killed.stderr, 'data');
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    const [, done] = /measuring: (\d+)\/1200/.exec(said)!;
    expect(Number(done)).toBeGreaterThan(1);
    const merged = await cluster('merge', '--plan', plan);
    expect(merged.exitCode).toBe(3);
  });

  // A file system of its own takes a user namespace, which some machines forbid.
  const canMount = spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;
  test.skipIf(!canMount)('a full disk ends it with 1, and space lets it go on (needs unshare)', async () => {
    const plan = await longPlan('full.json');
    const script = `mount -t tmpfs -o size=16k none /mnt && "$@" --folder /mnt/shards; code=$?
      cp -r /mnt/shards ${at('full.shards')}; exit $code`;
    const command = [process.execPath, bin, 'cluster', 'run', '--plan', plan, '--shard', '0'];
    const { status, stderr } = spawnSync('unshare', ['-rm', 'sh', '-c', script, 'sh', ...command], {
      encoding: 'utf8',
    });
    expect(stderr).toMatch(
      /error: \/mnt\/shards\/shard-0000\.[0-9a-f]+\.jsonl: could not write, the disk is full/,
    );
    expect(status).toBe(1);
    const before = await cluster('merge', '--plan', plan);
    expect(before).toMatchObject({
      exitCode: 3,
      stderr: expect.stringMatching(/^missing: shard 0: 6 of 6 samples/),
    });
  });
});

test('sbatch prints a script with absolute paths', async () => {
  const plan = await makePlan('batch.json', '--shards', '3');
  const { stdout, exitCode } = await cluster('sbatch', '--plan', plan, '--cpus', '2', '--time', '30');
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/^#!\/bin\/bash\n/);
  expect(stdout).toContain(`plan='${plan}'`);
  expect(stdout).toContain('--array=0-2');
  expect(spawnSync('bash', ['-n'], { input: stdout }).status).toBe(0);
});

test('scripts/alpaca.sh: a small evaluation from plan to figures, which goes on where it was stopped', async () => {
  const environment = {
    ...process.env,
    ...{
      WORK: at('alpaca'),
      OUTPUT: at('alpaca.json'),
      SAMPLES: '3',
      NEW: '4',
      ANSWER: '8',
      TURNS: '1',
      JOBS: '2',
    },
    ...{ TARGET: 'reference', BACKEND: 'cpu' },
  };
  const script = fileURLToPath(new URL('../../scripts/alpaca.sh', import.meta.url));
  const evaluation = at('evaluation.json');
  const samples = Array.from({ length: 3 }, (_, i) => ({
    instruction: `name ${i}`,
    input: '',
    output: `it is ${i}`,
  }));
  await writeFile(evaluation, JSON.stringify(samples));
  const start = (...args: string[]) =>
    spawnSync('bash', [script, ...args, evaluation, model], { encoding: 'utf8', env: environment });
  const measured = async () =>
    (await readEvaluation(environment.OUTPUT))!.runs.map(({ label, samples: { latencyMs } }) => [
      label,
      latencyMs.length,
    ]);
  const planned = start('--only', 'plan');
  expect(planned.status, planned.stderr).toBe(0);
  expect(start('--only', 'figures')).toMatchObject({
    status: 3,
    stderr: expect.stringMatching(/^missing: shard 0: no file/),
  });
  const whole = start();
  expect(whole.status, whole.stderr).toBe(0);
  const figures = await readEvaluation(at('alpaca.json'));
  expect(figures!.texts.map(({ label, toReference }) => [label, toReference.exactMatch])).toEqual([
    ['reference-cached-f32', expect.any(Number)],
    ['reference-cached-int8', expect.any(Number)],
    ['reference-cached-int4', expect.any(Number)],
  ]);
  expect(figures!.texts.map(({ answers }) => answers!.perplexity).every((value) => value > 1)).toBe(true);
  const expected = [
    ...['f32', 'int8', 'int4'].map((weights) => [`reference-cached-${weights}`, 3]),
    ['eager-uncached-f32', 1],
    ['eager-cached-f32', 1],
    ...['f32', 'int8', 'int4'].map((weights) => [`reference-cached-${weights}`, 1]),
  ];
  expect(await measured()).toEqual(expected);

  // One process has the machine to itself: its times are the speed.
  Object.assign(environment, { JOBS: '1', WORK: at('alpaca-one'), OUTPUT: at('alpaca-one.json') });
  const one = start();
  expect(one.status, one.stderr).toBe(0);
  expect(existsSync(at('alpaca-one/speed.json'))).toBe(false);
  expect(await measured()).toEqual(expected);

  expect(start('--only', 'nothing')).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/expected plan, texts/),
  });
});
