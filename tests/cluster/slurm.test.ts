// The whole way on a real Slurm that this test starts: plan, sbatch, a node lost and a task stopped in the middle, the
// array finished, merged: the same texts and records as from one machine.

import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Run } from '../../lib/results.js';
import { built } from '../built.js';
import { LocalSlurm, missingForSlurm } from './localSlurm.js';

const missing = missingForSlurm();
const reason = missing === undefined ? 'two nodes on this machine' : `skipped: ${missing}`;
const bin = fileURLToPath(new URL('../../lib/bin/response-time.js', import.meta.url));
const SHARDS = 4;
const WORK = [
  'tiny-gpt2',
  '--samples',
  '80',
  '--new',
  '16',
  '--configurations',
  'wasm-cached-f32,wasm-cached-int8',
];

test.runIf(process.env.RESPONSE_TIME_REQUIRE === 'slurm')(
  'Slurm is installed (RESPONSE_TIME_REQUIRE)',
  () => {
    expect(missing).toBeUndefined();
  },
);

describe.skipIf(missing !== undefined)(`a run on a real Slurm (${reason})`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'slurm-'));
  const at = (name: string) => join(folder, name);
  let slurm: LocalSlurm;
  beforeAll(async () => {
    built('cli');
    slurm = await LocalSlurm.start(at('cluster'), { nodes: 2, cpus: 2 });
  });
  afterAll(async () => {
    await slurm?.stop();
    rmSync(folder, { recursive: true });
  });
  /** Of the command here and of the jobs: a commit made meanwhile would be another kind of machine to the merge. */
  const environment = () => ({
    ...slurm.environment,
    ...{ RT_THREADS: '1', GIT_DIR: '/nowhere', RESPONSE_TIME_COMMIT: '1234567' },
  });
  const cli = (...parameters: string[]) =>
    execFileSync(process.execPath, [bin, ...parameters], {
      encoding: 'utf8',
      env: environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  const cliBeside = (...parameters: string[]) =>
    promisify(execFile)(process.execPath, [bin, ...parameters], {
      env: environment(),
    });
  /** Measurements of each attempt so far, by shard. */
  const measuredBy = (shards: string) => {
    const attempts = Array.from({ length: SHARDS }, () => [] as { restart: number; count: number }[]);
    for (const name of existsSync(at(shards)) ? readdirSync(at(shards)) : []) {
      const [, shard, restart] = /^shard-(\d+)\.job\d+-(\d+)-.*\.jsonl$/.exec(name) ?? [];
      if (shard === undefined) continue;
      const count = readFileSync(join(at(shards), name), 'utf8').split('"latencyMs"').length - 1;
      attempts[Number(shard)]!.push({ restart: Number(restart), count });
    }
    return attempts;
  };
  /** A task that runs on a node, has measured something since it started, and has much left to measure. */
  const inTheMiddle = (shards: string, array: string, node: string) => {
    const tasks = slurm.queue();
    const counts = measuredBy(shards); // after it: Slurm takes its time, and the tasks go on
    return tasks.find((task) => {
      const [job, shard] = task.id.split('_');
      if (job !== array || task.state !== 'RUNNING' || task.node !== node) return false;
      const sum = counts[Number(shard)]!.reduce((total, { count }) => total + count, 0);
      if (sum < 2 || sum >= 20) return false; // of 40
      // A task that was requeued may have begun again only now.
      const restarts = Number(/Restarts=(\d+)/.exec(slurm.call('scontrol', 'show', 'job', task.id))?.[1]);
      return counts[Number(shard)]!.some(({ restart, count }) => restart === restarts && count > 0);
    });
  };

  test('a node dies, a task is stopped: the array finishes, and the merge is what one machine measures', async () => {
    cli('cluster', 'plan', ...WORK, '--shards', `${SHARDS}`, '--output', at('many.json'));
    writeFileSync(at('run.sh'), cli('cluster', 'sbatch', '--plan', at('many.json'), '--time', '5'));
    const submitted = spawnSync('bash', [at('run.sh')], {
      encoding: 'utf8',
      env: environment(),
    });
    expect(submitted.stdout).toMatch(/^shards: job \d+, merge: job \d+\nwatch: tail -F /);
    const [, array] = /shards: job (\d+)/.exec(submitted.stdout)!;

    await slurm.until(
      'a task of n2 in the middle',
      60,
      () => inTheMiddle('many.shards', array!, 'n2') !== undefined,
    );
    slurm.killNode('n2');
    // As two minutes before a time limit.
    await slurm.until('a task of n1 in the middle', 60, () => {
      slurm.startWaitingNow();
      const task = inTheMiddle('many.shards', array!, 'n1');
      if (task) slurm.call('scancel', '--batch', '--signal=TERM', task.id);
      return task !== undefined;
    });
    await slurm.until('the end of all jobs', 150, () => {
      slurm.startWaitingNow();
      return slurm.queue().length === 0;
    });

    const names = readdirSync(at('many.shards'));
    const restarted = names.filter((name) => /job\d+-[1-9]\d*-[0-9a-f]+\.jsonl$/.test(name));
    expect(restarted.length, names.join(' ')).toBeGreaterThanOrEqual(2); // those of n2, and the one that was stopped
    const logs = names.filter((name) => name.endsWith('.log'));
    expect(logs.length).toBe(SHARDS + restarted.length);
    for (let shard = 0; shard < SHARDS; shard++) {
      // A task that was stopped may have been one of n2 that began again: only its last attempt measured all.
      const last = Math.max(...measuredBy('many.shards')[shard]!.map(({ restart }) => restart));
      const number = `${shard}`.padStart(4, '0');
      const name = logs.find((log) => new RegExp(`^shard-${number}\\.job\\d+-${last}-`).test(log));
      expect(name, logs.join(' ')).toBeDefined();
      const log = readFileSync(join(at('many.shards'), name!), 'utf8');
      expect(log).toMatch(/measuring: 40\/40 \(100 %\), [\d.]+ tok\/s, 0 s left, last error: none\n$/);
    }

    cli('cluster', 'plan', ...WORK, '--output', at('one.json'));
    await Promise.all([
      cliBeside('cluster', 'run', '--plan', at('one.json'), '--shard', '0'),
      cliBeside('benchmark', ...WORK, '--output', at('benchmark.json')),
    ]);
    cli(
      'cluster',
      'merge',
      '--plan',
      at('one.json'),
      '--output',
      at('one.runs.json'),
      '--samples',
      at('one.jsonl'),
    );
    cli(
      'cluster',
      'merge',
      '--plan',
      at('many.json'),
      '--output',
      at('again.json'),
      '--samples',
      at('many.jsonl'),
    );
    expect(outputs(at('many.jsonl'))).toEqual(outputs(at('one.jsonl')));
    expect(outputs(at('many.jsonl'))).toHaveLength(160);
    const records = JSON.parse(readFileSync(at('many.runs.json'), 'utf8')) as Run[];
    expect(records.map(timeless)).toEqual(
      (JSON.parse(readFileSync(at('one.runs.json'), 'utf8')) as Run[]).map(timeless),
    );
    expect(records.map(({ samples }) => samples.latencyMs.length)).toEqual([80, 80]);
    expect(records.map(timeless)).toEqual(
      (JSON.parse(readFileSync(at('benchmark.json'), 'utf8')) as Run[]).map(timeless),
    );
  }, 300_000);

  test('a cancelled task stays cancelled, and the merge says what is missing', async () => {
    cli('cluster', 'plan', ...WORK, '--repeats', '20', '--shards', '2', '--output', at('cut.json'));
    writeFileSync(at('cut.sh'), cli('cluster', 'sbatch', '--plan', at('cut.json'), '--time', '5'));
    const { stdout } = spawnSync('bash', [at('cut.sh')], { encoding: 'utf8', env: environment() });
    const [, array, merge] = /shards: job (\d+), merge: job (\d+)/.exec(stdout)!;
    await slurm.until(
      'both tasks',
      60,
      () => measuredBy('cut.shards').filter((of) => of.some(({ count }) => count > 1)).length === 2,
    );
    slurm.call('scancel', `${array}`);
    await slurm.until('the end of all jobs', 60, () => slurm.queue().length === 0);
    const job = slurm.call('scontrol', 'show', 'job', `${merge}`);
    expect(job).toMatch(/ExitCode=3:0/);
    const said = readFileSync(join(at('cut.shards'), `slurm-${merge}-merge.out`), 'utf8');
    expect(said).toMatch(
      /^missing: shard 0: \d+ of 40 samples missing \(\d+, [^)]*\.\.\.\)\nmissing: shard 1: /,
    );
    expect(slurm.call('scontrol', 'show', 'job', `${array}_0`)).toMatch(
      /JobState=CANCELLED .*[\s\S]*Restarts=0/,
    );
  });
});

/** What a measurement says but for its times. */
function outputs(file: string): unknown[] {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const { label, sample, key, text, promptTokens, newTokens, cacheBytes } = JSON.parse(line) as Record<
      string,
      unknown
    >;
    return { label, sample, key, text, promptTokens, newTokens, cacheBytes };
  });
}

/** What two runs of the same work share: all but names, moments, commits, times and the process's size. */
function timeless(run: Run): unknown {
  const { id: _, session, createdAt, commit, summary, compile, memory, samples, ...rest } = run;
  return {
    ...rest,
    weightBytes: memory.weightBytes,
    cacheBytes: memory.cacheBytes,
    samples: { rougeL: samples.rougeL, promptTokens: samples.promptTokens, newTokens: samples.newTokens },
  };
}
