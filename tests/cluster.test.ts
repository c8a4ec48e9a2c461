import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { benchmarkTogether } from '../lib/benchmark.js';
import { attemptName } from '../lib/cluster/files.js';
import { collectShards, mergedRuns } from '../lib/cluster/merge.js';
import type { ClusterPlan } from '../lib/cluster/plan.js';
import type { ShardProgress } from '../lib/cluster/progress.js';
import { runShard } from '../lib/cluster.js';
import { ratio } from '../lib/results/compare.js';
import type { Run } from '../lib/results.js';
import { both, fake, prompts, smallPlan } from './cluster/fakes.js';

// Asking git takes longer than all the rest.
vi.mock('../lib/results/machine.js', async (original) => ({
  ...(await original<typeof import('../lib/results/machine.js')>()),
  projectCommit: () => 'c'.repeat(40),
}));

const scratch = mkdtempSync(join(tmpdir(), 'cluster-'));
afterAll(() => rmSync(scratch, { recursive: true }));
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(scratch, 'shards-'));
});

const plan = smallPlan();
const run = (
  shard: number,
  options: Partial<Parameters<typeof runShard<readonly number[]>>[3]> = {},
  of = plan,
) => runShard(of, shard, both, { prompts, folder, attempt: attemptName({}), warmUp: 0, ...options });
const runAll = async (of: ClusterPlan = plan) => {
  for (let shard = 0; shard < of.shards; shard++) await run(shard, {}, of);
};
const timeless = ({ id: _, session, createdAt, memory, checks, ...rest }: Run) => ({
  ...rest,
  memory: { ...memory, peakRssBytes: 0 },
});

describe('shards', () => {
  test('merged, they are the Runs of one machine', async () => {
    const repeated = smallPlan({ repeats: 2 });
    await runAll(repeated);
    const merged = mergedRuns(repeated, await collectShards(repeated, folder));
    const references = repeated.samples.map(({ output }) => output);
    const alone = await benchmarkTogether(both, { samples: prompts, references, repeats: 2, warmUp: 0 });
    expect(merged.map(timeless)).toEqual(alone.map(timeless));
    expect(merged[0]!.samples.latencyMs).toHaveLength(14);
    expect(merged.map(({ quality }) => quality?.exactMatch)).toEqual([1, 0]);
  });

  test('each measures its own samples, in turns, once', async () => {
    const seen: string[] = [];
    const watched = ['A', 'B'].map((label) => fake(label, (sample) => void seen.push(`${label}${sample}`)));
    const first = await runShard(plan, 1, watched, { prompts, folder, attempt: 'x', warmUp: 0 });
    expect(seen).toEqual(['A1', 'B1', 'A4', 'B4']);
    expect(first).toMatchObject({ done: 4, total: 4, failed: 0, file: join(folder, 'shard-0001.x.jsonl') });
    await runShard(plan, 1, watched, { prompts, folder, attempt: 'y', warmUp: 0 });
    expect(seen).toHaveLength(4);
  });

  test('stopped, one goes on in a new file where it was', async () => {
    const stop = new AbortController();
    const stopped = run(0, {
      signal: stop.signal,
      onProgress: ({ done }) => done === 3 && stop.abort(new Error('SIGTERM')),
    });
    await expect(stopped).rejects.toThrow('SIGTERM');
    const seen: ShardProgress[] = [];
    await run(0, { onProgress: (progress) => seen.push(progress) });
    expect(seen.map(({ done }) => done)).toEqual([3, 4, 5, 6]);
    expect(readdirSync(folder)).toHaveLength(2);
    await run(1);
    await run(2);
    expect(await collectShards(plan, folder)).toMatchObject({ doubles: 0, missing: [] });
  });

  test('of which all files are cut at any byte, they go on, and nothing is lost but the sample in hand', async () => {
    await runAll();
    const whole = readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))] as const);
    const longest = Math.max(...whole.map(([, bytes]) => bytes.length));
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: longest }), async (bytes) => {
        for (const name of readdirSync(folder)) rmSync(join(folder, name));
        for (const [name, content] of whole) writeFileSync(join(folder, name), content.subarray(0, bytes));
        const kept = whole.map(
          ([, content]) => content.subarray(0, bytes).toString().split('"latencyMs"').length - 1,
        );
        const before = await collectShards(plan, folder);
        const sum = kept.reduce((total, count) => total + count, 0);
        expect(before.samples.length).toBeGreaterThanOrEqual(sum - plan.shards); // a torn last line may hold the word
        await runAll();
        const after = await collectShards(plan, folder);
        expect([after.samples.length, after.doubles, after.missing]).toEqual([14, 0, []]);
      }),
      { numRuns: 15 },
    );
  });

  test('two attempts at once write two files, and what both measured counts once', async () => {
    await Promise.all([run(0), run(0), run(1), run(2)]);
    expect(readdirSync(folder)).toHaveLength(4);
    const merged = await collectShards(plan, folder);
    expect(merged).toMatchObject({ doubles: 6, unequalDoubles: 0, missing: [] });
    expect(mergedRuns(plan, merged)[0]!.samples.latencyMs).toEqual(prompts.map((_, i) => 30 + i));
  });

  test('a measurement that fails is told and left out; started again, it is tried again', async () => {
    const told: (string | null)[] = [];
    let broken = true;
    const breaks = fake('B', (sample) => {
      if (broken && sample === 3) throw new RangeError('prompt: too long');
    });
    const options = { prompts, folder, warmUp: 0 };
    const outcome = await runShard(plan, 0, [fake('A'), breaks], {
      ...options,
      attempt: 'x',
      onProgress: ({ lastError }) => told.push(lastError),
    });
    expect(outcome).toMatchObject({ done: 5, total: 6, failed: 1 });
    expect(told.at(-1)).toBe('prompt: too long');
    expect((await collectShards(plan, folder)).missing[0]).toBe('shard 0: 1 of 3 samples missing (3)');
    broken = false;
    const again = await runShard(plan, 0, [fake('A'), breaks], { ...options, attempt: 'y' });
    expect(again).toMatchObject({ done: 6, failed: 0 });
  });

  test('a clock that jumps changes no duration and no forecast', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    try {
      const seen: ShardProgress[] = [];
      const jumping = fake('A', (sample) => void vi.setSystemTime(sample % 2 === 0 ? 0 : 4e12));
      const single = smallPlan({ configurations: ['A'], shards: 1 });
      await runShard(single, 0, [jumping], {
        ...{ prompts, folder, attempt: 'x', warmUp: 0 },
        onProgress: (progress) => seen.push(progress),
      });
      const remaining = seen.slice(1).map(({ remainingMs }) => remainingMs!);
      expect(remaining).toHaveLength(7);
      expect(remaining.every((ms) => ms >= 0 && ms < 60_000)).toBe(true);
      const [merged] = mergedRuns(single, await collectShards(single, folder));
      expect(merged!.samples.latencyMs).toEqual(prompts.map((_, i) => 30 + i));
    } finally {
      vi.useRealTimers();
    }
  });

  test('other prompts or configurations than the plan names are refused before anything is written', async () => {
    const others = prompts.with(2, [9, 9]);
    await expect(run(0, { prompts: others })).rejects.toThrow(
      /sample 2 differs; is it the plan's model and tokenizer/,
    );
    const alone = runShard(plan, 0, [fake('A')], { prompts, folder, attempt: 'x' });
    await expect(alone).rejects.toThrow(/configurations: expected A, B, received A/);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("a file of the same shard that is another plan's is refused", async () => {
    await run(0);
    await expect(run(0, {}, smallPlan({ dataset: 'other.json' }))).rejects.toThrow(
      /shard-0000.*: expected measurements of plan [0-9a-f]{16}, shard 0, found those of plan [0-9a-f]{16}, shard 0; one folder/,
    );
  });

  test('a spoilt line is named', async () => {
    await run(0, { attempt: 'x' });
    appendFileSync(join(folder, 'shard-0000.x.jsonl'), 'not JSON\n');
    await expect(run(0)).rejects.toThrow(/shard-0000\.x\.jsonl, line \d+: expected JSON, found not JSON/);
  });
});

test('configurations of one machine share a session, whatever runs them: their ratios are side by side', async () => {
  const compiled = { ...fake('B'), target: 'wasm', backend: 'wasm', mode: 'scan', weights: 'int8' } as const;
  const single = smallPlan({ shards: 1 });
  await runShard(single, 0, [fake('A'), compiled], { prompts, folder, attempt: 'x', warmUp: 0 });
  const [a, b] = mergedRuns(single, await collectShards(single, folder));
  expect(ratio(b!, a!)).toEqual({ value: 1, sideBySide: true });
});

test('an attempt is named after its Slurm job and restart', () => {
  expect(attemptName({ SLURM_JOB_ID: '12', SLURM_RESTART_COUNT: '2' })).toMatch(/^job12-2-[0-9a-f]{8}$/);
  expect(attemptName({ SLURM_JOB_ID: '12' })).toMatch(/^job12-0-[0-9a-f]{8}$/);
  expect(attemptName({})).toMatch(/^[0-9a-f]{8}$/);
});
