// scan, compiled and eager.
import * as tf from '@tensorflow/tfjs-core';
import { beforeEach, describe, expect, test } from 'vitest';
import { jit, scan } from '../../lib/jit/jit.js';
import { agrees, numbers, defaultTarget as target } from './agree.js';

beforeEach(async () => {
  await tf.setBackend('cpu');
});

describe('the same as the eager loop', () => {
  test('a counter, with outputs', async () => {
    await agrees(
      (x: tf.Tensor) => scan((c) => ({ carry: tf.add(c, 1), output: tf.square(c) }), x, 5),
      [tf.zeros([2])],
    );
  });

  test('a recurrent cell that reads weights and constants from outside', async () => {
    const [input, recurrent, bias] = [numbers([3, 4]), numbers([4, 4], 2), numbers([4], 3)];
    const cell = (x: tf.Tensor, h: tf.Tensor) =>
      tf.tanh(tf.add(tf.add(tf.matMul(x, input), tf.matMul(h, recurrent)), bias));
    const fn = (x: tf.Tensor, h: tf.Tensor) => {
      const scaled = tf.mul(x, 0.5);
      return scan((c) => ({ carry: cell(scaled, c), output: { h: c, norm: tf.sum(c) } }), h, 4);
    };
    await agrees(fn, [numbers([2, 3]), tf.zeros([2, 4])]);
  });

  test('an LSTM over a sequence: the step picks its input by a counter', async () => {
    const w = numbers([3 + 4, 16]);
    const fn = (xs: tf.Tensor) => {
      const start = { i: tf.scalar(0, 'int32'), h: tf.zeros([1, 4]), c: tf.zeros([1, 4]) };
      return scan(
        ({ i, h, c }) => {
          const x = tf.reshape(tf.gather(xs, i), [1, 3]);
          const [a, b, f, o] = tf.split(tf.matMul(tf.concat([x, h], 1), w), 4, 1) as tf.Tensor[];
          const next = tf.add(tf.mul(tf.sigmoid(f!), c), tf.mul(tf.sigmoid(a!), tf.tanh(b!)));
          const hidden = tf.mul(tf.sigmoid(o!), tf.tanh(next));
          return {
            carry: { i: tf.add(i, tf.scalar(1, 'int32')) as tf.Scalar, h: hidden, c: next },
            output: hidden,
          };
        },
        start,
        6,
      );
    };
    await agrees(fn, [numbers([6, 3])]);
  });

  test('carries that change places, or are only passed on', async () => {
    const fn = (a: tf.Tensor, b: tf.Tensor) =>
      scan(({ x, y, z }) => ({ carry: { x: y, y: x, z }, output: tf.sub(x, y) }), { x: a, y: b, z: a }, 3);
    await agrees(fn, [numbers([3]), numbers([3], 2)]);
  });

  test('until ends the loop, the rest is 0', async () => {
    const fn = (x: tf.Tensor) =>
      scan((c) => ({ carry: tf.mul(c, 2), output: c }), x, 6, { until: (c) => tf.greater(tf.sum(c), 10) });
    await agrees(fn, [tf.ones([1])]);
    const result = await jit(fn, { target })(tf.ones([1]));
    expect(Array.from(await result.outputs.data())).toEqual([1, 2, 4, 8, 0, 0]);
    expect((await result.steps.data())[0]).toBe(4);
  });

  test('a loop in a loop', async () => {
    const fn = (x: tf.Tensor) => {
      const two = tf.add(x, 1);
      const inner = (c: tf.Tensor) => scan((d) => ({ carry: tf.add(d, two) }), c, 3).carry;
      return scan((c) => ({ carry: inner(c), output: inner(tf.neg(c)) }), x, 2);
    };
    await agrees(fn, [numbers([2])]);
  });

  test('no steps at all', async () => {
    await agrees((x: tf.Tensor) => scan((c) => ({ carry: tf.add(c, 1), output: c }), x, 0), [numbers([2])]);
  });

  test('a loop of many steps needs no memory of its own', async () => {
    const f = jit((x: tf.Tensor) => scan((c) => ({ carry: tf.add(c, 1) }), x, 2000), { target });
    const { carry } = await f(tf.scalar(0));
    expect((await carry.data())[0]).toBe(2000);
    expect(f.report().arenaBytes).toBeLessThan(1000);
  });
});

describe('rounds', () => {
  test('are reported with their outputs', async () => {
    const f = jit((x: tf.Tensor) => scan((c) => ({ carry: tf.add(c, 1), output: tf.square(c) }), x, 4), {
      target,
    });
    const rounds: [number, number][] = [];
    await f.run([tf.scalar(1)], { onRound: (round, [square]) => rounds.push([round, square![0]!]) });
    expect(rounds).toEqual([
      [0, 1],
      [1, 4],
      [2, 9],
      [3, 16],
    ]);
  });
});

describe('a carry has to keep', () => {
  const run = (step: (c: { n: number; x: tf.Tensor }) => { n: number; x: tf.Tensor }) =>
    jit((x: tf.Tensor) => scan((c) => ({ carry: step(c) }), { n: 0, x }, 2), { target })(tf.ones([2]));

  test('its shape', async () => {
    await expect(run(({ n, x }) => ({ n, x: tf.concat([x, x]) }))).rejects.toThrow(
      /carry x: expected float32\[2\] as before the step, received float32\[4\]/,
    );
  });
  test('its type', async () => {
    await expect(run(({ n, x }) => ({ n, x: tf.greater(x, 0) }))).rejects.toThrow(
      /carry x.*received bool\[2\]/,
    );
  });
  test('its plain numbers', async () => {
    await expect(run(({ n, x }) => ({ n: n + 1, x }))).rejects.toThrow(
      /carry n: expected 0.*received 1.*has to be a tensor/,
    );
  });
  test('its structure, eagerly too', () => {
    const step = (c: { x: tf.Tensor }) => ({ carry: { ...c, y: c.x } });
    expect(() => scan(step, { x: tf.ones([1]) }, 2)).toThrow(/carry y: expected nothing/);
  });
});

test('an eager scan frees what it does not return', () => {
  const x = tf.ones([2]);
  const before = tf.memory().numTensors;
  const result = scan((c) => ({ carry: { a: tf.add(c.a, 1), b: c.b }, output: c.a }), { a: x, b: x }, 4);
  expect(tf.memory().numTensors).toBe(before + 3); // a, outputs, steps; b is x itself
  expect(Array.from(result.outputs.dataSync())).toEqual([1, 1, 2, 2, 3, 3, 4, 4]);
  expect(Array.from(x.dataSync())).toEqual([1, 1]);
  tf.dispose([result.carry.a, result.outputs, result.steps]);
});
