import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import { collect, generate } from '../lib/generate.js';
import { releaseTensors } from '../lib/ops.js';
import { floatWeight, mapWeights, sizeOf } from '../lib/tensor.js';
import { smallModel, useCpu } from './smallModel.js';

beforeAll(useCpu);

const model = smallModel();
const prompt = [5, 9, 17];

describe('generate', () => {
  test('with and without the cache gives the same tokens and logits', async () => {
    const options = { maxNewTokens: 20, keepLogits: true };
    const cached = await collect(model, prompt, options);
    const uncached = await collect(model, prompt, { ...options, useCache: false });
    expect(cached.newIds).toEqual(uncached.newIds);
    expect(cached.newIds).toHaveLength(20);
    expect(new Set(cached.newIds).size).toBeGreaterThan(1);
    expect(cached.logits).toEqual(uncached.logits);
    expect(cached.perTokenMs).toHaveLength(19);
    expect(cached.cacheBytes).toBe(2 * 2 * 3 * 4 * 4 * (prompt.length + 19)); // the last token is never appended
  });

  test('what happens between two tokens counts: a compiled loop goes on meanwhile', async () => {
    const begun = performance.now();
    const latencies: number[] = [];
    for await (const { latencyMs } of generate(model, prompt, { maxNewTokens: 5 })) {
      latencies.push(latencyMs);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const passed = performance.now() - begun;
    const sum = latencies.reduce((all, ms) => all + ms, 0);
    expect(sum).toBeGreaterThan(4 * 19);
    expect(sum).toBeLessThanOrEqual(passed);
  });

  test('a seed repeats a sampled text, another seed changes it', async () => {
    const sampled = (seed: number, useCache = true) =>
      collect(model, prompt, {
        maxNewTokens: 20,
        useCache,
        sampling: { temperature: 1.5, topK: 30, topP: 0.95, seed },
      }).then(({ newIds }) => newIds);
    expect(await sampled(1)).toEqual(await sampled(1));
    expect(await sampled(1)).toEqual(await sampled(1, false));
    expect(await sampled(1)).not.toEqual(await sampled(2));
  });

  test('stops at an end-of-sequence token, unless told to go on', async () => {
    const { newIds } = await collect(model, prompt, { maxNewTokens: 12 });
    const end = newIds[4]!;
    const first = newIds.indexOf(end);
    const ending = { ...model, eosIds: [end] };
    const stopped = await collect(ending, prompt, { maxNewTokens: 12 });
    expect(stopped.newIds).toEqual(newIds.slice(0, first + 1));
    expect(stopped.finish).toBe('eos');
    const longer = await collect(ending, prompt, { maxNewTokens: 12, ignoreEos: true });
    expect(longer.newIds).toEqual(newIds);
    expect(longer.finish).toBe('length');
  });

  test('damaged weights are an error, not an answer', async () => {
    const params = mapWeights(model.params, (weight, path) =>
      path === 'ln_f.bias'
        ? floatWeight(new Float32Array(sizeOf(weight.shape)).fill(NaN), weight.shape)
        : weight,
    );
    await expect(collect({ ...model, params }, prompt, { maxNewTokens: 2 })).rejects.toThrow(
      /logits: expected numbers, received NaN .* weights are damaged/,
    );
  });

  test('stops between tokens when aborted, and keeps what it has', async () => {
    const controller = new AbortController();
    let seen = 0;
    const result = await collect(model, prompt, { maxNewTokens: 12, signal: controller.signal }, () => {
      seen += 1;
      if (seen === 3) controller.abort();
    });
    expect(result.finish).toBe('aborted');
    expect(result.newIds).toHaveLength(3);
  });

  test('lets a timer stop it', async () => {
    const { finish } = await collect(model, prompt, { maxNewTokens: 36, signal: AbortSignal.timeout(1) });
    expect(finish).toBe('aborted');
  });

  test.each([
    [[], 1, /at least one token/],
    [[61], 1, /from 0 to 60, received 61/],
    [[-1], 1, /received -1/],
    [[1.5], 1, /received 1.5/],
    [new Array<number>(41).fill(1), 1, /exceed the model's context of 40; shorten it by 1/],
    [prompt, 39, /ask for at most 38/],
    [prompt, 0, /new tokens: expected a positive integer, received 0/],
  ])('refuses prompt %o with %i new tokens', async (ids, maxNewTokens, message) => {
    await expect(collect(model, ids, { maxNewTokens })).rejects.toThrow(message);
  });

  test('100 generations, some of them left early, leak no tensor', async () => {
    await collect(model, prompt, { maxNewTokens: 2 });
    const before = tf.memory();
    for (let i = 0; i < 100; i++) {
      const sampling = { temperature: i % 2, topK: 5, topP: 0.9, seed: i };
      const tokens = generate(model, prompt, { maxNewTokens: 4, sampling, useCache: i % 3 !== 0 });
      for await (const token of tokens) if (i % 5 === 0 && token.latencyMs >= 0) break;
    }
    const after = tf.memory();
    expect(after.numTensors).toBe(before.numTensors);
    expect(after.numBytes).toBe(before.numBytes);
    releaseTensors(model.params);
    expect(tf.memory().numTensors).toBeLessThan(before.numTensors);
  });
});
