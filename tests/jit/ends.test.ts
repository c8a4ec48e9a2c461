// What users may give a function or ask of it beyond the usual, on every target: integers and floats at their ends, no
// elements, odd sizes, calls at once, and mistakes.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js';
import { describe, expect, test } from 'vitest';
import type { TargetName } from '../../lib/jit/jit.js';
import { jit, scan } from '../../lib/jit/jit.js';
import { hasWebgpu, webgpuReason } from '../webgpu.js';
import { agrees, flags, numbers } from './agree.js';

type T = tf.Tensor;
type Case = readonly [name: string, fn: (...args: T[]) => unknown, args: () => T[]];

const int32 = (values: number[], shape = [values.length]) => tf.tensor(values, shape, 'int32');

const kinds: Case[] = [
  [
    'integers divided, with signs',
    (a, b) => [
      a.floorDiv(b),
      a.mod(b),
      a.div(b),
      tf.pow(b, tf.scalar(3, 'int32')),
      a.squaredDifference(b),
      a.prod(),
      a.mean(),
    ],
    () => [int32([-7, 7, -7, 7, 6, -6, 0, 1, -1, 13]), int32([2, -2, -2, 2, 3, 3, 5, -5, 7, 4])],
  ],
  [
    'integers beyond 32 bits',
    (a, b) => [a.add(b), a.sub(b), a.neg(), a.sum(), a.cumsum()],
    () => [int32([2147483647, -2147483648, 65536, 1 << 30]), int32([1, -1, 65537, 4])],
  ],
  [
    'floats divided, with signs',
    (a, b) => [a.mod(b), a.floorDiv(b)],
    () => [
      tf.tensor1d([-7.5, 7.5, -7.5, 7.5, 1, -0.3, 0, 1e6]),
      tf.tensor1d([2, -2, -2, 2, 0.1, 0.2, 3, 0.7]),
    ],
  ],
  [
    'remainders at the ends',
    (a, b) => a.mod(b),
    () => [
      tf.tensor1d([5, -5, 0, Number.POSITIVE_INFINITY, 1, Number.NaN]),
      tf.tensor1d([0, 0, 0, 2, Number.POSITIVE_INFINITY, 1]),
    ],
  ],
  [
    'flags as numbers',
    (a, x) => [
      a.mul(x),
      a.toInt().add(1),
      a.mean(),
      a.sum(),
      a.any(),
      a.all(0),
      x.greater(0).mul(x),
      x.toInt().toBool(),
    ],
    () => [flags([3, 5]), numbers([3, 5])],
  ],
  [
    'powers at the ends',
    (x, y) => [x.pow(y), x.pow(2), x.pow(0.5), x.pow(-1), x.pow(0)],
    () => [
      tf.tensor1d([
        -2,
        -2,
        -2,
        0,
        0,
        -1,
        3,
        1e10,
        Number.NaN,
        Number.POSITIVE_INFINITY,
        Number.NEGATIVE_INFINITY,
        -0,
      ]),
      tf.tensor1d([3, 2, 0.5, 0, -1, Number.POSITIVE_INFINITY, 0.5, 3, 0, -1, 3, -3]),
    ],
  ],
  [
    'angles at the ends',
    (y, x) => tf.atan2(y, x),
    () => [
      tf.tensor1d([0, -0, 0, -0, 1, -1, 1, Number.POSITIVE_INFINITY, 0]),
      tf.tensor1d([0, 0, -1, -1, 0, 0, -1, Number.NEGATIVE_INFINITY, Number.NaN]),
    ],
  ],
  [
    'functions at the ends',
    (x) => [
      x.exp(),
      x.expm1(),
      x.tanh(),
      x.erf(),
      x.sigmoid(),
      x.softplus(),
      x.log(),
      x.log1p(),
      x.sqrt(),
      x.rsqrt(),
      x.sign(),
      x.acosh(),
      x.atanh(),
      x.asinh(),
      x.elu(),
      x.relu(),
      x.round(),
      x.isNaN(),
      x.isFinite(),
      x.clipByValue(-1, 1),
      x.less(1),
      x.max(),
      x.sum(),
    ],
    () => [
      tf.tensor1d([
        0,
        -0,
        1e-20,
        1e-40,
        -1e-8,
        0.5,
        -0.5,
        1,
        -1,
        5,
        -5,
        20,
        -20,
        88,
        -88,
        89,
        -104,
        1e10,
        -1e10,
        3e38,
        Number.POSITIVE_INFINITY,
        Number.NEGATIVE_INFINITY,
        Number.NaN,
      ]),
    ],
  ],
  [
    'six axes',
    (x) =>
      [
        x.transpose([5, 0, 4, 1, 3, 2]).mul(2),
        x.max([0, 5], true),
        x.sum([1, 3]),
        tf.stack([x, x], 3).reverse([0, 3]).sum(2),
      ].slice(0, 3),
    () => [numbers([2, 3, 1, 2, 2, 3])],
  ],
  [
    'products of higher rank, spread',
    (a, b, c) => [a.matMul(b), c.matMul(b), a.matMul(b, true, true)],
    () => [numbers([2, 2, 3, 3]), numbers([1, 2, 3, 3], 2), numbers([3, 3], 3)],
  ],
  [
    'no elements in the middle',
    (a, b) => [a.matMul(b), b.matMul(a), b.sum(0), tf.concat([b, tf.ones([2, 3])]), b.prod()],
    () => [tf.zeros([3, 0]), tf.zeros([0, 3])],
  ],
  [
    'arguments handed on, twice, and constants',
    (x) => ({
      a: x,
      b: [x, x.transpose()],
      c: tf.range(0, 5),
      d: tf.tidy(() => x.add(tf.eye(2))),
      n: 3,
      s: 'text',
      u: null,
    }),
    () => [numbers([2, 2])],
  ],
  [
    'five hundred operations',
    (x) => {
      let y: T = x;
      for (let i = 0; i < 250; i++) y = i % 3 ? y.mul(0.99).add(0.01) : y.tanh().sub(x.mul(0.001));
      return y;
    },
    () => [numbers([17, 3])],
  ],
  ['two hundred outputs', (x) => Array.from({ length: 200 }, (_, i) => x.add(i)), () => [numbers([3])]],
  ['a big product', (a, b) => a.matMul(b), () => [numbers([90, 200]), numbers([200, 70], 2)]],
];

const targets: TargetName[] = ['reference', 'wasm', ...(hasWebgpu ? (['webgpu'] as const) : [])];

test.skipIf(!hasWebgpu)(`the same on webgpu (${webgpuReason})`, () => {});

for (const target of targets) {
  describe(target, () => {
    test.each(kinds)('%s', (_, fn, args) => agrees(fn, args(), { target }));

    test.each([1, 2, 3, 5, 8, 9, 16, 17, 31, 33])('everything of odd size %i', async (n) => {
      const everything = (x: T, w: T, v: T) => {
        const y = x.matMul(w).add(v);
        const reduced = [
          y.softmax(),
          y.sum(0),
          y.sum(1),
          y.logSumExp(0),
          y.cumsum(1),
          y.square().mean(),
          y.argMax(1),
        ];
        return [...reduced, y.matMul(y, true), y.matMul(y, false, true), v.matMul(y.transpose())];
      };
      await agrees(everything, [numbers([n, n + 1]), numbers([n + 1, n], 2), numbers([1, n], 3)], { target });
    });

    test('calls at once, of several shapes, whose arguments are gone', async () => {
      await tf.setBackend('cpu');
      const f = jit((x: T, w: T) => [x.matMul(w).relu(), x], { target });
      const w = tf.eye(7);
      const results = await Promise.all(
        Array.from({ length: 12 }, (_, i) => {
          const x = tf.fill([1 + (i % 4), 7], i);
          const running = f(x, w);
          x.dispose();
          return running;
        }),
      );
      for (const [i, tensors] of results.entries())
        for (const tensor of tensors) expect(Array.from(await tensor.data())).toEqual(new Array(7 * (1 + (i % 4))).fill(i)); // biome-ignore format: one line
      expect(f.compilations).toBe(4);
      f.dispose();
    });

    test('compiled, eager, compiled again; memory as before', async () => {
      await tf.setBackend('cpu');
      const f = jit((x: T) => x.mul(2).add(1), { target });
      const start = tf.memory().numTensors;
      let x: T = tf.ones([3]);
      for (let i = 0; i < 5; i++) {
        const y = await f(x);
        x.dispose();
        x = tf.sub(y, 1);
        y.dispose();
      }
      expect(Array.from(await x.data())).toEqual([32, 32, 32]);
      x.dispose();
      expect(tf.memory().numTensors).toBe(start);
    });
  });
}

describe('errors', () => {
  const x = () => tf.ones([4, 4]);
  const loop = (step: unknown, until?: unknown) => (v: T) =>
    scan(step as (c: T) => { carry: T }, v, 3, { until: until as (c: T) => T });
  const variable = tf.variable(tf.ones([4, 4]));
  test.each<[string, (v: T) => unknown, RegExp]>([
    [
      'a value that is asked for and not awaited',
      (v) => [v.data(), v.neg()][1],
      /an argument was read at .*ends\.test\.ts/,
    ],
    [
      'a read that the function catches',
      (v) => {
        try {
          v.dataSync();
        } catch {}
        return v;
      },
      /an argument was read at .*ends\.test\.ts/,
    ],
    ['a variable assigned', (v) => variable.assign(v), /variable .* assigned at .*ends\.test\.ts/],
    ['a spectrum', (v) => tf.spectral.rfft(v), /rfft \(Complex\) at .*ends\.test\.ts:\d+:\d+.*no lowering/],
    [
      'a step that returns a tensor',
      loop((c: T) => c.add(1)),
      /step: expected \{ carry, output\? \}, received a tensor/,
    ],
    ['a step that returns nothing', loop(() => undefined), /step: expected .*, received undefined/],
    [
      'a step that returns a Promise',
      loop(async (c: T) => ({ carry: c })),
      /step: expected .*, received a Promise/,
    ],
    [
      'an end that is no tensor',
      loop(
        (c: T) => ({ carry: c }),
        () => true,
      ),
      /until: expected a bool scalar tensor, received boolean true/,
    ],
    ['an axis twice in a term', (v) => tf.einsum('ii->i', v), /each axis once in a term, received ii/],
  ])('%s', async (_, fn, message) => {
    await tf.setBackend('cpu');
    await expect(jit(fn, { target: 'reference' })(x())).rejects.toThrow(message);
    expect(tf.getBackend()).toBe('cpu');
    expect(Array.from(variable.dataSync())).toEqual(new Array(16).fill(1));
  });
});
