import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkGraph } from '../../../lib/jit/check.js';
import type { Graph } from '../../../lib/jit/graph.js';
import { scan } from '../../../lib/jit/jit.js';
import { fuseNorm } from '../../../lib/jit/passes/fuseNorm.js';
import { removeDead } from '../../../lib/jit/passes/removeDead.js';
import { selectEarly } from '../../../lib/jit/passes/selectEarly.js';
import { print } from '../../../lib/jit/print.js';
import { linear } from '../../../lib/ops.js';
import { randomFunctions, runSteps } from '../randomFunctions.js';
import { runGraph, someWeight, trace } from '../traced.js';

/** Runs the pass, verifies the graph, and fails unless it computes the very same numbers as before. */
function moved(graph: Graph): Graph {
  const after = removeDead(selectEarly(graph));
  checkGraph(after, 'selectEarly');
  expect(runGraph(after)).toEqual(runGraph(graph));
  return after;
}

type Rows = (...args: never[]) => unknown;
const normed = (fn: Rows, shapes: number[][]): Graph =>
  removeDead(fuseNorm(trace(fn as (...args: tf.Tensor[]) => unknown, shapes)));
const text = (fn: Rows, shapes: number[][]): string => print(moved(normed(fn, shapes)));
const unmoved = (fn: Rows, shapes: number[][]): void =>
  expect(text(fn, shapes)).toBe(print(normed(fn, shapes)));

const [wide, narrow, bias] = [someWeight([8, 16], 1), someWeight([16, 8], 2), someWeight([16], 3)];
const rmsNorm = (x: tf.Tensor): tf.Tensor =>
  tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-6)));
/** x + narrow(tanh(wide(norm(x)))): any rows, each by itself. */
const block = (x: tf.Tensor): tf.Tensor => tf.add(x, linear(tf.tanh(linear(rmsNorm(x), wide, bias)), narrow));
/** The last token of each text, as models take it: rows in one list, indices made from counts. */
const lastRows = (x: tf.Tensor, indices: number[]): tf.Tensor =>
  tf.gather(tf.reshape(x, [-1, x.shape.at(-1)!]), tf.tensor1d(indices, 'int32'));

test('a row is taken before the block that makes it, residual and branch once', () => {
  const fn = (mixed: tf.Tensor, x: tf.Tensor, counts: tf.Tensor): tf.Tensor => {
    const hidden = block(tf.add(x, linear(mixed, narrow))); // [2, 6, 8]
    const last = tf.add(tf.tensor1d([0, 6], 'int32'), tf.cast(counts, 'int32'));
    return tf.gather(tf.reshape(rmsNorm(hidden), [12, 8]), last);
  };
  const shapes = [[2, 6, 16], [2, 6, 8], [2]];
  expect(print(normed(fn, shapes))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,6,16], %1: f32[2,6,8], %2: f32[2])
      %3: f32[2,6,8] = Linear(%0) { w0 f32[16,8] }
      %4: f32[2,6,8] = Add(%1, %3)
      %5: f32[2,6,8] = Norm(%4) { kind: rms, epsilon: 0.000001, scaled: false, biased: false }
      %6: f32[2,6,16] = Linear(%5) { w1 f32[8,16] }
      %7: f32[16] = WeightTensor() { w2 f32[16] }
      %8: f32[2,6,16] = Add(%6, %7)
      %9: f32[2,6,16] = Tanh(%8)
      %10: f32[2,6,8] = Linear(%9) { w0 f32[16,8] }
      %11: f32[2,6,8] = Add(%4, %10)
      %12: i32[2] = Constant() { 0, 6 }
      %13: i32[2] = Cast(%2)
      %14: i32[2] = Add(%12, %13)
      %15: f32[2,6,8] = Norm(%11) { kind: rms, epsilon: 0.000001, scaled: false, biased: false }
      %16: f32[12,8] = Reshape(%15)
      %17: f32[2,8] = Gather(%16, %14) { axis: 0, batchAxes: 0 }
      return %17"
  `);
  expect(text(fn, shapes)).toMatchInlineSnapshot(`
    "graph(%0: f32[2,6,16], %1: f32[2,6,8], %2: f32[2])
      %3: f32[12,16] = Reshape(%0)
      %4: i32[2] = Constant() { 0, 6 }
      %5: i32[2] = Cast(%2)
      %6: i32[2] = Add(%4, %5)
      %7: f32[2,16] = Gather(%3, %6) { axis: 0, batchAxes: 0 }
      %8: f32[2,8] = Linear(%7) { w0 f32[16,8] }
      %9: f32[12,8] = Reshape(%1)
      %10: f32[2,8] = Gather(%9, %6) { axis: 0, batchAxes: 0 }
      %11: f32[2,8] = Add(%10, %8)
      %12: f32[2,8] = Norm(%11) { kind: rms, epsilon: 0.000001, scaled: false, biased: false }
      %13: f32[2,16] = Linear(%12) { w1 f32[8,16] }
      %14: f32[16] = WeightTensor() { w2 f32[16] }
      %15: f32[2,16] = Add(%13, %14)
      %16: f32[2,16] = Tanh(%15)
      %17: f32[2,8] = Linear(%16) { w0 f32[16,8] }
      %18: f32[2,8] = Add(%11, %17)
      %19: f32[2,8] = Norm(%18) { kind: rms, epsilon: 0.000001, scaled: false, biased: false }
      return %19"
  `);
});

test('parts of a product, matrices that are arguments, norms that were not recognised, and softmax are passed', () => {
  const fn = (x: tf.Tensor, matrix: tf.Tensor, row: tf.Tensor): tf.Tensor => {
    const [gate, up] = tf.split(linear(x, wide, bias), 2, -1) as [tf.Tensor, tf.Tensor];
    const inner = tf.mul(tf.softmax(gate), tf.sub(up, tf.max(up, -1, true)));
    return tf.gather(tf.matMul(tf.add(inner, row), matrix), tf.tensor1d([3], 'int32'));
  };
  expect(
    text(fn, [[6, 8], [8, 5], [1, 8]]), // biome-ignore format: shapes
  ).toMatchInlineSnapshot(`
    "graph(%0: f32[6,8], %1: f32[8,5], %2: f32[1,8])
      %3: i32[1] = Constant() { 3 }
      %4: f32[1,8] = Gather(%0, %3) { axis: 0, batchAxes: 0 }
      %5: f32[1,16] = Linear(%4) { w0 f32[8,16] }
      %6: f32[16] = WeightTensor() { w1 f32[16] }
      %7: f32[1,16] = Add(%5, %6)
      %8: f32[1,8] = Slice(%7) { begin: [0,0], strides: [1,1] }
      %9: f32[1,8] = Slice(%7) { begin: [0,8], strides: [1,1] }
      %10: f32[1,8] = Softmax(%8) { log: false, scale: 1 }
      %11: f32[1] = Reduce(%9) { kind: Max, first: 1, last: 1 }
      %12: f32[1,1] = Reshape(%11)
      %13: f32[1,8] = Sub(%9, %12)
      %14: f32[1,8] = Mul(%10, %13)
      %15: f32[8] = Reshape(%2)
      %16: f32[1,8] = Add(%14, %15)
      %17: f32[1,5] = BatchMatMul(%16, %1)
      return %17"
  `);
});

test('heads that a row is split into stay with their row', () => {
  const fn = (x: tf.Tensor): tf.Tensor => {
    const heads = tf.transpose(tf.reshape(linear(x, wide), [2, 4, 2, 8]), [0, 1, 3, 2]);
    return lastRows(tf.reshape(tf.sum(heads, 3), [8, 8]), [3, 7]);
  };
  expect(text(fn, [[2, 4, 8]])).toMatchInlineSnapshot(`
    "graph(%0: f32[2,4,8])
      %1: f32[8,8] = Reshape(%0)
      %2: i32[2] = Constant() { 3, 7 }
      %3: f32[2,8] = Gather(%1, %2) { axis: 0, batchAxes: 0 }
      %4: f32[2,16] = Linear(%3) { w0 f32[8,16] }
      %5: f32[2,2,8] = Reshape(%4)
      %6: f32[2,8,2] = Transpose(%5) { perm: [0,2,1] }
      %7: f32[2,8] = Reduce(%6) { kind: Sum, first: 2, last: 2 }
      return %7"
  `);
});

test.each([
  ['a slice of one axis', (x: tf.Tensor) => tf.slice(x, [0, 5, 0], [-1, 1, -1])],
  ['one text of several', (x: tf.Tensor) => tf.slice(x, [1, 2, 0], [1, 2, -1])],
  ['a gather of one axis', (x: tf.Tensor) => tf.gather(x, tf.tensor1d([5], 'int32'), 1)],
  ['one index, no axis left', (x: tf.Tensor) => tf.gather(x, tf.scalar(4, 'int32'), 1)],
  ['indices of each text', (x: tf.Tensor) => tf.gather(x, tf.tensor2d([[5], [2]], [2, 1], 'int32'), 1, 1)],
  ['pairs of indices', (x: tf.Tensor) => tf.gatherND(x, tf.tensor2d([[0, 5], [1, 2]], [2, 2], 'int32'))], // biome-ignore format: one pair a row
  ['an index outside', (x: tf.Tensor) => lastRows(x, [3, 12])],
] as const)('%s', (_, select) => {
  const fn = (x: tf.Tensor): tf.Tensor => select(block(x));
  const lines = text(fn, [[2, 6, 8]]).split('\n');
  expect(lines.findIndex((line) => / = (Gather|Slice)/.test(line))).toBeLessThan(
    lines.findIndex((line) => line.includes(' = Norm')),
  );
});

test('two that take the same rows take them together', () => {
  const fn = (x: tf.Tensor): tf.Tensor[] => {
    const first = block(x);
    return [lastRows(first, [3]), lastRows(block(first), [3])];
  };
  expect(text(fn, [[6, 8]]).match(/ = Gather/g)).toHaveLength(1);
});

test('in the body of a loop, by an index of the round', () => {
  const fn = (x: tf.Tensor): tf.Tensor =>
    scan((carry: tf.Tensor) => {
      const index = tf.cast(tf.slice(carry, [0, 0], [1, 1]), 'int32');
      const row = tf.gather(block(tf.mul(x, carry)), tf.reshape(index, [1]));
      return { carry: tf.tanh(row) };
    }, tf.ones([1, 8]), 3).carry; // biome-ignore format: the step is what matters
  expect(text(fn, [[6, 8]])).toMatch(/Gather.*Linear/s);
});

test.each([
  ['rows that are read whole as well', (x: tf.Tensor) => [block(x), lastRows(block(x), [3])]],
  ['rows taken in two ways', (x: tf.Tensor) => [lastRows(block(x), [3]), lastRows(block(x), [2])]],
  ['as many rows as there are', (x: tf.Tensor) => lastRows(block(x), [5, 4, 3, 2, 1, 0])],
  ['no product', (x: tf.Tensor) => lastRows(tf.tanh(rmsNorm(tf.add(x, 1))), [3])],
  ['columns', (x: tf.Tensor) => tf.slice(linear(x, wide), [0, 3], [-1, 2])],
  ['rows that were mixed', (x: tf.Tensor) => lastRows(tf.cumsum(linear(x, wide), 0), [3])],
  ['rows that change places', (x: tf.Tensor) => lastRows(tf.transpose(linear(x, wide)), [3])],
  ['numbers made of NaN', (x: tf.Tensor) => lastRows(tf.sign(linear(x, wide)), [9])],
  ['an index that the rows decide', (x: tf.Tensor) => {
    const y = linear(x, wide);
    return tf.gather(y, tf.reshape(tf.argMax(tf.max(y, 1)), [1]));
  }], // biome-ignore format: as the others
] as const)('%s: nothing moves', (_, fn) => unmoved(fn, [[6, 8]]));

test('more to take than products pay for: nothing moves', () => {
  const fn = (x: tf.Tensor, ...more: tf.Tensor[]): tf.Tensor =>
    lastRows(
      more.reduce((sum, each) => tf.mul(sum, each), linear(x, wide)),
      [3],
    );
  unmoved(fn, [
    [6, 8],
    [6, 16],
    [6, 16],
  ]);
});

test('rows of 400 random graphs are the same numbers', () => {
  let moves = 0;
  fc.assert(
    fc.property(randomFunctions, fc.nat(40), (random, choice) => {
      const shape = [random.shape[0] + 4, random.shape[1]];
      const fn = (...args: tf.Tensor[]): tf.Tensor[] =>
        runSteps(random, args).map((x) => {
          const row = choice % x.shape[0]!;
          return choice % 3 === 0 ? tf.slice(x, [row, 0], [1, -1]) : lastRows(x, [row]);
        });
      const graph = normed(fn, [shape, shape]);
      if (print(moved(graph)) !== print(graph)) moves++;
    }),
    { numRuns: 400, seed: 11 },
  );
  expect(moves).toBeGreaterThan(40);
});
