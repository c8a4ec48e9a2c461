import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeEach, expect, test, vi } from 'vitest';
import { SampleStore } from '../../lib/results/samples.js';
import { number } from '../../lib/results/validate.js';
import { built } from '../built.js';

// A disk that is full while `full` is set: the real file system otherwise.
const disk = vi.hoisted(() => ({ full: false }));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const open: typeof real.open = async (...parameters) => {
    const handle = await real.open(...parameters);
    const appendFile = handle.appendFile.bind(handle);
    handle.appendFile = async (...content) => {
      if (!disk.full) return appendFile(...content);
      await appendFile('{"configuration":"f3');
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    };
    return handle;
  };
  return { ...real, open };
});

const scratch = mkdtempSync(join(tmpdir(), 'samples-'));
afterAll(() => rmSync(scratch, { recursive: true }));
let file = '';
beforeEach(() => {
  file = join(mkdtempSync(join(scratch, 'folder-')), 'deep', 'run.jsonl');
});

const PLAN = 'gpt2, 15 tokens, prompts v1';
const open = () => SampleStore.open(file, PLAN, number(0));

test('samples are there again after closing, by configuration, in order', async () => {
  const store = await open();
  await Promise.all([store.append('f32', 'a', 1), store.append('int8', 'a', 2), store.append('f32', 'b', 3)]);
  expect(await store.append('f32', 'a', 9)).toBe(false);
  await store.close();
  const again = await open();
  expect([...again.of('f32')]).toEqual([
    ['a', 1],
    ['b', 3],
  ]);
  expect([...again.of('int8')]).toEqual([['a', 2]]);
  expect([...again.of('never')]).toEqual([]);
  expect(again.has('int8', 'a')).toBe(true);
  expect(again.has('int8', 'b')).toBe(false);
  expect(again.droppedBytes).toBe(0);
  await again.close();
  expect(readFileSync(file, 'utf8').trimEnd().split('\n')).toHaveLength(4);
});

test('cut at any byte: the samples before are there, the rest can be added, none twice', async () => {
  const store = await open();
  for (let i = 0; i < 5; i++) await store.append('é', `${i}`, i);
  await store.close();
  const whole = readFileSync(file);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: whole.length }), async (bytes) => {
      writeFileSync(file, whole.subarray(0, bytes));
      const torn = await open();
      const kept = torn.of('é').size;
      expect(kept).toBe(Math.max(0, whole.subarray(0, bytes).toString().split('\n').length - 2));
      for (let i = 0; i < 5; i++) expect(await torn.append('é', `${i}`, i)).toBe(i >= kept);
      await torn.close();
      expect(readFileSync(file).equals(whole)).toBe(true);
    }),
    { numRuns: 60 },
  );
});

test('a process killed while it writes loses at most the sample in hand', async () => {
  const script = `
    import { SampleStore } from ${JSON.stringify(built('results/samples'))};
    const store = await SampleStore.open(${JSON.stringify(file)}, ${JSON.stringify(PLAN)});
    for (let i = 0; ; i++) { await store.append('f32', String(i), i); if (i === 50) console.log('go'); }`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script]);
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  const store = await open();
  const samples = [...store.of('f32').values()];
  expect(samples.length).toBeGreaterThan(50);
  expect(samples).toEqual(samples.map((_, i) => i));
  await store.close();
});

test.each([
  [
    'another plan',
    (text: string) => text.replace(PLAN, 'gpt2, 50 tokens'),
    /line 1: plan: expected "?gpt2, 15.*found "gpt2, 50 tokens"; move the file away/,
  ],
  [
    'another version',
    (text: string) => text.replace('"schemaVersion":1', '"schemaVersion":2'),
    /line 1: schemaVersion: expected 1, found 2/,
  ],
  ['another kind of file', () => '{"cells":[]}\n', /line 1: cells: expected one of kind/],
  [
    'a spoilt line before the last',
    (text: string) => text.replace('"sample":"a"', '"sample":'),
    /line 2: expected JSON/,
  ],
  [
    'a value that does not fit',
    (text: string) => text.replace('"value":1', '"value":-1'),
    /line 2: value: expected a number >= 0, found -1/,
  ],
])('%s is refused with file and line, and left as it is', async (_, spoil, message) => {
  const store = await open();
  await store.append('f32', 'a', 1);
  await store.append('f32', 'b', 2);
  await store.close();
  const spoilt = spoil(readFileSync(file, 'utf8'));
  writeFileSync(file, spoilt);
  await expect(open()).rejects.toThrow(message);
  await expect(open()).rejects.toThrow(file);
  expect(readFileSync(file, 'utf8')).toBe(spoilt);
});

test('a sample written twice, by two attempts, counts once', async () => {
  const store = await open();
  await store.append('f32', 'a', 1);
  await store.close();
  appendFileSync(file, '{"configuration":"f32","sample":"a","value":7}\n');
  const again = await open();
  expect([...again.of('f32')]).toEqual([['a', 1]]);
  await again.close();
});

test('a full disk is an error that names the file, which then ends with the sample before', async () => {
  const store = await open();
  await store.append('f32', 'a', 1);
  disk.full = true;
  await expect(store.append('f32', 'b', 2)).rejects.toThrow(/run\.jsonl: could not write, the disk is full/);
  disk.full = false;
  expect(store.has('f32', 'b')).toBe(false);
  expect(await store.append('f32', 'c', 3)).toBe(true);
  await store.close();
  const again = await open();
  expect([...again.of('f32')].map(([sample]) => sample)).toEqual(['a', 'c']);
  expect(again.droppedBytes).toBe(0);
  await again.close();
});

test('a value that JSON cannot hold is refused before it is written', async () => {
  const store = await SampleStore.open<number | undefined>(file, PLAN);
  await expect(store.append('f32', 'a', undefined)).rejects.toThrow(/sample\.value: expected a value/);
  await expect(store.append('', 'a', 1)).rejects.toThrow(/sample\.configuration: expected a text/);
  await store.close();
  expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(2);
});
