import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, test } from 'vitest';
import { compileModel } from '../lib/compile.js';
import type { GenerativeModel } from '../lib/generate.js';
import { loadModel } from '../lib/model.js';
import { gpt2Network } from '../lib/models/gpt2.js';
import { everyLogitsOf } from '../lib/models/layers.js';
import { projectRoot } from '../lib/paths.js';
import { teacherForcedBatch, teacherForcedLogits } from '../lib/teacherForcing.js';
import { relativeError, SMALL_CONFIG, smallModel, smallParams, useCpu } from './smallModel.js';

beforeAll(useCpu);

const model = smallModel();
const everyLogits: GenerativeModel['everyLogits'] = (_, tokens) =>
  everyLogitsOf(gpt2Network(SMALL_CONFIG))(smallParams(SMALL_CONFIG), tokens);

test('one call and token by token give the same logits', async () => {
  const prompt = [5, 9, 17];
  const answer = [3, 44, 21, 60];
  const stepped = await teacherForcedLogits(model, prompt, answer);
  const whole = await teacherForcedLogits({ ...model, everyLogits }, prompt, answer);
  expect(stepped).toHaveLength(4 * SMALL_CONFIG.vocabSize);
  expect(relativeError(whole, stepped)).toBeLessThan(1e-5);
  const one = await teacherForcedLogits({ ...model, everyLogits }, prompt, [3]);
  expect(relativeError(one, stepped.slice(0, SMALL_CONFIG.vocabSize))).toBeLessThan(1e-5);
});

test('empty and too long texts are refused', async () => {
  await expect(teacherForcedLogits(model, [], [1])).rejects.toThrow(/received 0 and 1/);
  await expect(teacherForcedLogits(model, [1], [])).rejects.toThrow(/received 1 and 0/);
  await expect(teacherForcedLogits(model, new Array(30).fill(1), new Array(11).fill(1))).rejects.toThrow(
    /at most 40/,
  );
});

test('a compiled model measures long texts in pieces, and leaves no tensor behind', async () => {
  const eager = await loadModel(join(projectRoot(), 'data/models/tiny-gpt2'));
  const compiled = await compileModel(eager, { target: 'wasm' });
  const prompt = [200, 300, 400];
  const answer = Array.from({ length: 150 }, (_, i) => 100 + ((i * 37) % 900));
  const expected = await teacherForcedLogits(eager, prompt, answer);
  expect(relativeError(await teacherForcedLogits(compiled, prompt, answer), expected)).toBeLessThan(1e-5);
  const { compilations } = compiled.report();
  const tensors = tf.memory().numTensors;
  for (const length of [1, 2, 64, 65, 66]) {
    const found = await teacherForcedLogits(compiled, prompt, answer.slice(0, length));
    expect(relativeError(found, expected.slice(0, found.length))).toBeLessThan(1e-5);
  }
  expect(compiled.report().compilations).toBe(compilations);
  expect(tf.memory().numTensors).toBe(tensors);
  await compiled.dispose();
});

test('several texts are measured together, each as if it were alone', async () => {
  const eager = await loadModel(join(projectRoot(), 'data/models/tiny-mistral'));
  const compiled = await compileModel(eager, { target: 'wasm' });
  const ids = (length: number, from: number) =>
    Array.from({ length }, (_, i) => 100 + ((i * 37 + from) % 900));
  const texts = [
    { promptIds: ids(3, 5), answerIds: ids(70, 1) },
    { promptIds: ids(40, 9), answerIds: ids(1, 2) },
    { promptIds: ids(1, 0), answerIds: ids(65, 3) },
    { promptIds: ids(17, 4), answerIds: ids(8, 7) },
  ];
  const together = await teacherForcedBatch(compiled, texts);
  const eagerly = await teacherForcedBatch(eager, texts);
  for (const [i, { promptIds, answerIds }] of texts.entries()) {
    const alone = await teacherForcedLogits(eager, promptIds, answerIds);
    expect(relativeError(together[i]!, alone)).toBeLessThan(1e-5);
    expect(eagerly[i]).toEqual(alone);
  }
  expect(await teacherForcedBatch(compiled, [])).toEqual([]);
  await compiled.dispose();
});
