// Kernels of this target alone: sizes and cases in which its code takes another way than the suites of tests/jit show.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { beforeEach, describe, expect, test } from 'vitest';
import { jit } from '../../../lib/jit/jit.js';
import { embed, linear, unembed, vector } from '../../../lib/ops.js';
import { randomNumbers } from '../../smallModel.js';
import { expectClose, integers, numbers } from '../agree.js';
import { makeWeight, weightKinds } from './anyWeight.js';

beforeEach(async () => {
  await tf.setBackend('cpu');
});

type Compared = (...args: tf.Tensor[]) => tf.Tensor | tf.Tensor[];

/** Compiled on wasm and on the reference target: the same. */
async function agrees(fn: Compared, ...args: tf.Tensor[]): Promise<void> {
  await agreesWithin(1e-5, fn, args);
}

async function agreesWithin(tolerance: number, fn: Compared, args: tf.Tensor[]): Promise<void> {
  const [received, expected] = await Promise.all(
    (['wasm', 'reference'] as const).map(async (target) => {
      const compiled = jit(fn, { target });
      const result = await compiled(...args);
      const values = await Promise.all([result].flat().map(async (y) => Array.from(await y.data())));
      compiled.dispose();
      return values;
    }),
  );
  for (const [i, values] of expected!.entries()) expectClose(received![i]!, values, tolerance);
}

const top = (k: number) => (x: tf.Tensor) => Object.values(tf.topk(x, k)) as tf.Tensor[];

describe('topk', () => {
  test.each([1, 7, 128, 129, 700])('k %i, with ties', async (k) => {
    const x = tf.div(tf.round(tf.mul(numbers([3, 700]), 40)), 10);
    await agrees(top(k), x);
    await agrees(top(k), tf.cast(tf.mul(x, 3), 'int32'));
  });
});

describe('reductions', () => {
  test.each([
    [[5, 1], 1],
    [[3, 17], 1],
    [[2, 5000], 1],
    [[4, 9, 7], 1],
    [[130, 3], 0],
  ] as const)('%o along %i', async (shape, axis) => {
    const x = numbers([...shape]);
    await agrees(
      (y) => [tf.sum(y, axis), tf.max(y, axis), tf.min(y, axis), tf.argMax(y, axis), tf.argMin(y, axis)],
      x,
    );
    await agrees(
      (y) => [tf.sum(y, axis), tf.max(y, axis), tf.min(y, axis), tf.argMax(y, axis)],
      tf.cast(tf.mul(x, 3), 'int32'),
    );
  });

  test('argMax of equals, of NaN, of -Infinity', async () => {
    const compiled = jit((x: tf.Tensor) => tf.argMax(x, 1), { target: 'wasm' });
    const { NaN: nan, NEGATIVE_INFINITY: low } = Number;
    const rows = [
      [1, 5, 5, 5, 2, 5],
      [low, low, low, low, low, low],
      [nan, 1, 2, 3, 4, 5],
      [0, nan, 2, 9, nan, 9],
    ];
    expect(Array.from(await (await compiled(tf.tensor2d(rows))).data())).toEqual([1, 0, 0, 3]);
  });
});

describe('elementwise', () => {
  test.each([[[1]], [[3]], [[4, 5]], [[2, 1025]], [[3, 2048]], [[7, 3, 5]]])('%o', async (shape) => {
    await agrees((x, y) => tf.add(tf.mul(x, 2), tf.reverse(y, -1)), numbers(shape), numbers(shape, 2));
  });

  test('transposes, slices with steps, broadcasts, in one program', async () => {
    await agrees(
      (x, y) => tf.add(tf.transpose(x, [2, 0, 1]), tf.stridedSlice(y, [6, 0, 9], [0, 3, 0], [-1, 1, -2])),
      numbers([3, 5, 6]),
      numbers([7, 3, 10], 2),
    );
    await agrees((x, y) => tf.mul(x, y), numbers([4, 1, 33]), numbers([5, 1], 3));
  });

  test('integers: division and remainder of either sign, and by zero', async () => {
    const a = tf.tensor1d([7, -7, 7, -7, 5, -(2 ** 31), 0, 9], 'int32');
    const b = tf.tensor1d([3, 3, -3, -3, 0, -1, 4, 9], 'int32');
    await agrees((x, y) => tf.mod(x, tf.maximum(y, tf.scalar(1, 'int32'))), a, b);
    const compiled = jit((x: tf.Tensor, y: tf.Tensor) => tf.floorDiv(x, y), { target: 'wasm' });
    expect(Array.from(await (await compiled(a, b)).data()).slice(0, 5)).toEqual([2, -3, -3, 2, 0]);
  });
});

describe('products', () => {
  test.each([
    [1, 7, 5],
    [5, 33, 20],
    [9, 64, 48],
  ])('[%i, %i] x [.., %i], each factor either way round', async (m, k, n) => {
    for (const transposeA of [false, true]) {
      for (const transposeB of [false, true]) {
        await agrees(
          (a, b, bias) => tf.relu(tf.add(tf.matMul(a, b, transposeA, transposeB), bias)),
          numbers(transposeA ? [2, k, m] : [2, m, k]),
          numbers(transposeB ? [1, n, k] : [1, k, n], 2),
          numbers([n], 3),
        );
      }
    }
  });
});

describe('attention', () => {
  test.each([Number.NEGATIVE_INFINITY, -1e9])(
    'a mask of %d over more than a block, then larger and larger scores',
    async (hidden) => {
      const mask = Float32Array.from({ length: 3 * 50 }, (_, i) => (i % 50 < 20 ? hidden : (i % 50) / 2));
      await agrees(
        (q, k, v, m) => tf.matMul(tf.softmax(tf.add(tf.matMul(q!, k!, false, true), m!)), v!),
        ...[numbers([1, 2, 3, 8]), numbers([1, 2, 50, 8], 2), numbers([1, 2, 50, 6], 3)],
        tf.tensor2d(mask, [3, 50]),
      );
    },
  );
});

describe('Weights', () => {
  test.each(weightKinds)('%s: products, rows, and the whole', async (kind) => {
    const kernel = makeWeight(kind, [70, 77], 1, randomNumbers(3));
    const embedding = makeWeight(kind, [45, 70], 0, randomNumbers(4));
    for (const rows of [1, 3, 9, 14, 35]) {
      const tolerance = kind.startsWith('int') ? 2e-4 : 1e-5;
      await agreesWithin(tolerance, (x) => [linear(x, kernel), unembed(x, embedding)], [numbers([rows, 70])]);
    }
    await agrees((indices) => embed(embedding, indices), integers([2, 5], 45));
    // Read in other ways than it was packed for: whole, and by both axes.
    await agrees((x) => tf.add(vector(kernel), x), numbers([70, 77]));
    await agreesWithin(2e-4, (x, y) => [linear(x, kernel), unembed(y, kernel)], [
      numbers([2, 70]),
      numbers([2, 77]),
    ]);
  });
});
