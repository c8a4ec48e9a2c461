import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { check } from '../../lib/notebook/display.js';
import { isLarge, prepareModel, sampleCount, unlessEmbedded } from '../../lib/notebook/models.js';
import { measurePyTorch } from '../../lib/notebook/pytorch.js';
import { readRecord, saveRecord } from '../../lib/notebook/record.js';
import { modelsFolder } from '../../lib/paths.js';

const folder = mkdtempSync(join(tmpdir(), 'record-'));
process.env.RESPONSE_TIME_RESULTS = folder;
const log = vi.spyOn(console, 'log').mockImplementation(() => {});
afterAll(() => {
  log.mockRestore();
  delete process.env.RESPONSE_TIME_RESULTS;
  delete process.env.RESPONSE_TIME_PYTHON;
  rmSync(folder, { recursive: true });
});

test('a record holds figures and checks, and is read again', async () => {
  check('two', 2, { equals: 2 });
  check('three', 2, { atLeast: 3, soft: true });
  const file = await saveRecord('09_test', { figure: 1.5 });
  expect(file).toBe(join(folder, '09_test.json'));
  expect(log).toHaveBeenLastCalledWith('09_test.json written: 1 of 2 checks passed');
  const record = await readRecord<{ figure: number }>('09_test');
  expect(record?.results.figure).toBe(1.5);
  expect(record?.checks.map(({ name, passed }) => [name, passed])).toEqual([
    ['two', true],
    ['three', false],
  ]);
  expect(readdirSync(folder)).toEqual(['09_test.json']); // nothing temporary is left
});

test('what has not run is undefined; what is no record is named', async () => {
  expect(await readRecord('08_none')).toBeUndefined();
  for (const text of ['{', 'null', '{"schemaVersion": 2, "notebook": "08_bad", "results": {}}']) {
    writeFileSync(join(folder, '08_bad.json'), text);
    await expect(readRecord('08_bad')).rejects.toThrow(/08_bad\.json: expected a notebook's record/);
  }
});

test('an embedded model is found by its name, an unknown one lists those that there are', async () => {
  expect(await prepareModel('tiny-gpt2')).toBe(join(modelsFolder(), 'tiny-gpt2'));
  await expect(prepareModel('no-such-model')).rejects.toThrow(/tiny-gpt2/);
});

test('of a larger model fewer samples are measured, of another than the embedded ones less is asked', async () => {
  const limits = { most: 20, least: 4 };
  expect([3_160_000, 30_000_000, 135_000_000].map((size) => sampleCount('auto', size, limits))).toEqual([
    20, 4, 4,
  ]);
  expect(sampleCount('auto', 6_400_000, limits)).toBe(10);
  expect(sampleCount(1000, 135_000_000, limits)).toBe(1000);
  const embedded = join(modelsFolder(), 'tiny-mistral');
  expect(unlessEmbedded(embedded)).toBe(false);
  expect(unlessEmbedded(folder)).toMatch(/embedded/);
  expect(await isLarge(embedded)).toBe(false);
  const config = {
    model_type: 'gpt2',
    vocab_size: 50257,
    n_positions: 1024,
    n_embd: 768,
    n_layer: 12,
    n_head: 12,
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  expect(await isLarge(folder)).toBe(true);
});

test('PyTorch is missing, with the reason, where no Python can import it', async () => {
  process.env.RESPONSE_TIME_PYTHON = join(folder, 'no-python');
  const work = { model: 'x', samples: 1, promptTokens: 1, tokens: 1 };
  const signal = new AbortController().signal;
  expect(await measurePyTorch(work, signal)).toEqual({ missing: 'no Python with torch and transformers' });
  process.env.RESPONSE_TIME_PYTHON = process.execPath; // imports anything, but is no Python
  expect(await measurePyTorch(work, AbortSignal.timeout(20_000))).toHaveProperty('missing');
  await expect(measurePyTorch(work, AbortSignal.abort(new Error('stop')))).rejects.toThrow('stop');
});
