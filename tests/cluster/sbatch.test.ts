import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { type SbatchOptions, sbatchScript } from '../../lib/cluster/sbatch.js';
import { smallPlan } from './fakes.js';

const options: SbatchOptions = {
  ...{ node: '/usr/bin/node', program: '/home/me/my course/cli.js', planFile: "/data/it's/plan.json" },
  ...{ folder: '/data/shards', output: '/data/runs.json', minutes: 90, cpus: 4 },
};
const script = sbatchScript(smallPlan(), { ...options, memory: '8G', gpus: 1, partition: 'gpu' });

test('the script is bash, and asks Slurm for what a resumable array needs', () => {
  expect(spawnSync('bash', ['-n'], { input: script, encoding: 'utf8' }).stderr).toBe('');
  for (const part of [
    '--array=0-2',
    '--requeue',
    '--signal=B:TERM@120',
    '--open-mode=append',
    '--dependency="afterany:$array" --kill-on-invalid-dep=yes',
    'export RT_THREADS="$' + '{RT_THREADS:-4}"',
    '--cpus-per-task=4 --time=90 --mem=8G --partition=gpu --gres=gpu:1',
    "(exec '/usr/bin/node' '/home/me/my course/cli.js' cluster run --plan",
    'if [ "$code" = 75 ] &&',
    'task="$' + '{SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"', // the array's own number is one task's, too
    'scontrol requeue "$task"',
  ]) {
    expect(script).toContain(part);
  }
  expect(script).not.toContain('SLURM_ARRAY_TASK_COUNT');
});

test('a path with a quote in it reaches the shell whole', () => {
  const line = script.split('\n').find((found) => found.startsWith('plan='))!;
  expect(spawnSync('bash', ['-c', `${line}; printf %s "$plan"`], { encoding: 'utf8' }).stdout).toBe(
    "/data/it's/plan.json",
  );
});

test('submitted twice in one folder: the merge waits for its own array, and asks for no GPU', () => {
  const [, merge] = script.split('merge=$(sbatch');
  expect(merge!.split('|| exit')[0]).not.toContain('--gres');
});

test('words that would be commands are refused', () => {
  expect(() => sbatchScript(smallPlan(), { ...options, partition: 'a; rm -rf /' })).toThrow(
    /partition: expected a plain/,
  );
  expect(() => sbatchScript(smallPlan(), { ...options, memory: '$(x)' })).toThrow(
    /memory: expected a plain word/,
  );
});
