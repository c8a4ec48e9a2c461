import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, test } from 'vitest';
import { selectBackend } from '../../lib/backend.js';
import { collect } from '../../lib/generate.js';
import {
  disposeVariants,
  loadVariants,
  onTarget,
  variantConfiguration,
} from '../../lib/notebook/variants.js';
import { modelsFolder } from '../../lib/paths.js';

const folder = join(modelsFolder(), 'tiny-gpt2');
const { signal } = new AbortController();
const prompt = [5, 9, 17, 40];

beforeAll(async () => {
  await selectBackend('wasm');
});

test('variants share what they can, say what they are, and leave nothing behind', async () => {
  const before = tf.memory().numTensors;
  const names = ['eager-uncached-f32', 'eager-cached-f32', 'reference-cached-f32', 'eager-cached-int8'];
  const variants = await loadVariants(folder, names, signal);
  expect(variants.map(({ label }) => label)).toEqual(names);
  expect(new Set(variants.map(({ model }) => model)).size).toBe(2); // f32 and int8
  expect(variants.map(({ compiled }) => compiled?.report().target)).toEqual([
    undefined,
    undefined,
    'reference',
    undefined,
  ]);
  const [uncached, cached] = variants.map((variant) =>
    variantConfiguration(variant, { backend: 'wasm', newTokens: 3, ignoreEos: true }),
  );
  expect(uncached).toMatchObject({
    label: names[0],
    cache: false,
    weights: 'f32',
    target: 'eager',
    newTokens: 3,
  });
  const [a, b] = [await uncached!.run(prompt, signal), await cached!.run(prompt, signal)];
  expect(a.newIds).toEqual(b.newIds);
  const compiled = await collect(variants[2]!.runs, prompt, { maxNewTokens: 2, ignoreEos: true });
  expect(compiled.newIds).toEqual(a.newIds.slice(0, 2));
  await disposeVariants(variants);
  expect(tf.memory().numTensors).toBe(before);
}, 60_000);

test('a misspelled name is refused before anything is loaded', async () => {
  await expect(loadVariants('nowhere', ['eager-cached-int9'], signal)).rejects.toThrow(/WEIGHTS one of/);
});

test('the compiled ones take another target, the eager ones stay', () => {
  const names = ['eager-cached-f32', 'wasm-uncached-f32', 'wasm-cached-int8-fast-x4'];
  const onGpu = ['eager-cached-f32', 'webgpu-uncached-f32', 'webgpu-cached-int8-fast-x4'];
  expect(onTarget(names, 'webgpu')).toEqual(onGpu);
  expect(onTarget(onGpu, 'wasm')).toEqual(names);
  expect(() => onTarget(['cached'], 'wasm')).toThrow(/expected TARGET-cached-WEIGHTS/);
});

test('a name with a mode and several texts gets them', async () => {
  const names = ['reference-cached-int8', 'reference-cached-int8-fast', 'reference-cached-int8-x2'];
  const variants = await loadVariants(folder, names, signal);
  expect(variants.map(({ compiled }) => compiled?.report().mode)).toEqual(['exact', 'fast', 'exact']);
  expect(variants[2]!.compiled).toBe(variants[0]!.compiled);
  const work = { backend: 'wasm', newTokens: 2 };
  expect(variants.map((variant) => variantConfiguration(variant, work).batch)).toEqual([1, 1, 2]);
  await disposeVariants(variants);
});
