// Commands that are written before a run asks for them: sent where their buffers are the run's, else written anew.
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { closeTarget, type Jitted, jit } from '../../../lib/jit/jit.js';
import { WrittenAhead } from '../../../lib/jit/targets/webgpu/ahead.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';
import '../traced.js'; // sets the backend

/** Each step is a dispatch or two: no two of them can be one. */
const steps = 60;
const chain = (x: tf.Tensor): tf.Tensor => {
  let y = x;
  for (let i = 0; i < steps; i++) y = tf.cumsum(tf.mul(y, 0.5), 0);
  return y;
};
const expected = (x: readonly number[]): number[] => {
  let y = [...x];
  for (let i = 0; i < steps; i++) {
    let sum = 0;
    y = y.map((value) => {
      sum += 0.5 * value;
      return sum;
    });
  }
  return y;
};
const rest = () => new Promise((resolve) => setTimeout(resolve, 60));

describe.skipIf(!hasWebgpu)(`commands written ahead (${webgpuReason})`, () => {
  let compiled: Jitted<[tf.Tensor], tf.Tensor>;
  let chunks: boolean[] = []; // of the last call: whether they were written before
  beforeAll(() => {
    const { take } = WrittenAhead.prototype;
    vi.spyOn(WrittenAhead.prototype, 'take').mockImplementation(function* (this: WrittenAhead, bind) {
      chunks = [];
      for (const chunk of take.call(this, bind)) {
        chunks.push(chunk.commands !== undefined);
        yield chunk;
      }
    });
  });
  beforeEach(async () => {
    compiled = jit(chain, { target: 'webgpu' });
    (await check([1, 2, 3])).dispose();
  });
  afterEach(() => compiled.dispose());
  afterAll(async () => {
    vi.restoreAllMocks();
    await closeTarget('webgpu');
  });

  const check = async (values: readonly number[]): Promise<tf.Tensor> => {
    const x = tf.tensor1d([...values]);
    const y = await compiled(x);
    const found = await y.data();
    for (const [i, value] of expected(values).entries()) expect(found[i]).toBeCloseTo(value, 4);
    x.dispose();
    return y;
  };

  test('are sent when the same call is made again', async () => {
    for (const first of [4, 5, 6]) {
      await rest();
      (await check([first, 0.5, -2])).dispose();
      expect(chunks.length).toBeGreaterThan(1);
      expect(chunks.every(Boolean)).toBe(true);
    }
  });

  test('are not there for a call right after', async () => {
    (await check([1, 1, 1])).dispose();
    expect(chunks.some(Boolean)).toBe(false);
  });

  test('are written anew where a call brings other memory', async () => {
    const held = await check([3, 2, 1]); // its memory cannot be the next result's
    await rest();
    const y = await check([2, 2, 2]);
    expect(chunks.every(Boolean)).toBe(false);
    expect(chunks.some(Boolean)).toBe(true); // what lies in the program's own memory
    for (const [i, value] of expected([3, 2, 1]).entries())
      expect((await held.data())[i]).toBeCloseTo(value, 4);
    tf.dispose([held, y]);
  });

  test('a program that is gone writes none', async () => {
    (await check([1, 2, 3])).dispose();
    compiled.dispose();
    await rest();
    compiled = jit(chain, { target: 'webgpu' });
    (await check([7, 8, 9])).dispose();
  });
});
