import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CompiledModel, compileModel } from '../lib/compile.js';
import { collect, type GenerativeModel } from '../lib/generate.js';
import { generateBatch } from '../lib/generateBatch.js';
import { loadModel, type Model } from '../lib/model.js';
import { goldenCases } from './goldenCases.js';
import { relativeError, useCpu } from './smallModel.js';

const folderOf = (name: string) => goldenCases.find((golden) => golden.name === name)!.folder;
const prompts = [[5, 9, 17, 3, 44, 21, 60], [8], [30, 2, 11, 4], Array.from({ length: 23 }, (_, i) => 7 + i)];

describe.each([
  ['gpt2-inner', 'eager'],
  ['gpt2-inner', 'reference'],
  ['gpt2-inner', 'wasm'],
  ['mistral-window', 'eager'],
  ['mistral-window', 'reference'],
  ['mistral-window', 'wasm'],
] as const)('%s on %s', (name, target) => {
  let model: Model;
  let runs: GenerativeModel;
  let compiled: CompiledModel | undefined;
  beforeAll(async () => {
    await useCpu();
    model = await loadModel(folderOf(name));
    compiled = target === 'eager' ? undefined : await compileModel(model, { target });
    runs = compiled ?? model;
  });
  afterAll(() => compiled?.dispose());

  test('each text is the one that its prompt gives alone, greedy and sampled', async () => {
    for (const temperature of [0, 1.2]) {
      const sampling = { temperature, topK: 8, topP: null, seed: 3 };
      const options = { maxNewTokens: 9, sampling, keepLogits: true };
      const together = await generateBatch(runs, prompts, options);
      for (const [at, prompt] of prompts.entries()) {
        const alone = await collect(model, prompt, options);
        expect(together[at]!.newIds).toEqual(alone.newIds);
        expect(together[at]!.finish).toBe(alone.finish);
        expect(relativeError(together[at]!.logits!, alone.logits!)).toBeLessThan(1e-5);
      }
    }
  });

  test('rows end at their own end of sequence; the others go on', async () => {
    const options = { maxNewTokens: 9, ignoreEos: true };
    const whole = await generateBatch(runs, prompts, options);
    const eos = whole[2]!.newIds[3]!;
    const told: number[][] = prompts.map(() => []);
    const ended = await generateBatch(
      { ...runs, eosIds: [eos] },
      prompts,
      { maxNewTokens: 9 },
      ({ id }, at) => told[at]!.push(id),
    );
    for (const [at, { newIds, finish }] of ended.entries()) {
      const all = whole[at]!.newIds;
      const end = all.indexOf(eos);
      expect(newIds).toEqual(end < 0 ? all : all.slice(0, end + 1));
      expect(finish).toBe(end < 0 ? 'length' : 'eos');
      expect(told[at]).toEqual(newIds);
    }
  });

  test('a stop keeps what was written and leaks nothing', async () => {
    await generateBatch(runs, prompts, { maxNewTokens: 4 });
    const before = tf.memory().numTensors;
    const stop = new AbortController();
    const options = { maxNewTokens: 24, ignoreEos: true, signal: stop.signal };
    const stopped = await generateBatch(runs, prompts.slice(0, 3), options, () => stop.abort());
    expect(stopped.every(({ newIds }) => newIds.length >= 1)).toBe(true);
    expect(stopped.some(({ finish }) => finish === 'aborted')).toBe(true);
    await generateBatch(runs, prompts, { maxNewTokens: 4 });
    expect(tf.memory().numTensors).toBe(before);
  });
});

test('a prompt longer than a piece goes on in the next one, beside short ones', async () => {
  await useCpu();
  const model = await loadModel(folderOf('tiny-gpt2'));
  const compiled = await compileModel(model, { target: 'wasm' });
  const long = Array.from({ length: 150 }, (_, i) => 100 + ((i * 37) % 900));
  const mixed = [long, [200, 300], long.slice(0, 70), long.slice(3, 60)];
  const together = await generateBatch(compiled, mixed, { maxNewTokens: 6, keepLogits: true });
  for (const [at, prompt] of mixed.entries()) {
    const alone = await collect(compiled, prompt, { maxNewTokens: 6, keepLogits: true });
    expect(relativeError(together[at]!.logits!, alone.logits!)).toBeLessThan(1e-5);
    expect(together[at]!.newIds).toEqual(alone.newIds);
  }
  await compiled.dispose();
});

test('an empty prompt is refused, no prompts give no texts', async () => {
  await useCpu();
  const model = await loadModel(folderOf('gpt2-inner'));
  await expect(generateBatch(model, [[1], []], { maxNewTokens: 3 })).rejects.toThrow(/at least one token/);
  await expect(generateBatch(model, [], { maxNewTokens: 3 })).resolves.toEqual([]);
});
