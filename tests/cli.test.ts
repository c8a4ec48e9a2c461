import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { formatError } from '../lib/cli/errors.js';
import { createProgram } from '../lib/cli.js';
import { built } from './built.js';
import { runCli, writeModelFolder } from './cli/fixture.js';

const bin = fileURLToPath(new URL('../lib/bin/response-time.js', import.meta.url));
let scratch: string;
let model: string;
beforeAll(async () => {
  built('cli');
  scratch = await mkdtemp(join(tmpdir(), 'cli-'));
  model = join(scratch, 'model');
  await writeModelFolder(model);
});
afterAll(() => rm(scratch, { recursive: true }));

const CPU = ['--backend', 'cpu'];
const start = (...args: string[]) => spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8' });

describe('the program as it is started', () => {
  test.skipIf(!existsSync('/dev/full'))(
    'output that cannot be written is a failure (needs /dev/full)',
    () => {
      const full = openSync('/dev/full', 'w');
      const stdio = ['ignore', full, 'pipe'] as const;
      const { status, stderr } = spawnSync(process.execPath, [bin, '--help'], {
        encoding: 'utf8',
        stdio: [...stdio],
      });
      closeSync(full);
      expect(stderr).toMatch(/^error: [^\n]*ENOSPC[^\n]*\n$/);
      expect(status).toBe(1);
    },
  );

  test('bad input ends with 1 and one line', () => {
    const { status, stdout, stderr } = start('generate', model);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^error: [^\n]+\n$/);
  });

  test('one generation: one JSON object on stdout, nothing on stderr', () => {
    const { status, stdout, stderr } = start(
      'generate',
      model,
      ...CPU,
      '--prompt',
      'Hi',
      '--new',
      '4',
      '--json',
    );
    expect([status, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({ promptIds: [72, 105], model: 'model' });
  });

  test('a reader that goes away early is no failure', async () => {
    const child = spawn(process.execPath, [bin, 'generate', model, ...CPU, '--prompt', 'Hi', '--new', '40']);
    let stderr = '';
    child.stderr.on('data', (chunk) => (stderr += chunk));
    child.stdout.destroy();
    const status = await new Promise((ended) => child.on('close', ended));
    expect(stderr).not.toMatch(/EPIPE|error/);
    expect(status).toBe(0);
  });

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s ends it with %i', async (signal, expected) => {
    const args = ['generate', model, ...CPU, '--prompt', 'Hi', '--new', '40', '--ignore-eos', '--no-cache'];
    const child = spawn(process.execPath, [bin, ...args]);
    child.stdout.once('data', () => child.kill(signal));
    const status = await new Promise((ended) => child.on('close', ended));
    expect(status).toBe(expected);
  });
});

test('--help and no arguments explain', async () => {
  const { exitCode, stdout, stderr } = await runCli(['--help']);
  expect([exitCode, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(/Usage: response-time .*generate.*Start here/s);
  expect((await runCli([])).stdout).toBe(stdout);
});

test('RT_DEBUG adds the stack to an error', async () => {
  vi.stubEnv('RT_DEBUG', '1');
  const { stderr } = await runCli(['generate', 'no-such-model', '--prompt', 'a']);
  vi.unstubAllEnvs();
  expect(stderr).toMatch(/^error: [^\n]+\n.*\n +at /s);
});

test('every command explains itself with examples', async () => {
  const { stdout: output, stderr: errors } = process;
  const program = createProgram({ output, errors, signal: new AbortController().signal, exitCode: 0 });
  expect(program.commands.length).toBeGreaterThan(4);
  for (const command of program.commands) {
    const { exitCode, stdout } = await runCli([command.name(), '--help']);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/Examples?\n +\$ response-time/);
  }
});

test('an unknown command or option suggests the near one', async () => {
  expect((await runCli(['genrate'])).stderr).toBe(
    "error: unknown command 'genrate' (Did you mean generate?)\n",
  );
  expect((await runCli(['results', '--jsn'])).stderr).toBe(
    "error: unknown option '--jsn' (Did you mean --json?)\n",
  );
});

describe('errors as one line', () => {
  test('lists are joined', () => {
    const text = 'x: 2 tensors do not fit:\n  missing a\n  missing b';
    expect(formatError(new Error(text))).toBe('x: 2 tensors do not fit: missing a; missing b');
  });

  test("the system's codes are put into words", () => {
    const error = Object.assign(new Error("EACCES: permission denied, open '/x'"), {
      code: 'EACCES',
      path: '/x',
    });
    expect(formatError(error)).toBe('/x: no permission (EACCES)');
  });

  test('whatever is thrown', () => {
    expect(formatError('text')).toBe('text');
    expect(formatError(new TypeError(''))).toBe('TypeError');
  });
});
