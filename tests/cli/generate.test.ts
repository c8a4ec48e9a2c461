import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FIXTURE_CONTEXT, FIXTURE_VOCAB, runCli, writeModelFolder } from './fixture.js';

let scratch: string;
let model: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-generate-'));
  model = join(scratch, 'byte-model');
  await writeModelFolder(model);
});
afterAll(() => rm(scratch, { recursive: true }));

const generate = (...args: string[]) => runCli(['generate', model, '--backend', 'cpu', ...args]);

interface Answer {
  readonly promptIds: number[];
  readonly newIds: number[];
  readonly text: string | null;
  readonly logits: number[] | null;
  readonly [field: string]: unknown;
}

async function answer(...args: string[]): Promise<Answer> {
  const { exitCode, stdout, stderr } = await generate('--json', ...args);
  expect(stderr).toBe('');
  expect(exitCode).toBe(0);
  return JSON.parse(stdout) as Answer;
}

describe('--json', () => {
  test('prints one object with all fields', async () => {
    const { exitCode, stdout } = await generate(
      '--prompt',
      'Hi',
      '--new',
      '3',
      '--ignore-eos',
      '--logits',
      '--json',
    );
    expect(exitCode).toBe(0);
    expect(stdout.match(/\n/g)).toHaveLength(1);
    const result = JSON.parse(stdout) as Answer;
    expect(result).toMatchObject({
      promptIds: [72, 105],
      text: expect.any(String),
      firstTokenMs: expect.any(Number),
      msPerToken: expect.any(Number),
      memory: {
        weightBytes: expect.any(Number),
        cacheBytes: expect.any(Number),
        peakRssBytes: expect.any(Number),
      },
      weights: 'stored',
      target: 'eager',
      compiled: null,
      backend: 'cpu',
      model: 'byte-model',
    });
    expect(result.newIds).toHaveLength(3);
    expect(result.logits).toHaveLength(FIXTURE_VOCAB);
    expect(result.logits!.indexOf(Math.max(...result.logits!))).toBe(result.newIds[0]);
  });

  test('the prompt as ids gives the same as the prompt as text', async () => {
    const fromText = await answer('--prompt', 'Hi', '--new', '5');
    const fromIds = await answer('--prompt-ids', '72, 105', '--new', '5');
    expect(fromIds.newIds).toEqual(fromText.newIds);
    expect(fromIds.logits).toBeNull();
  });

  test('cached equals uncached, the seed decides what is drawn', async () => {
    const drawn = ['--prompt', 'Hi', '--new', '6', '--temperature', '1', '--top-k', '50', '--top-p', '0.9'];
    const first = await answer(...drawn, '--seed', '1');
    expect((await answer(...drawn, '--seed', '1', '--no-cache')).newIds).toEqual(first.newIds);
    expect((await answer(...drawn, '--seed', '2')).newIds).not.toEqual(first.newIds);
  });

  test('one new token has no time per token', async () => {
    expect(await answer('--prompt', 'Hi', '--new', '1')).toMatchObject({ msPerToken: null });
  });

  test.each(['f32', 'int8', 'int8-tensor', 'int4'])('--weights %s', async (weights) => {
    expect(await answer('--prompt', 'Hi', '--new', '1', '--weights', weights)).toMatchObject({ weights });
  });

  test('--chat puts the prompt into the template', async () => {
    expect((await answer('--prompt', 'Hi', '--chat', '--new', '1')).promptIds).toEqual([91, 72, 105, 93]);
  });
});

test('text goes to stdout as --json has it, the figures to stderr in one line', async () => {
  const { stdout, stderr } = await generate('--prompt', 'Hi', '--new', '12');
  expect(stdout).toBe(`${(await answer('--prompt', 'Hi', '--new', '12')).text}\n`);
  expect(stderr).toMatch(/^12 tokens in .* first .* tokens\/s.*weights stored .*cpu, op by op\n$/);
});

test('without a tokenizer the ids are printed', async () => {
  const bare = join(scratch, 'bare');
  await writeModelFolder(bare);
  await rm(join(bare, 'tokenizer.json'));
  const { stdout, exitCode } = await runCli([
    'generate',
    bare,
    '--backend',
    'cpu',
    '--prompt-ids',
    '5,6',
    '--new',
    '3',
  ]);
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/^\d+ \d+ \d+\n$/);
  const failed = await runCli(['generate', bare, '--backend', 'cpu', '--prompt', 'Hi']);
  expect(failed).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/needs a tokenizer\.json.*--prompt-ids/),
  });
});

test('top-k at temperature 0 is said to change nothing', async () => {
  const { exitCode, stderr } = await generate('--prompt', 'Hi', '--new', '1', '--top-k', '5', '--json');
  expect(exitCode).toBe(0);
  expect(stderr).toMatch(/^note: .*temperature 0/);
});

describe('bad input ends with 1, one line on stderr and nothing on stdout', () => {
  test.each([
    ['neither prompt', [], /--prompt TEXT or --prompt-ids/],
    ['both prompts', ['--prompt', 'a', '--prompt-ids', '1'], /cannot be used with/],
    ['empty prompt', ['--prompt', ''], /--prompt: .*empty/],
    ['empty ids', ['--prompt-ids', ''], /--prompt-ids.*Expected whole numbers/],
    ['a negative id', ['--prompt-ids', '-1'], /--prompt-ids.*received "-1"/],
    ['words for ids', ['--prompt-ids', '1,two'], /received "two"/],
    ['an id outside', ['--prompt-ids', `1,${FIXTURE_VOCAB}`], /0 to 258, received 259/],
    ['--new 0', ['--prompt', 'a', '--new', '0'], /--new.*at least 1/],
    ['--new -1', ['--prompt', 'a', '--new', '-1'], /--new.*at least 1/],
    ['--new 1.5', ['--prompt', 'a', '--new', '1.5'], /--new.*whole number/],
    ['--new NaN', ['--prompt', 'a', '--new', 'NaN'], /--new.*whole number/],
    ['--temperature -1', ['--prompt', 'a', '--temperature', '-1'], /--temperature.*from 0/],
    ['--temperature x', ['--prompt', 'a', '--temperature', 'x'], /--temperature.*from 0/],
    ['--top-p 1.5', ['--prompt', 'a', '--top-p', '1.5'], /--top-p.*at most 1/],
    ['--top-p 0', ['--prompt', 'a', '--top-p', '0'], /--top-p.*above 0/],
    ['--top-k 0', ['--prompt', 'a', '--top-k', '0'], /--top-k.*at least 1/],
    ['--seed too large', ['--prompt', 'a', '--seed', String(2 ** 48)], /--seed/],
    ['unknown scheme', ['--prompt', 'a', '--weights', 'int7'], /--weights.*int8-tensor/],
    ['unknown target', ['--prompt', 'a', '--target', 'tpu'], /--target.*eager/],
    ['unknown option', ['--pormpt', 'a'], /unknown option.*--prompt/],
    ['--logits alone', ['--prompt', 'a', '--logits'], /--logits.*--json/],
    ['too much for the context', ['--prompt', 'abc'], /3 prompt tokens and 64 new.*48.*46/],
    ['a prompt too long', ['--prompt', 'x'.repeat(FIXTURE_CONTEXT + 1), '--new', '1'], /49 tokens.*48/],
  ])('%s', async (_, args, message) => {
    const { exitCode, stdout, stderr } = await generate(...args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^error: [^\n]+\n$/);
    expect(stdout).toBe('');
    expect(exitCode).toBe(1);
  });

  test('an unknown model lists those that are known', async () => {
    const { exitCode, stderr } = await runCli(['generate', 'no-such-model', '--prompt', 'a']);
    expect(stderr).toMatch(
      /^error: model no-such-model: expected a folder or a known model .*model --random gpt2.*\n$/,
    );
    expect(exitCode).toBe(1);
  });
});

test('an interrupt stops with 130 and no JSON', async () => {
  const controller = new AbortController();
  const { Interrupted } = await import('../../lib/cli/errors.js');
  controller.abort(new Interrupted('interrupted', 130));
  const args = ['generate', model, '--backend', 'cpu', '--prompt', 'Hi', '--json'];
  const { exitCode, stdout, stderr } = await runCli(args, { signal: controller.signal });
  expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 130, stdout: '', stderr: 'interrupted\n' });
});
