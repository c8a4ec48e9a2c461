import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import { checkSampling, GREEDY, greedyToken, randomKey, sampleToken, uniform } from '../lib/sample.js';
import { useCpu } from './smallModel.js';

beforeAll(useCpu);

const positions = (count: number) => tf.range(0, count, 1, 'int32') as tf.Tensor1D;

describe('uniform', () => {
  const draws = (seed: number) => uniform(randomKey(seed), positions(64), 4096).dataSync();

  test('is spread evenly, within a row and down a column', () => {
    const values = draws(42);
    const counts = new Array<number>(64).fill(0);
    for (const value of values) counts[Math.floor(value * 64)]! += 1;
    const expected = values.length / 64;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(120); // 63 degrees of freedom: 103 at 0.1 %
    const correlation = (lag: number) => {
      let sum = 0;
      for (let i = lag; i < values.length; i++) sum += (values[i]! - 0.5) * (values[i - lag]! - 0.5);
      return (12 * sum) / (values.length - lag);
    };
    for (const lag of [1, 2, 64, 4096, 8192]) expect(Math.abs(correlation(lag))).toBeLessThan(0.01);
  });

  test('stays inside 0 and 1, repeats for a seed and differs between seeds', () => {
    const values = draws(7);
    expect(values.every((value) => value > 0 && value < 1)).toBe(true);
    expect(draws(7).every((value, i) => value === values[i])).toBe(true);
    const other = draws(8);
    const same = values.filter((value, i) => value === other[i]).length;
    expect(same).toBeLessThan(20);
    const far = draws(7 + 2 ** 40);
    expect(values.filter((value, i) => value === far[i]).length).toBeLessThan(20);
  });
});

describe('sampleToken', () => {
  const logits = [Math.log(0.5), Math.log(0.3), Math.log(0.15), Math.log(0.05)];
  const frequencies = (sampling: object) => {
    const draws = 4000;
    const rows = tf.tile(tf.tensor2d([logits]), [draws, 1]) as tf.Tensor2D;
    const settings = { ...GREEDY, temperature: 1, seed: 3, ...sampling };
    const ids = sampleToken(rows, settings, randomKey(settings.seed), positions(draws)).dataSync();
    return [0, 1, 2, 3].map((id) => ids.filter((drawn) => drawn === id).length / draws);
  };

  test('follows the softmax probabilities', () => {
    for (const [id, share] of frequencies({}).entries())
      expect(share).toBeCloseTo(Math.exp(logits[id]!), 1.5);
  });

  test('among the k best the random numbers are those of all: ruling out those that would lose changes nothing', () => {
    const rows = tf.tidy(() => tf.mul(uniform(randomKey(5), positions(300), 40), 12)) as tf.Tensor2D;
    const sampled = (topK: number | null) =>
      sampleToken(rows, { ...GREEDY, temperature: 1, topK }, randomKey(9), positions(300)).dataSync();
    const [free, narrow] = [sampled(null), sampled(12)];
    const best = tf.topk(rows, 12).indices.arraySync() as number[][];
    const kept = [...free.keys()].filter((row) => best[row]!.includes(free[row]!));
    expect(kept.length).toBeGreaterThan(250);
    expect(kept.length).toBeLessThan(300);
    for (const row of kept) expect(narrow[row]).toBe(free[row]);
    for (const row of free.keys()) expect(best[row]).toContain(narrow[row]);
  });

  test('temperature sharpens; zero is greedy', () => {
    expect(frequencies({ temperature: 0.5 })[0]!).toBeCloseTo(0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), 1.5);
    expect(frequencies({ temperature: 0 })).toEqual([1, 0, 0, 0]);
  });

  test('top-k and top-p rule the rest out', () => {
    const [a, b, c, d] = frequencies({ topK: 2 });
    expect([c, d]).toEqual([0, 0]);
    expect(a! / b!).toBeCloseTo(5 / 3, 0.7);
    expect(frequencies({ topP: 0.75 }).slice(2)).toEqual([0, 0]); // 0.5 + 0.3 reaches it
    expect(frequencies({ topP: 0.85 })[2]).toBeGreaterThan(0); // the one that reaches p stays
    expect(frequencies({ topP: 0.01 })).toEqual([1, 0, 0, 0]);
    expect(frequencies({ topK: 99 })[3]).toBeGreaterThan(0);
  });

  test.each([
    [{ temperature: -1 }, /temperature: expected a number from 0, received -1/],
    [{ temperature: Number.NaN }, /temperature/],
    [{ topK: 0 }, /top-k/],
    [{ topP: 1.5 }, /top-p/],
    [{ seed: 2 ** 48 }, /seed/],
    [{ seed: 0.5 }, /seed/],
  ])('refuses %o', (setting, message) => {
    expect(() => checkSampling({ ...GREEDY, ...setting })).toThrow(message);
  });
});

test('the greedy choice of logits that are here is what sampleToken chooses, the first of equals', () => {
  const rows = [
    [1, 5, 5, -2],
    [-Infinity, -3, -7, -3],
    [0, 0, 0, 0],
    [2, 1, 0, 9],
  ].map((row) => Float32Array.from(row));
  const chosen = sampleToken(
    tf.tensor2d(
      rows.flatMap((row) => [...row]),
      [4, 4],
    ),
    GREEDY,
    randomKey(0),
    positions(4),
  );
  expect(rows.map(greedyToken)).toEqual([...chosen.dataSync()]);
});
