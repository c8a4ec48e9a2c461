import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test, vi } from 'vitest';
import { evaluationFigures, formatEvaluation, readEvaluation } from '../../lib/cluster/figures.js';
import { ShardStore } from '../../lib/cluster/files.js';
import { collectShards } from '../../lib/cluster/merge.js';
import type { ClusterPlan } from '../../lib/cluster/plan.js';
import { runShard } from '../../lib/cluster.js';
import { both, prompts, smallPlan } from './fakes.js';

// Asking git takes longer than all the rest.
vi.mock('../../lib/results/machine.js', async (original) => ({
  ...(await original<typeof import('../../lib/results/machine.js')>()),
  projectCommit: () => 'c'.repeat(40),
}));

const scratch = mkdtempSync(join(tmpdir(), 'figures-'));
afterAll(() => rmSync(scratch, { recursive: true }));
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(scratch, 'shards-'));
});

const measured = async (plan: ClusterPlan, into = folder) => {
  for (let shard = 0; shard < plan.shards; shard++) {
    await runShard(plan, shard, both, { prompts, folder: into, attempt: 'a', warmUp: 0 });
  }
  return { plan, merged: await collectShards(plan, into) };
};
/** As judges would have left it: B half a nat worse at each of two tokens. */
const judge = async (plan: ClusterPlan) => {
  const store = await ShardStore.open(plan, 0, folder, 'judges');
  for (const { keys } of plan.samples) {
    await store.addJudged('A', keys[0]!, { logProbability: -2, tokens: 2, klDivergence: [], sameTop: 2 });
    await store.addJudged('B', keys[0]!, {
      logProbability: -3,
      tokens: 2,
      klDivergence: [0.5, 0.5],
      sameTop: 1,
    });
  }
  await store.close();
};

test('figures say how good the texts are and how fast, without a text in them', async () => {
  const plan = smallPlan({ reference: 'A', shards: 1 });
  await measured(plan);
  await judge(plan);
  const texts = { plan, merged: await collectShards(plan, folder) };
  const alone = await measured(smallPlan({ shards: 1 }), join(folder, 'speed'));
  const figures = evaluationFigures(texts, [alone]);
  expect(figures).toMatchObject({
    model: 'tiny',
    dataset: 'small.json',
    samples: 7,
    newTokens: 3,
    reference: 'A',
  });
  const [a, b] = figures.texts;
  expect(a).toMatchObject({
    label: 'A',
    toAnswers: { rougeL: 1, exactMatch: 1 },
    toReference: { rouge1: 1, exactMatch: 1 },
    answers: { perplexity: Math.E },
    promptTokens: prompts.map(() => 3),
  });
  // 'answer 3 more' against 'answer 3': precision 2/3, recall 1.
  expect(b!.toReference.rougeL).toBeCloseTo(0.8, 10);
  expect(b).toMatchObject({
    toReference: { exactMatch: 0 },
    rougeLToReference: prompts.map(() => 0.8),
    answers: { perplexity: Math.exp(1.5), klMean: 0.5, klP99: 0.5, sameTopToken: 0.5 },
  });
  expect(
    figures.runs.map(({ label, samples }) => [label, samples.latencyMs.length, samples.perTokenMs]),
  ).toEqual([
    ['A', 7, undefined],
    ['B', 7, undefined],
  ]);
  expect(JSON.stringify(figures)).not.toMatch(/answer \d|"q\d/);
  expect(formatEvaluation(figures)).toMatch(
    /configuration +ROUGE-L to answers .*\nA +1\.0000 +1\.0000 +1\.0000 +2\.7183/,
  );

  const file = join(folder, 'figures.json');
  writeFileSync(file, JSON.stringify(figures));
  expect(await readEvaluation(file)).toEqual(JSON.parse(readFileSync(file, 'utf8')));
  writeFileSync(file, JSON.stringify({ ...figures, reference: 3 }));
  await expect(readEvaluation(file)).rejects.toThrow(/figures\.json: reference: expected a text, found 3/);
  expect(await readEvaluation(join(folder, 'none.json'))).toBeUndefined();
});

test('fewer samples of the same work may be measured apart; other work is refused', async () => {
  const plan = smallPlan({ reference: 'A', shards: 1 });
  await measured(plan);
  await judge(plan);
  const texts = { plan, merged: await collectShards(plan, folder) };
  const other = { plan: smallPlan({ newTokens: 4 }), merged: texts.merged };
  expect(() => evaluationFigures(texts, [other])).toThrow(
    /speed: expected runs of tiny, small\.json, 3 new tokens, received one of tiny, small\.json, 4/,
  );
  const fewer = {
    plan: { ...plan, samples: plan.samples.slice(0, 2) },
    merged: { ...texts.merged, samples: texts.merged.samples.filter(({ sample }) => sample < 2) },
  };
  expect(evaluationFigures(texts, [fewer]).runs[0]!.samples.latencyMs).toEqual([30, 31]);
  expect(() => evaluationFigures({ plan: smallPlan(), merged: texts.merged }, [])).toThrow(
    /expected one with a reference/,
  );
});

test('equal texts score 1 though they have no word, and no folder of the machine is told', async () => {
  const plan = smallPlan({ reference: 'A', shards: 1 });
  await measured(plan);
  await judge(plan);
  const merged = await collectShards(plan, folder);
  const samples = merged.samples.map((sample) => ({
    ...sample,
    value: { ...sample.value, text: '🌟🌟' },
    facts: { ...sample.facts, model: { ...sample.facts.model, source: '/home/me/tiny' } },
  }));
  const texts = { plan, merged: { ...merged, samples } };
  const figures = evaluationFigures(texts, [texts]);
  expect(figures.texts[1]).toMatchObject({
    toReference: { rougeL: 1 },
    toAnswers: { rougeL: 0, exactMatch: 0 },
  });
  expect(figures.runs[0]!.model.source).toBe('tiny');
});

test('what is missing is said', async () => {
  const plan = smallPlan({ reference: 'A', shards: 1 });
  const texts = await measured(plan);
  expect(() => evaluationFigures(texts, [])).toThrow(
    /expected a complete run; shard 0: 7 of 7 samples missing/,
  );
});
