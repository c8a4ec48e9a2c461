import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { collectShards, mergedRuns, summarizeJudged } from '../../lib/cluster/merge.js';
import { runShard } from '../../lib/cluster.js';
import { checkRun } from '../../lib/results.js';
import { both, prompts, smallPlan } from './fakes.js';

// Asking git takes longer than all the rest.
vi.mock('../../lib/results/machine.js', async (original) => ({
  ...(await original<typeof import('../../lib/results/machine.js')>()),
  projectCommit: () => 'c'.repeat(40),
}));

const scratch = mkdtempSync(join(tmpdir(), 'merge-'));
afterAll(() => rmSync(scratch, { recursive: true }));
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(scratch, 'shards-'));
});
const plan = smallPlan();
const run = (shard: number, attempt = `a${shard}`) =>
  runShard(plan, shard, both, { prompts, folder, attempt, warmUp: 0 });
const fileOf = (shard: number) => join(folder, `shard-000${shard}.a${shard}.jsonl`);
const change = (shard: number, edit: (text: string) => string) =>
  writeFileSync(fileOf(shard), edit(readFileSync(fileOf(shard), 'utf8')));
const machineId = () => /"machine":\{"id":"([0-9a-f]+)"/.exec(readFileSync(fileOf(0), 'utf8'))![1]!;

describe('what is missing', () => {
  test('shards without a file, and samples of those that have one, by name', async () => {
    await run(0);
    await run(1);
    change(1, (text) => text.split('\n').slice(0, 5).join('\n')); // header, two facts, A and B of sample 1, no newline
    const merged = await collectShards(plan, folder);
    expect(merged.missing).toEqual([
      'shard 1: 2 of 2 samples missing (1, 4)',
      'shard 2: no file; 2 of 2 samples missing (2, 5)',
    ]);
    expect(() => mergedRuns(plan, merged)).toThrow(
      /expected a complete run; shard 1: 2 of 2 .*; shard 2: no file/,
    );
  });

  test('a folder that is not there lacks everything', async () => {
    expect((await collectShards(plan, join(folder, 'none'))).missing).toHaveLength(3);
  });

  test('answers that were not compared, if the plan wants it', async () => {
    const comparing = smallPlan({ reference: 'A', shards: 1 });
    await runShard(comparing, 0, both, { prompts, folder, attempt: 'x', warmUp: 0 });
    expect((await collectShards(comparing, folder)).missing).toEqual([
      'shard 0: 7 of 7 samples missing (0, 1, 2, 3, 4, ...)',
    ]);
  });
});

describe('what does not belong', () => {
  test("another plan's shard, another version's, a shard that the plan does not have", async () => {
    await run(0);
    const other = smallPlan({ newTokens: 4 });
    await expect(collectShards(other, folder)).rejects.toThrow(
      /expected measurements of plan .* found those of plan/,
    );
    await expect(collectShards({ ...plan, shards: 0 }, folder)).rejects.toThrow(/expected shards 0 to -1/);
    change(0, (text) => text.replace('"schemaVersion":1', '"schemaVersion":2'));
    await expect(collectShards(plan, folder)).rejects.toThrow(/line 1: schemaVersion: expected 1, found 2/);
  });

  test('a measurement that the plan does not name', async () => {
    await run(0);
    change(0, (text) => text.replaceAll(plan.samples[3]!.keys[0]!, '3-0123456789abcdef-0'));
    await expect(collectShards(plan, folder)).rejects.toThrow(
      /sample 3-0123456789abcdef-0: expected a measurement that/,
    );
  });
});

test('a configuration that is no key of ours', async () => {
  await run(0);
  change(0, (text) => text.replace('"configuration":"[\\"B', '"configuration":"B'));
  await expect(collectShards(plan, folder)).rejects.toThrow(
    /shard-0000\.a0\.jsonl: configuration: expected a list/,
  );
});

test('a text that two attempts do not agree on is counted', async () => {
  await run(0);
  await run(0, 'again');
  writeFileSync(
    join(folder, 'shard-0000.b.jsonl'),
    readFileSync(fileOf(0), 'utf8').replace('"answer 3"', '"42"'),
  );
  expect(await collectShards(plan, folder)).toMatchObject({ doubles: 6, unequalDoubles: 1 });
});

describe('machines', () => {
  const merged = async () => mergedRuns(plan, await collectShards(plan, folder));
  beforeEach(async () => {
    for (const shard of [0, 1, 2]) await run(shard);
  });

  test('of one kind share a record, which says where each sample is from', async () => {
    const id = machineId();
    change(1, (text) => text.replaceAll(id, 'b'.repeat(12)));
    const runs = await merged();
    expect(runs).toHaveLength(2);
    expect(runs[0]!.samples.machineIds).toEqual(prompts.map((_, i) => (i % 3 === 1 ? 'b'.repeat(12) : id)));
    expect([id, 'b'.repeat(12)]).not.toContain(runs[0]!.machine.id);
    expect(runs[0]!.notes.at(-1)).toBe(
      `measured on 2 machines of one kind, by id (samples): ${id} (5), bbbbbbbbbbbb (2)`,
    );
    expect(checkRun(JSON.parse(JSON.stringify(runs[0])), 'run')).toBeTruthy();
  });

  test.each([
    ['processor', (text: string) => text.replaceAll(/"cpu":"[^"]*"/g, '"cpu":"Other"'), /Other, \d+ cores/],
    ['GPU', (text: string) => text.replaceAll('"cpu":', '"gpu":"Example GPU","cpu":'), /Example GPU/],
    ['Node', (text: string) => text.replaceAll(/"version":"[^"]*"/g, '"version":"1.2.3"'), /Node 1\.2\.3/],
    [
      'commit',
      (text: string) => text.replaceAll(/"commit":("[^"]*"|null)/g, `"commit":"${'e'.repeat(40)}"`),
      /commit eeeeeeeeee$/,
    ],
  ])('with another %s get a record of their own, and both say so', async (_, edit, name) => {
    change(1, edit);
    const runs = await merged();
    expect(runs.map(({ label, samples }) => [label, samples.latencyMs])).toEqual([
      ['A', [30, 33, 36, 32, 35].sort()],
      ['A', [31, 34]],
      ['B', [30, 33, 36, 32, 35].sort()],
      ['B', [31, 34]],
    ]);
    expect(runs[0]!.notes.at(-1)).toMatch(name);
    expect(runs[0]!.notes.at(-1)).toMatch(
      /^merged from 2 kinds of machines: these are 5 of 7 samples, those of /,
    );
    expect(runs[0]!.session).toBe(runs[2]!.session);
    expect(runs[0]!.session).not.toBe(runs[1]!.session);
  });
});

test('judged answers: perplexity of all tokens together, divergence of all positions', () => {
  const judged = [
    { logProbability: -2, tokens: 2, klDivergence: [0, 0.1], sameTop: 2 },
    { logProbability: -4, tokens: 1, klDivergence: [0.5], sameTop: 0 },
  ];
  expect(summarizeJudged(judged)).toEqual({
    perplexity: Math.exp(2),
    klMean: 0.6 / 3,
    klP99: expect.closeTo(0.492, 10),
    sameTopToken: 2 / 3,
  });
  expect(summarizeJudged([{ logProbability: -1, tokens: 1, klDivergence: [], sameTop: 1 }])).toEqual({
    perplexity: Math.E,
  });
});
