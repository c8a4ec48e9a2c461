import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { runCli, writeModelFolder } from './fixture.js';

let scratch: string;
let model: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-inspect-'));
  vi.stubEnv('RESPONSE_TIME_CACHE', join(scratch, 'cache'));
  model = join(scratch, 'model');
  await writeModelFolder(model);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(scratch, { recursive: true });
});

describe('inspect', () => {
  test('forecasts exactly the bytes that loading takes', async () => {
    const { schemes, parameters } = JSON.parse((await runCli(['inspect', model, '--json'])).stdout);
    expect(parameters).toBe(259 * 16 + 48 * 16 + 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16);
    for (const scheme of ['stored', 'f32', 'int8', 'int8-tensor', 'int8-group', 'int4']) {
      const args = ['--prompt', 'Hi', '--new', '1', '--json', '--backend', 'cpu', '--weights', scheme];
      const { memory } = JSON.parse((await runCli(['generate', model, ...args])).stdout);
      const { weightBytes } = schemes.find((line: { scheme: string }) => line.scheme === scheme);
      expect([scheme, memory.weightBytes]).toEqual([scheme, weightBytes]);
    }
  });

  test('says in words what the model is', async () => {
    const { exitCode, stdout, stderr } = await runCli(['inspect', model, '--context', '10']);
    expect([exitCode, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/model +model: gpt2, [\d,]+ parameters\n/);
    expect(stdout).toMatch(/cache +256 B a token, 2\.6 kB for 10\n/);
    expect(stdout).toMatch(/\nint4 .* kB .* kB +yes/);
  });

  test('config.json alone is enough', async () => {
    const bare = join(scratch, 'bare');
    await mkdir(bare);
    await writeFile(join(bare, 'config.json'), JSON.stringify({ model_type: 'gpt2' }));
    const { stdout } = await runCli(['inspect', bare, '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ checkpoint: null, tokenizer: null, parameters: 124_439_808 });
  });

  test.each([
    ['no model', ['nowhere'], /model nowhere: expected a folder or a known model/],
    ['a folder without config.json', [tmpdir()], /expected a folder with config\.json/],
    ['a context too long', ['MODEL', '--context', '49'], /--context: .*48 tokens, received 49/],
  ])('bad input: %s', async (_, args, message) => {
    const { exitCode, stderr } = await runCli(['inspect', ...args.map((arg) => arg.replace('MODEL', model))]);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^error: [^\n]+\n$/);
    expect(exitCode).toBe(1);
  });
});

describe('model', () => {
  test('without arguments lists what is here', async () => {
    await mkdir(join(scratch, 'cache', 'random', 'gpt2'), { recursive: true });
    await writeFile(join(scratch, 'cache', 'random', 'gpt2', 'config.json'), '{}');
    expect((await runCli(['model'])).stdout).toContain(`gpt2\t${join(scratch, 'cache', 'random', 'gpt2')}\n`);
  });

  test('--random leaves a folder that is there as it is', async () => {
    const { exitCode, stdout, stderr } = await runCli(['model', '--random', 'gpt2']);
    expect([exitCode, stdout]).toEqual([0, `${join(scratch, 'cache', 'random', 'gpt2')}\n`]);
    expect(stderr).toMatch(/there already/);
  });

  test('an interrupt while writing leaves nothing', async () => {
    const controller = new AbortController();
    const { Interrupted } = await import('../../lib/cli/errors.js');
    controller.abort(new Interrupted('interrupted', 130));
    const { exitCode } = await runCli(['model', '--random', 'gpt2-medium'], { signal: controller.signal });
    expect(exitCode).toBe(130);
    expect(existsSync(join(scratch, 'cache', 'random', 'gpt2-medium'))).toBe(false);
    expect(await readdir(join(scratch, 'cache', 'random'))).toEqual(['gpt2']);
  });

  test('an unknown shape lists the known ones', async () => {
    const { exitCode, stderr } = await runCli(['model', '--random', 'gpt5']);
    expect(stderr).toMatch(/^error: .*--random.*gpt2-medium[^\n]*\n$/);
    expect(exitCode).toBe(1);
  });
});

describe('models of the hub', () => {
  const commit = '0123456789abcdef0123456789abcdef01234567';

  test('one that is in the cache is known by its id', async () => {
    vi.stubEnv('HF_HUB_CACHE', join(scratch, 'hub'));
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const cache = join(scratch, 'hub', 'models--org--tiny');
    await writeModelFolder(join(cache, 'snapshots', commit));
    await mkdir(join(cache, 'refs'));
    await writeFile(join(cache, 'refs', 'main'), commit);
    const args = ['--backend', 'cpu', '--prompt', 'Hi', '--new', '1', '--json'];
    const { exitCode, stdout } = await runCli(['generate', 'org/tiny', ...args]);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ model: 'org/tiny' });
    expect((await runCli(['model', 'org/tiny'])).stdout).toBe(`${join(cache, 'snapshots', commit)}\n`);
  });

  test('one that is not says how to get it', async () => {
    vi.stubEnv('HF_HUB_CACHE', join(scratch, 'hub'));
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    const unknown = await runCli(['inspect', 'org/other']);
    expect(unknown.stderr).toMatch(/^error: model org\/other: .*response-time model org\/other\n$/);
    const offline = await runCli(['model', 'org/other']);
    expect(offline).toMatchObject({ exitCode: 1, stdout: '' });
    expect(offline.stderr).toMatch(/^error: org\/other: HF_HUB_OFFLINE[^\n]*\n$/);
  });

  test.each([
    ['no id', ['model', 'nonsense'], /owner\/name as on the hub, received "nonsense"/],
    ['both kinds', ['model', 'org/tiny', '--random', 'gpt2'], /received both org\/tiny and --random gpt2/],
  ])('bad input: %s', async (_, args, message) => {
    const { exitCode, stderr } = await runCli(args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^error: [^\n]+\n$/);
    expect(exitCode).toBe(1);
  });
});

describe('results', () => {
  test('says so when there are none; --json has both lists', async () => {
    vi.stubEnv('RESPONSE_TIME_RESULTS', join(scratch, 'results'));
    expect((await runCli(['results'])).stdout).toMatch(/^Yours .*\nNo results yet/);
    const { yours, committed } = JSON.parse((await runCli(['results', '--json'])).stdout);
    expect(yours).toEqual([]);
    expect(Array.isArray(committed)).toBe(true);
  });

  test('a file of another schema is refused by name', async () => {
    const results = join(scratch, 'results');
    await mkdir(results);
    await writeFile(join(results, 'old.run.json'), JSON.stringify({ schemaVersion: 99 }));
    vi.stubEnv('RESPONSE_TIME_RESULTS', results);
    const { exitCode, stderr } = await runCli(['results']);
    expect(stderr).toMatch(/^error: .*old\.run\.json: schemaVersion: expected 1, found 99[^\n]*\n$/);
    expect(exitCode).toBe(1);
  });
});
