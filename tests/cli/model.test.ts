import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { hubServer } from '../hubServer.js';
import { runCli, writeModelFolder } from './fixture.js';

let scratch: string;
let model: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-model-'));
  vi.stubEnv('RESPONSE_TIME_CACHE', join(scratch, 'cache'));
  model = join(scratch, 'model');
  await writeModelFolder(model);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(scratch, { recursive: true });
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

  const modelFiles = async () =>
    Object.fromEntries(
      await Promise.all(
        ['config.json', 'tokenizer.json', 'model.safetensors'].map(
          async (name) => [name, new Uint8Array(await readFile(join(model, name)))] as const,
        ),
      ),
    );

  test('one that the hub has is fetched, and runs', async () => {
    const hub = await hubServer({ files: await modelFiles(), large: ['model.safetensors'] });
    vi.stubEnv('HF_HUB_OFFLINE', '');
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('HF_HUB_CACHE', join(scratch, 'fetched'));
    const { exitCode, stdout } = await runCli(['model', 'owner/name']);
    expect(exitCode).toBe(0);
    expect(await readdir(stdout.trim())).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect((await runCli(['inspect', 'owner/name'])).stdout).toMatch(/^model +owner\/name: gpt2/);
  });

  test.each([
    ['a gated model', { token: 'secret' }, /HF_TOKEN/],
    [
      'an architecture that is not known',
      { config: '{"model_type":"bert"}' },
      /config\.json: model_type: .*bert/,
    ],
  ])(
    '%s is refused in one line, without its weights',
    async (_, { token, config }: { token?: string; config?: string }, message) => {
      const files = { ...(await modelFiles()), ...(config && { 'config.json': config }) };
      const hub = await hubServer({ files, large: ['model.safetensors'], ...(token && { token }) });
      vi.stubEnv('HF_HUB_OFFLINE', '');
      vi.stubEnv('HF_ENDPOINT', hub.url);
      vi.stubEnv('HF_HUB_CACHE', join(scratch, `refused-${token}`));
      vi.stubEnv('HF_TOKEN', '');
      vi.stubEnv('HF_HOME', join(scratch, 'home'));
      const { exitCode, stdout, stderr } = await runCli(['model', 'owner/name']);
      expect(stderr).toMatch(message);
      expect(stderr).toMatch(/^error: [^\n]+\n$/);
      expect([exitCode, stdout]).toEqual([1, '']);
      expect(
        hub.requests.some((request) => request.includes('resolve') && request.includes('safetensors')),
      ).toBe(false);
    },
  );

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
