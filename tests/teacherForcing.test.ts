import { beforeAll, expect, test } from 'vitest';
import type { GenerativeModel } from '../lib/generate.js';
import { gpt2Network } from '../lib/models/gpt2.js';
import { everyLogitsOf } from '../lib/models/layers.js';
import { teacherForcedLogits } from '../lib/teacherForcing.js';
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
