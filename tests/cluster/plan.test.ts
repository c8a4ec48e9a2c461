import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { modelDigest, readPlan, shardIndex, shardOf, writePlan } from '../../lib/cluster/plan.js';
import { smallPlan } from './fakes.js';

const scratch = mkdtempSync(join(tmpdir(), 'plan-'));
afterAll(() => rmSync(scratch, { recursive: true }));
const file = join(scratch, 'plan.json');
const plan = smallPlan();

test('a plan is read as it was written, and its fingerprint is of its content', async () => {
  await writePlan(plan, file);
  expect(await readPlan(file)).toEqual(plan);
  expect(smallPlan().fingerprint).toBe(plan.fingerprint);
  expect(smallPlan({ shards: 2 }).fingerprint).not.toBe(plan.fingerprint);
  const shuffled = Object.fromEntries(Object.entries(plan).reverse());
  writeFileSync(file, JSON.stringify(shuffled));
  expect((await readPlan(file)).fingerprint).toBe(plan.fingerprint);
});

test.each([
  [
    'another version',
    (text: string) => text.replace('"schemaVersion": 1', '"schemaVersion": 9'),
    /plan version: expected 1, found 9; make the plan again/,
  ],
  [
    'an edited plan',
    (text: string) => text.replace('"shards": 3', '"shards": 4'),
    /fingerprint: expected "?[0-9a-f]{16}, as its content gives.*a plan is not edited/,
  ],
  [
    'a field that is missing',
    (text: string) => text.replace('"repeats": 1,', ''),
    /repeats: expected a whole number >= 1, found nothing/,
  ],
  ['no JSON', () => '{', /expected a plan in JSON/],
  ['something else', () => '[]', /record: expected an object/],
])('%s is refused', async (_, edit, message) => {
  await writePlan(plan, file);
  writeFileSync(file, edit(readFileSync(file, 'utf8')));
  await expect(readPlan(file)).rejects.toThrow(message);
  await expect(readPlan(file)).rejects.toThrow(file);
});

test('a file that is not there is refused', async () => {
  await expect(readPlan('/nowhere/plan.json')).rejects.toThrow(
    /\/nowhere\/plan\.json: expected a plan, could not/,
  );
});

test('shards, configurations and reference have to fit', () => {
  expect(() => smallPlan({ shards: 8 })).toThrow(/shards: expected 1 to 7, .* received 8/);
  expect(() => smallPlan({ shards: 0 })).toThrow(/received 0/);
  expect(() => smallPlan({ configurations: [] })).toThrow(/configurations: expected one or more/);
  expect(() => smallPlan({ reference: 'C' })).toThrow(/reference: expected one of A, B, received C/);
});

test('every sample is in one shard, and no shard has two more than another', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 300 }), (shards, samples) => {
      fc.pre(shards <= samples);
      const counts = new Array<number>(shards).fill(0);
      for (let sample = 0; sample < samples; sample++) counts[shardOf({ shards }, sample)]!++;
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(samples);
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
    }),
  );
});

describe('the shard', () => {
  test('is the option, else the task of the array, else the index of the job', () => {
    const environment = { SLURM_ARRAY_TASK_ID: '1', JOB_COMPLETION_INDEX: '2', SLURM_ARRAY_TASK_COUNT: '2' };
    expect(shardIndex(plan, '0', environment)).toBe(0);
    expect(shardIndex(plan, undefined, environment)).toBe(1);
    expect(shardIndex(plan, undefined, { JOB_COMPLETION_INDEX: '2' })).toBe(2);
  });

  test.each([
    ['3', {}, /--shard: expected a shard from 0 to 2, as the plan has 3, received 3/],
    ['-1', {}, /received -1/],
    ['1.5', {}, /received 1\.5/],
    [
      undefined,
      { SLURM_ARRAY_TASK_ID: '7' },
      /SLURM_ARRAY_TASK_ID: expected a shard from 0 to 2.* received 7/,
    ],
    [undefined, {}, /--shard: expected .* received nothing/],
  ])('%s of %o is refused', (given, environment, message) => {
    expect(() => shardIndex(plan, given, environment)).toThrow(message);
  });
});

test("a model's digest changes with its config, its tokenizer and the size of its weights", async () => {
  const folder = mkdtempSync(join(scratch, 'model-'));
  const write = (name: string, content: string) => writeFileSync(join(folder, name), content);
  write('config.json', '{}');
  write('model.safetensors', 'weights');
  const digest = await modelDigest(folder);
  write('.lock', '');
  write('README.md', 'hello');
  expect(await modelDigest(folder)).toBe(digest);
  write('config.json', '[]');
  expect(await modelDigest(folder)).not.toBe(digest);
  write('config.json', '{}');
  write('model.safetensors', 'weights and more');
  expect(await modelDigest(folder)).not.toBe(digest);
  await expect(modelDigest('/nowhere')).rejects.toThrow(/nowhere/);
});
