import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import type { KVCache } from '../lib/cache.js';
import { allocate, cacheBytes, closeStep, openStep, ringSlots, rollback } from '../lib/cache.js';
import { forwardInput } from '../lib/forward.js';
import { gpt2Network } from '../lib/models/gpt2.js';
import { cacheSpecOf, forwardOf } from '../lib/models/layers.js';
import { relativeError, SMALL_CONFIG, smallParams, useCpu } from './smallModel.js';

beforeAll(useCpu);

const config = { ...SMALL_CONFIG };
const params = smallParams(config);

/** Logits after running rows through a cache in the given chunks. */
function logitsInChunks(
  chunks: readonly (readonly (readonly number[])[])[],
  cache: KVCache,
  c = config,
): Float32Array {
  const forward = forwardOf(gpt2Network(c));
  const starts = chunks[0]!.map(() => 0);
  let logits: tf.Tensor2D | undefined;
  for (const rows of chunks) {
    const output = forward(params, forwardInput(rows, starts), cache);
    for (const [row, ids] of rows.entries()) starts[row]! += ids.length;
    cache = output.cache;
    logits = output.logits;
  }
  return logits!.dataSync() as Float32Array;
}

const tokens = [5, 9, 17, 3, 44, 21, 60, 8, 0, 13, 27];

describe('a cache changes nothing but the work', () => {
  const whole = () => logitsInChunks([[tokens]], allocate(cacheSpecOf(config, 16), 1));

  test.each(['growing', 'fixed'] as const)('%s: token by token equals all at once', (layout) => {
    const chunks = [[tokens.slice(0, 4)], ...tokens.slice(4).map((id) => [[id]])];
    const stepped = logitsInChunks(chunks, allocate(cacheSpecOf(config, 16), 1, layout));
    expect(relativeError(stepped, whole())).toBeLessThan(1e-5);
  });

  test.each(['growing', 'fixed'] as const)('%s: rows of unequal lengths equal each row alone', (layout) => {
    const rows = [tokens.slice(0, 7), tokens.slice(2, 4), tokens.slice(5, 6)];
    const next = [[1], [2], [3]];
    const batch = logitsInChunks([rows, next, next], allocate(cacheSpecOf(config, 16), 3, layout));
    for (const [i, row] of rows.entries()) {
      const alone = logitsInChunks([[row], [next[i]!], [next[i]!]], allocate(cacheSpecOf(config, 16), 1));
      const { vocabSize } = config;
      expect(relativeError(batch.subarray(i * vocabSize, (i + 1) * vocabSize), alone)).toBeLessThan(1e-5);
    }
  });
});

describe('a sliding window', () => {
  const windowed = { ...config, window: 4 };
  const spec = cacheSpecOf(windowed, 16);
  const oneByOne = tokens.map((id) => [[id]]);

  test('a query sees its last four positions: chunks, steps and a ring agree', () => {
    const whole = logitsInChunks([[tokens]], allocate(spec, 1), windowed);
    const steps = logitsInChunks(oneByOne, allocate(spec, 1), windowed);
    const ring = { ...spec, capacity: ringSlots(4, 3) };
    const chunks = [[tokens.slice(0, 3)], [tokens.slice(3, 6)], ...oneByOne.slice(6)];
    const ringed = logitsInChunks(chunks, allocate(ring, 1, 'fixed'), windowed);
    expect(relativeError(steps, whole)).toBeLessThan(1e-5);
    expect(relativeError(ringed, whole)).toBeLessThan(1e-5);
    const full = logitsInChunks([[tokens]], allocate(cacheSpecOf(config, 16), 1));
    expect(relativeError(whole, full)).toBeGreaterThan(1e-3); // the window matters
  });

  test('unequal rows keep what the shorter row still sees', () => {
    const rows = [tokens.slice(0, 9), tokens.slice(0, 5)];
    const next = [[1], [2]];
    const batch = logitsInChunks([rows, next, next], allocate(spec, 2), windowed);
    const alone = logitsInChunks([[rows[1]!], [[2]], [[2]]], allocate(spec, 1), windowed);
    expect(relativeError(batch.subarray(config.vocabSize), alone)).toBeLessThan(1e-5);
  });

  test('memory stops growing at the window', () => {
    const forward = forwardOf(gpt2Network(windowed));
    let cache = allocate(spec, 1);
    for (const [i, id] of tokens.entries()) cache = forward(params, forwardInput([[id]], [i]), cache).cache;
    expect(cacheBytes(cache)).toBe(2 * config.layers * config.kvHeads * 3 * config.headDim * 4);
  });
});

describe('misuse', () => {
  const start = () => tf.tensor1d([0], 'int32');
  const spec = cacheSpecOf(config, 8);

  test('a donated cache cannot be read again', () => {
    const cache = allocate(spec, 1);
    openStep(cache, start(), start(), 1);
    expect(() => openStep(cache, start(), start(), 1)).toThrow(/donated to an earlier call/);
    expect(() => rollback(cache, 1, 0)).toThrow(/donated/);
  });

  test('a layer that appends nothing is named', () => {
    expect(() => closeStep(openStep(allocate(spec, 1), start(), start(), 1))).toThrow(
      /layer 0 appended nothing/,
    );
  });

  test('sizes are checked', () => {
    expect(() => allocate({ ...spec, capacity: 0 }, 1)).toThrow(
      /capacity: expected a positive integer, received 0/,
    );
    expect(() => allocate(spec, 1.5)).toThrow(/batch/);
  });
});

describe('rollback', () => {
  test('forgets the newest tokens', () => {
    const forward = forwardOf(gpt2Network(config));
    const run = (layout: KVCache['layout']) => {
      const begun = forward(
        params,
        forwardInput([tokens.slice(0, 5)], [0]),
        allocate(cacheSpecOf(config, 16), 1, layout),
      );
      const wrong = forward(params, forwardInput([[50, 51]], [5]), begun.cache);
      const back = rollback(wrong.cache, 7, 5);
      return forward(params, forwardInput([[7]], [5]), back).logits.dataSync();
    };
    const expected = logitsInChunks([[[...tokens.slice(0, 5), 7]]], allocate(cacheSpecOf(config, 16), 1));
    expect(relativeError(run('growing'), expected)).toBeLessThan(1e-5);
    expect(relativeError(run('fixed'), expected)).toBeLessThan(1e-5);
  });

  test('throws where the window has dropped what would be seen', () => {
    const windowed = { ...config, window: 4 };
    const forward = forwardOf(gpt2Network(windowed));
    const { cache } = forward(params, forwardInput([tokens], [0]), allocate(cacheSpecOf(windowed, 16), 1));
    expect(() => rollback(cache, tokens.length, 5)).toThrow(/dropped all before 8/);
    expect(() => rollback(cache, 11, 12)).toThrow(/expected 0..11/);
  });
});
