// What weights expect of given answers, some samples at a time, one of which cannot be read.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ShardStore } from '../../lib/cluster/files.js';
import { judgeAnswers } from '../../lib/cluster/judge.js';
import { ShardWatch } from '../../lib/cluster/progress.js';
import { samplePrompt } from '../../lib/dataset.js';
import { loadModel, type Model } from '../../lib/model.js';
import { modelsFolder } from '../../lib/paths.js';
import { useCpu } from '../smallModel.js';
import { smallPlan } from './fakes.js';

const folder = mkdtempSync(join(tmpdir(), 'judge-'));
let model: Model;
beforeAll(async () => {
  await useCpu();
  model = await loadModel(join(modelsFolder(), 'tiny-gpt2'));
});
afterAll(() => rmSync(folder, { recursive: true }));

test('a sample that fails leaves the others judged, and is judged by the next attempt', async () => {
  const plan = smallPlan({ reference: 'A', shards: 1 });
  const broken = samplePrompt(model.tokenizer!, plan.samples[3]!);
  const failing: Model = {
    ...model,
    everyLogits: async (params, tokens) => {
      if (broken.every((id, i) => tokens[i] === id)) throw new RangeError('broken');
      return model.everyLogits!(params, tokens);
    },
  };
  const store = await ShardStore.open(plan, 0, folder, 'first');
  const attempt = async (candidate: Model) => {
    const watch = new ShardWatch(plan, 0, undefined);
    const judges = [
      { label: 'A', model },
      { label: 'B', model: candidate },
    ];
    await judgeAnswers(plan, 0, judges, { store, watch, signal: undefined });
    return watch.outcome();
  };
  const isJudged = () => plan.samples.map(({ keys }) => store.hasJudged('B', keys[0]!));
  expect(await attempt(failing)).toEqual({ done: 6, total: 7, failed: 1 });
  expect(isJudged()).toEqual([true, true, true, false, true, true, true]);
  expect(await attempt(model)).toEqual({ done: 7, total: 7, failed: 0 });
  expect(isJudged()).toEqual(new Array(7).fill(true));
  await store.close();
});
