import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { fuseSoftmax } from '../../../lib/jit/passes/fuseSoftmax.js';
import { print } from '../../../lib/jit/print.js';
import { passed, trace } from '../traced.js';

const shifted = (x: tf.Tensor) => tf.sub(x, tf.max(x, -1, true));

test('a composed softmax becomes one operation, with the scale of its input', () => {
  const graph = trace(
    (x) => {
      const e = tf.exp(shifted(tf.mul(x!, 0.125)));
      return tf.div(e, tf.sum(e, -1, true));
    },
    [[2, 5]],
  );
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2,5])
      %1: f32[] = Constant() { 0.125 }
      %2: f32[2,5] = Mul(%0, %1)
      %3: f32[2] = Reduce(%2) { kind: Max, first: 1, last: 1 }
      %4: f32[2,1] = Reshape(%3)
      %5: f32[2,5] = Sub(%2, %4)
      %6: f32[2,5] = Exp(%5)
      %7: f32[2] = Reduce(%6) { kind: Sum, first: 1, last: 1 }
      %8: f32[2,1] = Reshape(%7)
      %9: f32[2,5] = Div(%6, %8)
      return %9"
  `);
  expect(print(passed(graph, fuseSoftmax))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,5])
      %1: f32[2,5] = Softmax(%0) { log: false, scale: 0.125 }
      return %1"
  `);
});

test('and its logarithm', () => {
  const graph = trace(
    (x) => {
      const d = shifted(x!);
      return tf.sub(d, tf.log(tf.sum(tf.exp(d), -1, true)));
    },
    [[2, 5]],
  );
  expect(print(passed(graph, fuseSoftmax))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,5])
      %1: f32[2,5] = Softmax(%0) { log: true, scale: 1 }
      return %1"
  `);
});

test('a sum over another axis stays', () => {
  const graph = trace(
    (x) => {
      const e = tf.exp(shifted(x!));
      return tf.div(e, tf.sum(e, 0, true));
    },
    [[5, 5]],
  );
  expect(print(passed(graph, fuseSoftmax))).not.toContain('Softmax');
});
