// Functions that no part of the compiler was written for, on every target, against eager tfjs. Chained methods, as in
// tfjs's own examples.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import { describe, test } from 'vitest';
import type { TargetName } from '../../lib/jit/jit.js';
import { scan } from '../../lib/jit/jit.js';
import { hasWebgpu, webgpuReason } from '../webgpu.js';
import { agrees, integers, numbers } from './agree.js';

type T = tf.Tensor;
type Case = readonly [name: string, fn: (...args: T[]) => unknown, args: () => T[]];

const one = tf.scalar(1, 'int32');
const lower = (size: number) => tf.linalg.bandPart(tf.ones([size, size]), -1, 0);
const int32 = (values: number[], shape = [values.length]) => tf.tensor(values, shape, 'int32');
const layer = () => [numbers([7, 13]), numbers([13, 33], 2), numbers([33], 3), numbers([33, 5], 4)];
const perceptron =
  (activate: (x: T) => T) =>
  (x: T, w: T, b: T, v: T): T =>
    activate(x.matMul(w).add(b)).matMul(v);

const activations: [name: string, activate: (x: T) => T][] = [
  ['selu', (x) => x.selu()],
  ['softplus, mish', (x) => x.mul(x.softplus().tanh())],
  ['swish', (x) => x.mul(x.sigmoid())],
  ['gelu by erf', (x) => x.mul(0.5).mul(x.div(Math.SQRT2).erf().add(1))],
  [
    'gelu by tanh',
    (x) =>
      x.mul(0.5).mul(
        x
          .add(x.pow(3).mul(0.044715))
          .mul(Math.sqrt(2 / Math.PI))
          .tanh()
          .add(1),
      ),
  ],
  ['hard swish', (x) => x.mul(x.add(3).relu6()).div(6)],
  ['maxout', (x) => x.reshape([7, 11, 3]).max(-1).tile([1, 3])],
];
const perceptrons = activations.map(([name, activate]): Case => [name, perceptron(activate), layer]);

const recurrences: Case[] = [
  [
    'a minimal cell with nested outputs',
    (xs, w, u) =>
      scan(
        ({ t, h }) => {
          const next = xs.gather(t).matMul(w).add(h.matMul(u)).tanh();
          return {
            carry: { t: t.add(one), h: next },
            output: { h: next, deep: [next.sum(), { m: next.max(1) }] },
          };
        },
        { t: tf.scalar(0, 'int32') as T, h: tf.zeros([3, 9]) as T },
        6,
      ),
    () => [numbers([6, 3, 5]), numbers([5, 9], 2), numbers([9, 9], 3)],
  ],
  [
    'a decoder with attention that stops when all rows have ended',
    (encoded, w, embedding, out) =>
      scan(
        ({ token, h, done }) => {
          const next = embedding.gather(token).add(h).tanh();
          const weights = next.expandDims(1).matMul(encoded, false, true).softmax().squeeze([1]);
          const context = weights.expandDims(1).matMul(encoded).squeeze([1]);
          const chosen = next.add(context).matMul(w).matMul(out).argMax(1);
          const ended = done.logicalOr(chosen.equal(tf.scalar(2, 'int32')));
          return {
            carry: { token: chosen as T, h: next as T, done: ended as T },
            output: { chosen, weights },
          };
        },
        { token: int32([1, 3]) as T, h: tf.zeros([2, 8]) as T, done: tf.zeros([2], 'bool') as T },
        9,
        { until: ({ done }) => done.all() },
      ),
    () => [numbers([2, 5, 8]), numbers([8, 8], 2), numbers([11, 8], 3), numbers([8, 11], 4)],
  ],
  [
    'carries that change places',
    (x) =>
      scan(
        ({ z, a, m }) => ({ carry: { z: a, a: m, m: z }, output: [z.sum(), a.max(), m] }),
        { z: x, a: x.mul(2), m: x.add(1) } as Record<'z' | 'a' | 'm', T>,
        7,
      ),
    () => [numbers([3, 3])],
  ],
  [
    'a carry that is transposed',
    (x) => scan((c) => ({ carry: c.transpose(), output: c.slice([0, 0], [1, -1]) }), x, 3),
    () => [numbers([5, 5])],
  ],
  [
    'a window that slides',
    (x, w) =>
      scan(
        ({ k, q }) => {
          const keys = tf.concat([k.slice([1, 0]), q.matMul(w)], 0);
          const a = q.matMul(keys, false, true).softmax().matMul(keys) as T;
          return { carry: { k: keys, q: a }, output: a };
        },
        { k: tf.zeros([5, 6]) as T, q: x },
        8,
      ),
    () => [numbers([1, 6]), numbers([6, 6], 2)],
  ],
  [
    'integers until one',
    (x) =>
      scan(
        (n) => ({
          carry: tf.where(
            n.mod(tf.scalar(2, 'int32')).equal(tf.scalar(0, 'int32')),
            n.floorDiv(tf.scalar(2, 'int32')),
            n.mul(tf.scalar(3, 'int32')).add(one),
          ) as T,
          output: n,
        }),
        x,
        30,
        { until: (n) => n.equal(one) },
      ),
    () => [tf.scalar(12, 'int32')],
  ],
  [
    'a loop in a loop, both with an end',
    (x) =>
      scan(
        (c) => ({
          carry: scan((d) => ({ carry: d.mul(1.5) as T }), c, 10, {
            until: (d) => d.max().greater(3),
          }).carry.sub(2) as T,
          output: c.sum(),
        }),
        x,
        4,
      ),
    () => [numbers([4])],
  ],
  [
    'no step, and a carry that stays',
    (x) => [
      scan((c) => ({ carry: c.add(1) as T, output: c.sum() }), x, 0),
      scan((c) => ({ carry: c, output: c }), x, 3),
    ],
    () => [numbers([3])],
  ],
  [
    'gradient descent',
    (x, y, w0) =>
      scan(
        (w) => {
          const { value, grads } = tf.valueAndGrads((v) => x.matMul(v!).sub(y).square().mean() as tf.Scalar)([
            w,
          ]);
          return { carry: w.sub(grads[0]!.mul(0.1)) as T, output: value };
        },
        w0,
        10,
      ),
    () => [numbers([6, 4]), numbers([6, 1], 2), numbers([4, 1], 3)],
  ],
];

const blocks: Case[] = [
  [
    'attention with a bias and with a mask, and its weights',
    (q, k, v, bias) => {
      const scores = q.matMul(k, false, true);
      const masked = tf.where(lower(7).greater(0), scores, tf.scalar(Number.NEGATIVE_INFINITY)).softmax();
      return [scores.add(bias).softmax().matMul(v), masked, masked.matMul(v)];
    },
    () => [numbers([2, 3, 7, 5]), numbers([2, 3, 7, 5], 2), numbers([2, 3, 7, 5], 3), numbers([3, 1, 7], 4)],
  ],
  [
    'a row of a softmax that sees nothing',
    (x) =>
      tf
        .where(
          tf.tensor2d([[0], [1]], [2, 1], 'bool').tile([1, 9]),
          x,
          tf.fill([2, 9], Number.NEGATIVE_INFINITY),
        )
        .softmax(),
    () => [numbers([2, 9])],
  ],
  [
    'rotation of pairs',
    (x) => {
      const [a, b] = x.reshape([3, 6, 4, 2]).unstack(3) as [T, T];
      const t = tf.range(0, 6).expandDims(1).mul(tf.range(1, 5));
      return tf
        .stack([a.mul(t.cos()).sub(b.mul(t.sin())), a.mul(t.sin()).add(b.mul(t.cos()))], 3)
        .reshape([3, 6, 8]);
    },
    () => [numbers([3, 6, 8])],
  ],
  [
    'group norm',
    (x, g) => {
      const { mean, variance } = tf.moments(x.reshape([2, 16, 3, 2]), [1, 3], true);
      return x.reshape([2, 16, 3, 2]).sub(mean).div(variance.add(1e-5).sqrt()).reshape([2, 4, 4, 6]).mul(g);
    },
    () => [numbers([2, 4, 4, 6]), numbers([6], 2)],
  ],
  [
    'what looks like a norm and is none',
    (x, y) => {
      const d = x.sub(y.mean(-1, true));
      return [
        d.div(y.sub(y.mean(-1, true)).square().mean(-1, true).add(1e-5).sqrt()),
        x.mul(y.square().mean(-1, true).add(1e-6).rsqrt()),
        x.div(x.square().sum(-1, true).add(1e-5).sqrt()),
        x.sub(x.mean(0, true)).div(x.sub(x.mean(0, true)).square().mean(0, true).add(1e-5).sqrt()),
      ];
    },
    () => [numbers([4, 9]), numbers([4, 9], 2)],
  ],
  [
    'what looks like a softmax and is none',
    (x) => {
      const e = x.sub(x.max(-1, true)).exp();
      return [
        e.div(e.sum(-1, true).add(1)),
        e.div(e.max(-1, true)),
        x.exp().div(x.exp().sum(-1, true)),
        e.div(e.sum(0, true)),
      ];
    },
    () => [numbers([4, 9])],
  ],
  [
    'what may follow a product',
    (x, w, b, c) => {
      const y = x.matMul(w);
      return [
        y.add(b),
        y.mul(b).add(c),
        b.sub(y),
        y.add(y.sum(1, true)),
        tf.where(y.greater(0), y, b),
        y.reshape([10, 6]).add(1),
        y.transpose().add(1),
        tf.concat([y, y.relu()], 1),
        y.slice([1, 2], [3, 4]).mul(2),
      ];
    },
    () => [numbers([5, 7]), numbers([7, 12], 2), numbers([12], 3), numbers([5, 1], 4)],
  ],
  [
    'convolution by columns',
    (x, w) => {
      const padded = x.pad([
        [0, 0],
        [1, 1],
        [1, 1],
        [0, 0],
      ]);
      const columns = Array.from({ length: 9 }, (_, i) =>
        padded.slice([0, Math.floor(i / 3), i % 3, 0], [-1, 7, 5, -1]),
      );
      return tf.concat(columns, 3).reshape([-1, 18]).matMul(w).reshape([2, 7, 5, 4]).relu();
    },
    () => [numbers([2, 7, 5, 2]), numbers([18, 4], 2)],
  ],
  [
    'squeeze and excite',
    (x, a, b) => x.mul(x.mean([1, 2]).matMul(a).relu().matMul(b).sigmoid().reshape([2, 1, 1, 6])),
    () => [numbers([2, 5, 5, 6]), numbers([6, 3], 2), numbers([3, 6], 3)],
  ],
  [
    'pools with explicit padding',
    (x) => [tf.maxPool(x as tf.Tensor4D, 3, 2, 1), tf.avgPool(x as tf.Tensor4D, 3, 1, 1)],
    () => [numbers([2, 6, 5, 3])],
  ],
  [
    "tfjs's fused product with each activation",
    (a, b, bias) =>
      (['linear', 'relu', 'relu6', 'elu', 'sigmoid', 'leakyrelu'] as const).map((activation) =>
        tf.fused.matMul({ a, b, bias, activation, leakyreluAlpha: 0.3, transposeB: true }),
      ),
    () => [numbers([5, 7]), numbers([9, 7], 2), numbers([9], 3)],
  ],
  [
    'gradients of a network',
    (x, w) =>
      tf.grads((a, b) => {
        const h = a!.matMul(b!).relu();
        const { mean, variance } = tf.moments(h, -1, true);
        return h
          .sub(mean)
          .div(variance.add(1e-5).sqrt())
          .logSoftmax()
          .slice([0, 0], [-1, 1])
          .neg()
          .sum() as tf.Scalar;
      })([x, w]),
    () => [numbers([6, 4]), numbers([4, 8], 2)],
  ],
];

const samplers: Case[] = [
  [
    'top-p by a running sum',
    (l) => {
      const { values, indices } = tf.topk(l.softmax(), 40);
      const keep = values.cumsum(1, true).less(0.8);
      return { count: keep.sum(1), kept: tf.where(keep, values, tf.zerosLike(values)), indices };
    },
    () => [numbers([3, 40])],
  ],
  [
    'Gumbel',
    (l, u) => l.sub(u.abs().div(2.1).log().neg().log()).argMax(1),
    () => [numbers([3, 40]), numbers([3, 40], 2).add(0.001)],
  ],
  [
    'penalty for repetition',
    (l, ids) =>
      tf.where(
        tf.oneHot(ids.toInt(), 20).max(1).cast('bool'),
        tf.where(l.greater(0), l.div(1.2), l.mul(1.2)),
        l,
      ),
    () => [numbers([2, 20]), integers([2, 5], 20)],
  ],
  [
    'ties go to the first',
    (x) => [x.argMax(1), x.argMin(1), x.argMax(0), tf.topk(x, 6)],
    () => [tf.tensor2d([1, 3, 3, 0, 0, 3, 5, 5, 5, 5, 5, 5], [2, 6])],
  ],
  [
    'a vocabulary',
    (x) => [x.softmax().max(), x.argMax(1), tf.topk(x, 40), x.logSumExp(1)],
    () => [numbers([2, 20_011])],
  ],
];

const targets: TargetName[] = ['reference', 'wasm', ...(hasWebgpu ? (['webgpu'] as const) : [])];

test.skipIf(!hasWebgpu)(`the same functions on webgpu (${webgpuReason})`, () => {});

for (const target of targets) {
  describe(target, () => {
    const all = { perceptrons, recurrences, blocks, samplers };
    for (const [group, cases] of Object.entries(all)) {
      test.each(cases)(`${group}: %s`, (_, fn, args) => agrees(fn, args(), { target }));
    }
  });
}
