import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { fuseAttention } from '../../../lib/jit/passes/fuseAttention.js';
import { fuseSoftmax } from '../../../lib/jit/passes/fuseSoftmax.js';
import { print } from '../../../lib/jit/print.js';
import { attention } from '../../../lib/ops.js';
import { passed, trace } from '../traced.js';

const shapes = [
  [2, 3, 4, 8],
  [2, 3, 5, 8],
  [2, 3, 5, 6],
] as const;

test('two products around a softmax become one operation', () => {
  const graph = trace(
    (q, k, v, mask) => {
      const scores = tf.mul(tf.matMul(q!, k!, false, true), 1 / Math.sqrt(8));
      return tf.matMul(tf.softmax(tf.add(scores, mask!)), v!);
    },
    [...shapes, [4, 5]],
  );
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2,3,4,8], %1: f32[2,3,5,8], %2: f32[2,3,5,6], %3: f32[4,5])
      %4: f32[2,3,4,5] = BatchMatMul(%0, %1) { transposeB }
      %5: f32[] = Constant() { 0.3535534 }
      %6: f32[2,3,4,5] = Mul(%4, %5)
      %7: f32[2,3,4,5] = Add(%6, %3)
      %8: f32[2,3,4,5] = Softmax(%7) { log: false, scale: 1 }
      %9: f32[2,3,4,6] = BatchMatMul(%8, %2)
      return %9"
  `);
  expect(print(passed(graph, fuseAttention))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,3,4,8], %1: f32[2,3,5,8], %2: f32[2,3,5,6], %3: f32[4,5])
      %4: f32[2,3,4,6] = Attention(%0, %1, %2, %3) { scale: 0.3535534, mask: [0; 0,0,5,1] }
      return %4"
  `);
});

test('grouped heads, as ops.ts composes them', () => {
  const graph = trace(
    (q, k, v) => attention(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, null, 0.25),
    [
      [1, 4, 3, 8],
      [1, 2, 5, 8],
      [1, 2, 5, 8],
    ],
  );
  expect(print(passed(graph, (g) => fuseAttention(fuseSoftmax(g))))).not.toContain('Softmax');
});

test.each([
  ['no mask', (s: tf.Tensor) => s],
  ['a choice', (s: tf.Tensor, m: tf.Tensor) => tf.where(tf.greater(m, 0), s, tf.scalar(-1e9))],
  ['a division', (s: tf.Tensor, m: tf.Tensor) => tf.add(m, tf.div(s, 3))],
])('with %s', (_, masked) => {
  const graph = trace(
    (q, k, v, mask) =>
      tf.matMul(tf.softmax(masked(tf.matMul(q!, tf.transpose(k!, [0, 1, 3, 2])), mask!)), v!),
    [...shapes, [4, 5]],
  );
  const text = print(passed(graph, fuseAttention));
  expect(text).toContain('Attention');
  expect(text).not.toContain('Softmax');
});

test('weights that something else reads stay', () => {
  const graph = trace((q, k, v) => {
    const weights = tf.softmax(tf.matMul(q!, k!, false, true));
    return [tf.matMul(weights, v!), weights];
  }, shapes);
  expect(print(passed(graph, fuseAttention))).not.toContain('Attention');
});
