// The small passes: removeDead, mergeEqual, hoistInvariant, foldConstants, bindConstants.
import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { scan } from '../../../lib/jit/jit.js';
import { bindConstants } from '../../../lib/jit/passes/bindConstants.js';
import { foldConstants } from '../../../lib/jit/passes/foldConstants.js';
import { hoistInvariant } from '../../../lib/jit/passes/hoistInvariant.js';
import { mergeEqual } from '../../../lib/jit/passes/mergeEqual.js';
import { removeDead } from '../../../lib/jit/passes/removeDead.js';
import { print } from '../../../lib/jit/print.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { passed } from '../traced.js';

const raw = (fn: (...args: tf.Tensor[]) => unknown, shapes: number[][]) =>
  traceFunction(
    fn,
    shapes.map((shape) => tf.zeros(shape)),
  ).graph;

test('what nothing reads is removed, also what only a scan captures in vain', () => {
  const graph = raw(
    (x, y) => {
      tf.exp(x!);
      return scan(
        (c) => {
          tf.mul(c, y!);
          return { carry: tf.neg(c) };
        },
        x!,
        2,
      ).carry;
    },
    [[2], [2]],
  );
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2], %1: f32[2])
      %2: f32[2] = Exp(%0)
      %3: f32[2], %4: i32[] = Scan(%0, %1) { length: 2, carry: 1 }
        body(%5: f32[2], %6: f32[2])
          %7: f32[2] = Mul(%5, %6)
          %8: f32[2] = Neg(%5)
          return %8
      return %3"
  `);
  expect(print(passed(graph, removeDead))).toMatchInlineSnapshot(`
    "graph(%0: f32[2], %1: f32[2])
      %2: f32[2], %3: i32[] = Scan(%0) { length: 2, carry: 1 }
        body(%4: f32[2])
          %5: f32[2] = Neg(%4)
          return %5
      return %2"
  `);
});

test('what is computed twice is merged', () => {
  const graph = raw((x) => tf.add(tf.exp(tf.mul(x!, 2)), tf.exp(tf.mul(x!, 2))), [[2]]);
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2])
      %1: f32[] = Constant() { 2 }
      %2: f32[2] = Mul(%0, %1)
      %3: f32[2] = Exp(%2)
      %4: f32[] = Constant() { 2 }
      %5: f32[2] = Mul(%0, %4)
      %6: f32[2] = Exp(%5)
      %7: f32[2] = Add(%3, %6)
      return %7"
  `);
  expect(print(passed(graph, mergeEqual))).toMatchInlineSnapshot(`
    "graph(%0: f32[2])
      %1: f32[] = Constant() { 2 }
      %2: f32[2] = Mul(%0, %1)
      %3: f32[2] = Exp(%2)
      %4: f32[2] = Add(%3, %3)
      return %4"
  `);
});

test('operations on small constants are done now', () => {
  const graph = raw((x) => tf.add(x!, tf.reshape(tf.mul(tf.range(0, 4), 2), [2, 2])), [[2, 2]]);
  expect(print(passed(graph, foldConstants))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,2])
      %1: f32[2,2] = Constant() { 0, 2, 4, 6 }
      %2: f32[2,2] = Add(%0, %1)
      return %2"
  `);
});

test('a constant matrix becomes a Weight', () => {
  const matrix = tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2]);
  const graph = raw((x) => [tf.matMul(x!, matrix), tf.matMul(x!, matrix, false, false)], [[2, 3]]);
  expect(print(passed(graph, bindConstants))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,3])
      %1: f32[2,2] = Linear(%0) { w0 f32[3,2] }
      %2: f32[2,2] = Linear(%0) { w0 f32[3,2] }
      return %1, %2"
  `);
});

test('what no round of a loop changes is computed before it', () => {
  const graph = raw(
    (x, w) =>
      scan((h) => ({ carry: tf.tanh(tf.add(h, tf.matMul(tf.mul(x!, 2), w!))) }), tf.zeros([1, 2]), 4).carry,
    [
      [1, 3],
      [3, 2],
    ],
  );
  expect(print(passed(graph, hoistInvariant))).toMatchInlineSnapshot(`
    "graph(%0: f32[1,3], %1: f32[3,2])
      %2: f32[] = Constant() { 0 }
      %3: f32[1,2] = Broadcast(%2)
      %4: f32[] = Constant() { 2 }
      %5: f32[1,3] = Mul(%0, %4)
      %6: f32[1,2] = BatchMatMul(%5, %1)
      %7: f32[1,2], %8: i32[] = Scan(%3, %6) { length: 4, carry: 1 }
        body(%9: f32[1,2], %10: f32[1,2])
          %11: f32[1,2] = Add(%9, %10)
          %12: f32[1,2] = Tanh(%11)
          return %12
      return %7"
  `);
});

test('out of a loop in a loop, as far as each part can go', () => {
  const graph = raw(
    (x) =>
      scan(
        (a) => {
          const inner = scan((b) => ({ carry: tf.add(b, tf.add(tf.exp(x!), tf.sin(a))) }), a, 3);
          return { carry: inner.carry };
        },
        tf.zeros([2]),
        2,
      ).carry,
    [[2]],
  );
  expect(print(passed(graph, hoistInvariant))).toMatchInlineSnapshot(`
    "graph(%0: f32[2])
      %1: f32[] = Constant() { 0 }
      %2: f32[2] = Broadcast(%1)
      %3: f32[2] = Exp(%0)
      %4: f32[2], %5: i32[] = Scan(%2, %3) { length: 2, carry: 1 }
        body(%6: f32[2], %7: f32[2])
          %8: f32[2] = Sin(%6)
          %9: f32[2] = Add(%7, %8)
          %10: f32[2], %11: i32[] = Scan(%6, %9) { length: 3, carry: 1 }
            body(%12: f32[2], %13: f32[2])
              %14: f32[2] = Add(%12, %13)
              return %14
          return %10
      return %4"
  `);
});
