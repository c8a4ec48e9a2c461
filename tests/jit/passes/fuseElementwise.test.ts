import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { scan } from '../../../lib/jit/jit.js';
import { fuseElementwise } from '../../../lib/jit/passes/fuseElementwise.js';
import { print } from '../../../lib/jit/print.js';
import { passed, trace } from '../traced.js';

const fuse = (fn: (...args: tf.Tensor[]) => unknown, shapes: readonly (readonly number[])[]): string =>
  print(passed(trace(fn, shapes), fuseElementwise));

test('a chain becomes one program; what it reads twice is computed once', () => {
  const gelu = (x: tf.Tensor) => {
    const inner = tf.mul(tf.add(x, tf.mul(tf.mul(tf.mul(x, x), x), 0.044715)), 0.7978846);
    return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1));
  };
  const graph = trace((x, b) => gelu(tf.add(x!, b!)), [[2, 8], [8]]);
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8], %1: f32[8])
      %2: f32[2,8] = Add(%0, %1)
      %3: f32[2,8] = Mul(%2, %2)
      %4: f32[2,8] = Mul(%3, %2)
      %5: f32[] = Constant() { 0.044715 }
      %6: f32[2,8] = Mul(%4, %5)
      %7: f32[2,8] = Add(%2, %6)
      %8: f32[] = Constant() { 0.7978846 }
      %9: f32[2,8] = Mul(%7, %8)
      %10: f32[] = Constant() { 0.5 }
      %11: f32[2,8] = Mul(%2, %10)
      %12: f32[2,8] = Tanh(%9)
      %13: f32[] = Constant() { 1 }
      %14: f32[2,8] = Add(%12, %13)
      %15: f32[2,8] = Mul(%11, %14)
      return %15"
  `);
  expect(print(passed(graph, fuseElementwise))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8], %1: f32[8])
      %2: f32[2,8] = Elementwise(%0, %1) { t0 = Add(in0, in1); Mul(Mul(t0, 0.5), Add(Tanh(Mul(Add(t0, Mul(Mul(Mul(t0, t0), t0), 0.044715)), 0.7978846)), 1)) }
      return %2"
  `);
});

test('transposes, slices, reversals and broadcasts become ways of reading', () => {
  expect(
    fuse(
      (x, y) => tf.add(tf.transpose(tf.reverse(tf.slice(x!, [0, 1], [3, 2]), 0)), tf.reshape(y!, [2, 1])),
      [[3, 4], [2]],
    ),
  ).toMatchInlineSnapshot(`
    "graph(%0: f32[3,4], %1: f32[2])
      %2: f32[2,3] = Elementwise(%0[9; 1,-4], %1[0; 1,0]) { Add(in0, in1) }
      return %2"
  `);
});

test('a reshape that no strides can say is read from memory', () => {
  expect(fuse((x) => tf.exp(tf.reshape(tf.transpose(x!), [6])), [[2, 3]])).toMatchInlineSnapshot(`
    "graph(%0: f32[2,3])
      %1: f32[3,2] = Elementwise(%0[0; 1,3]) { in0 }
      %2: f32[6] = Elementwise(%1[0; 1]) { Exp(in0) }
      return %2"
  `);
});

test('what several kernels read is written once; what costs nothing is read again', () => {
  expect(
    fuse(
      (x, w) => {
        const e = tf.exp(x!);
        return [tf.matMul(e, w!), tf.sum(e), tf.transpose(e)];
      },
      [
        [2, 2],
        [2, 2],
      ],
    ),
  ).toMatchInlineSnapshot(`
    "graph(%0: f32[2,2], %1: f32[2,2])
      %2: f32[2,2] = Elementwise(%0) { Exp(in0) }
      %3: f32[2,2] = BatchMatMul(%2, %1)
      %4: f32[] = Reduce(%2) { kind: Sum, first: 0, last: 1 }
      %5: f32[2,2] = Elementwise(%2[0; 1,2]) { in0 }
      return %3, %4, %5"
  `);
});

test('a costly column is not computed again for each copy', () => {
  expect(
    fuse(
      (x, y) => tf.mul(tf.tanh(x!), y!),
      [
        [4, 1],
        [4, 100],
      ],
    ),
  ).toMatchInlineSnapshot(`
    "graph(%0: f32[4,1], %1: f32[4,100])
      %2: f32[4,1] = Elementwise(%0) { Tanh(in0) }
      %3: f32[4,100] = Elementwise(%2, %1) { Mul(in0, in1) }
      return %3"
  `);
});

test('inside the body of a scan', () => {
  expect(
    fuse((x) => scan((c) => ({ carry: tf.mul(tf.neg(c), 2) }), x!, 3).carry, [[4]]),
  ).toMatchInlineSnapshot(`
    "graph(%0: f32[4])
      %1: f32[4], %2: i32[] = Scan(%0) { length: 3, carry: 1 }
        body(%3: f32[4])
          %4: f32[4] = Elementwise(%3) { Mul(Neg(in0), 2) }
          return %4
      return %1"
  `);
});
