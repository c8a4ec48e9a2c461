// How prompts are cut: pieces that a target takes at once, padded to few lengths. The programs only note what they get.
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, test } from 'vitest';
import type { KVCache } from '../../lib/cache.js';
import { emptyCache, inBuckets, type PromptPrograms } from '../../lib/compile/prompt.js';
import { type ForwardInput, forwardInput } from '../../lib/forward.js';
import { useCpu } from '../smallModel.js';

beforeAll(useCpu);

/** Tokens a row of each call, for prompts of these lengths. */
async function piecesOf(
  lengths: readonly number[],
  mostTokens: number,
  { capacity = 4096, window = null as number | null } = {},
): Promise<number[]> {
  const sizes: number[] = [];
  const spec = { layers: 1, kvHeads: 1, headDim: 1, capacity, window };
  const program = async (_: unknown, { tokens }: ForwardInput, __: unknown) => {
    sizes.push(tokens.shape[1]);
    const cache: KVCache = { ...emptyCache(spec), keys: [tf.zeros([lengths.length, 1, 1, 1])] };
    return { logits: tf.zeros([lengths.length, 3]) as tf.Tensor2D, cache };
  };
  const programs = { begin: program, goOn: program, mostTokens } as unknown as PromptPrograms; // called, no more
  const input = forwardInput(
    lengths.map((length) => new Array<number>(length).fill(1)),
    lengths.map(() => 0),
  );
  const { logits } = await inBuckets(programs, {}, input, emptyCache(spec));
  expect(logits.shape).toEqual([lengths.length, 3]);
  return sizes;
}

test.each([
  [[30], 256, [32]],
  [[300], 256, [256, 64]],
  [[300], 2048, [384]],
  [[2048], 2048, [2048]],
  [[2100], 2048, [2048, 64]],
  [[300, 20, 7, 9], 2048, [384]],
  [[600, 20, 7, 9], 2048, [512, 128]],
])('prompts of %o, at most %i tokens at once: pieces of %o', async (lengths, mostTokens, expected) => {
  expect(await piecesOf(lengths, mostTokens)).toEqual(expected);
});

test('no piece is longer than a cache, or than what a window has room for', async () => {
  expect(await piecesOf([700], 2048, { capacity: 600 })).toEqual([512, 256]);
  expect(await piecesOf([130], 2048, { window: 100 })).toEqual([64, 64, 16]);
});
