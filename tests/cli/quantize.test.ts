import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCli, writeModelFolder } from './fixture.js';

let scratch: string;
let model: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-quantize-'));
  model = join(scratch, 'model');
  await writeModelFolder(model);
});
afterAll(() => rm(scratch, { recursive: true }));

async function newIds(folder: string, ...args: string[]): Promise<unknown> {
  const common = [
    '--backend',
    'cpu',
    '--prompt',
    'Hello',
    '--new',
    '8',
    '--logits',
    '--json',
    '--ignore-eos',
  ];
  const { stdout } = await runCli(['generate', folder, ...common, ...args]);
  const { newIds, logits, weights } = JSON.parse(stdout);
  return { newIds, logits, weights };
}

test.each(['int8', 'int8-tensor', 'int4'])(
  '%s on disk is the same as quantized while loading',
  async (scheme) => {
    const folder = join(scratch, scheme);
    const { exitCode, stdout } = await runCli(['quantize', model, folder, '--scheme', scheme]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(
      / smaller than float32 .* smaller than float16 .*; most noise in .* dB; \d+\.\d s, at most [\d.]+ [MG]B of memory\n$/,
    );
    expect(await newIds(folder)).toEqual(await newIds(model, '--weights', scheme));
  },
);

test('the report counts bytes; --keep leaves layers as they are', async () => {
  const folder = join(scratch, 'mixed');
  const args = ['quantize', model, folder, '--scheme', 'int8', '--keep', 'h.*.attn.*', '--json'];
  const report = JSON.parse((await runCli(args)).stdout);
  expect(report).toMatchObject({
    model,
    seconds: expect.any(Number),
    machine: { cores: expect.any(Number) },
  });
  expect(report.peakRssBytes).toBeGreaterThan(2 ** 20);
  expect(report.f32Bytes).toBe(2 * report.f16Bytes);
  const kinds = new Map(report.layers.map(({ path, kind }: { path: string; kind: string }) => [path, kind]));
  expect(kinds.get('h.0.attn.c_attn.kernel')).toBe('float');
  expect(kinds.get('h.0.mlp.c_fc.kernel')).toBe('int8');
});

test('a folder that holds something is refused and left alone', async () => {
  const folder = join(scratch, 'full');
  await mkdir(folder);
  await writeFile(join(folder, 'notes.txt'), 'mine');
  const { exitCode, stderr } = await runCli(['quantize', model, folder, '--scheme', 'int8']);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/^error: .*full: expected a new or empty folder, found notes\.txt in it\n$/);
  expect(await readdir(folder)).toEqual(['notes.txt']);
});

test('an interrupt leaves nothing behind', async () => {
  const folder = join(scratch, 'never');
  const controller = new AbortController();
  const { Interrupted } = await import('../../lib/cli/errors.js');
  controller.abort(new Interrupted('interrupted', 130));
  const { exitCode } = await runCli(['quantize', model, folder, '--scheme', 'int8'], {
    signal: controller.signal,
  });
  expect(exitCode).toBe(130);
  expect(existsSync(folder)).toBe(false);
  expect((await readdir(scratch)).filter((name) => name.includes('.tmp'))).toEqual([]);
});

test.each([
  ['no scheme', [], /required option.*--scheme/],
  ['unknown scheme', ['--scheme', 'int3'], /--scheme.*int8-tensor/],
  ['stored is no scheme', ['--scheme', 'stored'], /--scheme/],
  ['group size', ['--scheme', 'int4', '--group', '48'], /--group.*32/],
])('bad input: %s', async (_, args, message) => {
  const { exitCode, stderr } = await runCli(['quantize', model, join(scratch, 'x'), ...args]);
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n$/);
  expect(exitCode).toBe(1);
});
