import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { hubServer } from '../hubServer.js';
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

  test('a preset is inspected before it is made', async () => {
    const args = ['mistral-7b-instruct-v0.2', '--context', '2048', '--json'];
    const { schemes, checkpoint } = JSON.parse((await runCli(['inspect', ...args])).stdout);
    expect(checkpoint).toBeNull();
    const int4 = schemes.find(({ scheme }: { scheme: string }) => scheme === 'int4');
    expect(int4.totalBytes / 1e9).toBeCloseTo(4.6, 1);
  });

  test('a model of the hub is inspected without fetching its weights', async () => {
    const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
    const read = async (name: string) => [name, new Uint8Array(await readFile(join(model, name)))] as const;
    const files = Object.fromEntries(await Promise.all(names.map(read)));
    const hub = await hubServer({ files, large: ['model.safetensors'] });
    vi.stubEnv('HF_HUB_OFFLINE', '');
    vi.stubEnv('HF_ENDPOINT', hub.url);
    vi.stubEnv('HF_HUB_CACHE', join(scratch, 'hub'));
    const { exitCode, stdout } = await runCli(['inspect', 'owner/name']);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^model +owner\/name: gpt2/);
    expect(stdout).toMatch(/weights +none here/);
    expect(hub.requests.filter((request) => /resolve.*model\.safetensors/.test(request))).toEqual([]);
    expect((await runCli(['generate', 'owner/name', '--prompt', 'Hi'])).stderr).toMatch(
      /response-time model owner\/name/,
    );
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
