import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compiledConfiguration } from '../lib/benchmark/eager.js';
import { type CompiledModel, compileModel } from '../lib/compile.js';
import { collect, generate } from '../lib/generate.js';
import { loadModel, type Model } from '../lib/model.js';
import { teacherForcedLogits } from '../lib/teacherForcing.js';
import { goldenCases } from './goldenCases.js';
import { relativeError, useCpu } from './smallModel.js';

const folderOf = (name: string) => goldenCases.find((golden) => golden.name === name)!.folder;

describe.each(['gpt2-inner', 'mistral-window'])('%s on the reference target', (name) => {
  let model: Model;
  let compiled: CompiledModel;
  const prompt = [5, 9, 17, 3, 44, 21, 60];
  beforeAll(async () => {
    await useCpu();
    model = await loadModel(folderOf(name));
    compiled = await compileModel(model, { target: 'reference' });
  });
  afterAll(() => compiled.dispose());

  test('writes what the eager model writes, greedy and sampled, in one call for all tokens', async () => {
    for (const temperature of [0, 1.3]) {
      const sampling = { temperature, topK: 20, topP: null, seed: 5 };
      const options = { maxNewTokens: 10, sampling, keepLogits: true, ignoreEos: true };
      const expected = await collect(model, prompt, options);
      const found = await collect(compiled, prompt, options);
      expect(found.newIds).toEqual(expected.newIds);
      expect(relativeError(found.logits!, expected.logits!)).toBeLessThan(1e-5);
    }
    expect(compiled.report()).toMatchObject({ target: 'reference' });
    expect(compiled.report().hostCallsPerToken).toBeLessThan(3);
  });

  test('another length or seed needs no new program, another bucket does', async () => {
    const run = (length: number, maxNewTokens: number, seed: number) =>
      collect(compiled, prompt.slice(0, length), {
        maxNewTokens,
        sampling: { temperature: 1, topK: 5, topP: null, seed },
      });
    await run(7, 4, 1);
    const before = compiled.report().compilations;
    await run(3, 9, 2);
    await run(6, 2, 3);
    expect(compiled.report().compilations).toBe(before);
  });

  test('ends at an end-of-sequence token, and when the caller stops', async () => {
    const { newIds } = await collect(compiled, prompt, { maxNewTokens: 12, ignoreEos: true });
    const ending = { ...compiled, eosIds: [newIds[5]!] };
    const stopped = await collect(ending, prompt, { maxNewTokens: 12 });
    expect(stopped.finish).toBe('eos');
    expect(stopped.newIds).toEqual(newIds.slice(0, newIds.indexOf(newIds[5]!) + 1));
    for await (const { id } of generate(compiled, prompt, { maxNewTokens: 12, ignoreEos: true })) {
      expect(id).toBe(newIds[0]);
      break;
    }
    const controller = new AbortController();
    const aborted = await collect(
      compiled,
      prompt,
      { maxNewTokens: 12, ignoreEos: true, signal: controller.signal },
      () => controller.abort(),
    );
    expect(aborted.finish).toBe('aborted');
    expect(aborted.newIds.length).toBeGreaterThanOrEqual(1);
  });

  test('measures given texts as the eager model does', async () => {
    const expected = await teacherForcedLogits(model, prompt, [1, 2, 3]);
    expect(relativeError(await teacherForcedLogits(compiled, prompt, [1, 2, 3]), expected)).toBeLessThan(
      1e-5,
    );
  });

  test('leaks no tensor', async () => {
    await collect(compiled, prompt, { maxNewTokens: 5 });
    const before = tf.memory().numTensors;
    for (let i = 0; i < 3; i++) await collect(compiled, prompt, { maxNewTokens: 5 });
    expect(tf.memory().numTensors).toBe(before);
  });
});

test.each([true, false])(
  'a prepared benchmark compiles nothing while it measures, cache: %s',
  async (cache) => {
    await useCpu();
    const model = await loadModel(folderOf('gpt2-inner'));
    const compiled = await compileModel(model, { target: 'reference' });
    const options = { label: 'compiled', source: 'test', backend: 'cpu', cache, newTokens: 4 };
    const configuration = compiledConfiguration(model, compiled, options);
    // Without the cache, 14 tokens grow past 16, the size of the first program.
    const lengths = cache ? [1, 3, 20] : [14];
    const samples = lengths.map((length) => Array.from({ length }, (_, i) => i));
    const { signal } = new AbortController();
    await configuration.prepare!(samples, signal);
    const before = compiled.report().compilations;
    for (const sample of samples) await configuration.run(sample, signal);
    expect(compiled.report().compilations).toBe(before);
    await compiled.dispose();
  },
);
