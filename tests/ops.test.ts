import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import { selectBackend } from '../lib/backend.js';
import { collect } from '../lib/generate.js';
import { attention, embed, linear, releaseTensors, rotary, unembed, vector } from '../lib/ops.js';
import { float32Values, type Int8Weight, unpackInt4 } from '../lib/tensor.js';
import { randomWeight, relativeError, smallModel, useCpu } from './smallModel.js';

beforeAll(useCpu);

const int8: Int8Weight = {
  kind: 'int8',
  shape: [2, 3],
  bytes: Int8Array.of(1, -2, 127, 4, 0, -127),
  scales: Float32Array.of(0.5, 1, 2),
  granularity: { per: 'channel', axis: 1 },
};

describe('weights as operands', () => {
  test('linear multiplies by the scaled integers and adds the bias', () => {
    const bias = randomWeight([3], 1);
    const y = linear(tf.tensor2d([[1, 2]]), int8, bias).dataSync();
    const expected = [0.5 + 4, -2, 254 - 508].map((value, i) => value + float32Values(bias)[i]!);
    expect(relativeError(y, expected)).toBeLessThan(1e-6);
  });

  test('linear and unembed keep the leading axes; embed looks rows up', () => {
    const embedding = randomWeight([5, 4], 2);
    const x = tf.ones([2, 3, 4]);
    expect(unembed(x, embedding).shape).toEqual([2, 3, 5]);
    const values = float32Values(embedding);
    const sums = [0, 1, 2, 3, 4].map((row) => values.slice(row * 4, row * 4 + 4).reduce((a, b) => a + b));
    expect(relativeError(unembed(x, embedding).dataSync().slice(0, 5), sums)).toBeLessThan(1e-6);
    const rows = embed(embedding, tf.tensor2d([[4, 0]], [1, 2], 'int32'));
    expect(rows.shape).toEqual([1, 2, 4]);
    expect(rows.dataSync().slice(0, 4)).toEqual(values.slice(16, 20));
  });

  test('a float weight becomes one tensor, an integer weight none that stays', () => {
    const kernel = randomWeight([2, 3], 3);
    const x = tf.tensor2d([[1, 2]]);
    const run = (weight: typeof kernel | Int8Weight) => tf.tidy(() => void linear(x, weight));
    const before = tf.memory().numTensors;
    run(int8);
    expect(tf.memory().numTensors).toBe(before);
    run(kernel);
    run(kernel);
    expect(tf.memory().numTensors).toBe(before + 1);
    releaseTensors({ kernel });
    expect(tf.memory().numTensors).toBe(before);
    run(kernel); // released is not lost
    releaseTensors({ kernel });
  });

  test('a wrong width is refused with both', () => {
    expect(() => linear(tf.ones([1, 4]), int8)).toThrow(
      /linear: expected a last axis of 2, received \[1, 4\]/,
    );
    expect(() => unembed(tf.ones([1, 4]), int8)).toThrow(/unembed: expected a last axis of 3/);
    expect(() => linear(tf.ones([1, 4]), randomWeight([4], 1))).toThrow(/expected two axes, received \[4\]/);
  });

  test('vector reads float16 and bfloat16', () => {
    const bytes = (...halves: number[]) => new Uint8Array(Uint16Array.from(halves).buffer);
    const half = vector({
      kind: 'float',
      dtype: 'f16',
      shape: [4],
      bytes: bytes(0x3c00, 0xc000, 0x0001, 0x7bff),
    });
    expect([...half.dataSync()]).toEqual([1, -2, 2 ** -24, 65504]);
    const brain = vector({ kind: 'float', dtype: 'bf16', shape: [2], bytes: bytes(0x3f80, 0xc0a0) });
    expect([...brain.dataSync()]).toEqual([1, -5]);
  });

  test('int4 unpacks the earlier value from the low half', () => {
    const bytes = Uint8Array.of(0x1f, 0x08);
    const granularity = { per: 'group', axis: 1, size: 32 } as const;
    const weight = { kind: 'int4', shape: [3, 1], bytes, scales: Float32Array.of(2), granularity } as const;
    expect([...unpackInt4(weight)]).toEqual([7, -7, 0]);
    expect([...float32Values(weight)]).toEqual([14, -14, 0]);
  });
});

describe('attention', () => {
  test('query heads share key heads in order', () => {
    const q = tf.randomNormal([1, 4, 2, 3], 0, 1, 'float32', 1) as tf.Tensor4D;
    const keys = tf.randomNormal([1, 2, 5, 3], 0, 1, 'float32', 2) as tf.Tensor4D;
    const values = tf.randomNormal([1, 2, 5, 3], 0, 1, 'float32', 3) as tf.Tensor4D;
    const grouped = attention(q, keys, values, null, 0.5);
    const spread = (t: tf.Tensor4D) =>
      tf.concat(
        [0, 0, 1, 1].map((head) => tf.slice(t, [0, head], [-1, 1])),
        1,
      );
    const full = attention(q, spread(keys) as tf.Tensor4D, spread(values) as tf.Tensor4D, null, 0.5);
    expect(relativeError(grouped.dataSync(), full.dataSync())).toBeLessThan(1e-6);
    const three = tf.slice(spread(keys), [0, 0], [-1, 3]) as tf.Tensor4D;
    expect(() => attention(q, three, values, null, 1)).toThrow(/received 4, 3/);
  });

  test('rotary turns pairs by position: lengths stay, position 0 stays', () => {
    const x = tf.randomNormal([1, 1, 2, 4], 0, 1, 'float32', 5) as tf.Tensor4D;
    const turned = rotary(x, tf.tensor2d([[0, 3]], [1, 2], 'int32'), [1, 0.1]).dataSync();
    const plain = x.dataSync();
    expect([...turned.slice(0, 4)]).toEqual([...plain.slice(0, 4)]);
    expect(Math.hypot(turned[4]!, turned[6]!)).toBeCloseTo(Math.hypot(plain[4]!, plain[6]!), 5);
    expect(turned[4]!).toBeCloseTo(plain[4]! * Math.cos(3) - plain[6]! * Math.sin(3), 5);
  });
});

test('wasm generates what cpu generates, with every kind of sampling', async () => {
  const sampling = { temperature: 1.2, topK: 20, topP: 0.9, seed: 11 };
  const run = async () => {
    const options = { maxNewTokens: 12, keepLogits: true };
    const greedy = await collect(smallModel(), [5, 9, 17], options);
    const sampled = await collect(smallModel(), [5, 9, 17], { ...options, sampling });
    return { greedy, sampled };
  };
  const cpu = await run();
  await selectBackend('wasm');
  try {
    const wasm = await run();
    expect(relativeError(wasm.greedy.logits!, cpu.greedy.logits!)).toBeLessThan(1e-5);
    expect(wasm.greedy.newIds).toEqual(cpu.greedy.newIds);
    expect(wasm.sampled.newIds).toEqual(cpu.sampled.newIds);
  } finally {
    await tf.setBackend('cpu');
  }
});
