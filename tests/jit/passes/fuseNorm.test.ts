import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { fuseNorm } from '../../../lib/jit/passes/fuseNorm.js';
import { print } from '../../../lib/jit/print.js';
import { passed, trace } from '../traced.js';

const layerNorm = (x: tf.Tensor, scale: tf.Tensor, bias: tf.Tensor): tf.Tensor => {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centred), -1, true);
  return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, 1e-5))), scale), bias);
};
const rmsNorm = (x: tf.Tensor, scale: tf.Tensor): tf.Tensor =>
  tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-6))), scale);

test('the operations of a LayerNorm become one', () => {
  const graph = trace(layerNorm as (...args: tf.Tensor[]) => tf.Tensor, [[2, 8], [8], [8]]);
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8], %1: f32[8], %2: f32[8])
      %3: f32[2] = Reduce(%0) { kind: Sum, first: 1, last: 1 }
      %4: f32[2,1] = Reshape(%3)
      %5: f32[] = Constant() { 8 }
      %6: f32[2,1] = Div(%4, %5)
      %7: f32[2,8] = Sub(%0, %6)
      %8: f32[2,8] = Mul(%7, %7)
      %9: f32[2] = Reduce(%8) { kind: Sum, first: 1, last: 1 }
      %10: f32[2,1] = Reshape(%9)
      %11: f32[2,1] = Div(%10, %5)
      %12: f32[] = Constant() { 0.00001 }
      %13: f32[2,1] = Add(%11, %12)
      %14: f32[2,1] = Rsqrt(%13)
      %15: f32[2,8] = Mul(%7, %14)
      %16: f32[2,8] = Mul(%15, %1)
      %17: f32[2,8] = Add(%16, %2)
      return %17"
  `);
  expect(print(passed(graph, fuseNorm))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8], %1: f32[8], %2: f32[8])
      %3: f32[2,8] = Norm(%0, %1, %2) { kind: layer, epsilon: 0.00001, scaled: true, biased: true }
      return %3"
  `);
});

test('an RMSNorm too', () => {
  const graph = trace(rmsNorm as (...args: tf.Tensor[]) => tf.Tensor, [[2, 3, 8], [8]]);
  expect(print(passed(graph, fuseNorm))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,3,8], %1: f32[8])
      %2: f32[2,3,8] = Norm(%0, %1) { kind: rms, epsilon: 0.000001, scaled: true, biased: false }
      return %2"
  `);
});

test.each([
  [
    'tf.moments, division by a root, scale first',
    (x: tf.Tensor, s: tf.Tensor) => {
      const { mean, variance } = tf.moments(x, -1, true);
      return tf.div(tf.mul(tf.sub(x, mean), s), tf.sqrt(tf.add(variance, 1e-3)));
    },
  ],
  [
    'without scale and bias',
    (x: tf.Tensor) => {
      const centred = tf.sub(x, tf.mean(x, 1, true));
      return tf.mul(centred, tf.rsqrt(tf.add(tf.mean(tf.mul(centred, centred), 1, true), 0.5)));
    },
  ],
])('written as %s', (_, fn) => {
  const text = print(passed(trace(fn as (...args: tf.Tensor[]) => tf.Tensor, [[2, 8], [8]]), fuseNorm));
  expect(text).toContain('Norm(');
  expect(text).not.toContain('Reduce');
});

test.each([
  ['over another axis', (x: tf.Tensor) => tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), 0, true), 1)))],
  [
    'of another value',
    (x: tf.Tensor, y: tf.Tensor) => tf.mul(y, tf.rsqrt(tf.add(tf.mean(tf.square(x), 1, true), 1))),
  ],
])('a mean square %s stays', (_, fn) => {
  const graph = trace(fn as (...args: tf.Tensor[]) => tf.Tensor, [
    [8, 8],
    [8, 8],
  ]);
  expect(print(passed(graph, fuseNorm))).not.toContain('Norm(');
});
