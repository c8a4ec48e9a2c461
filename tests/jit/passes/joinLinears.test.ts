import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { fuseEpilogue } from '../../../lib/jit/passes/fuseEpilogue.js';
import { joinLinears } from '../../../lib/jit/passes/joinLinears.js';
import { print } from '../../../lib/jit/print.js';
import { linear } from '../../../lib/ops.js';
import { passed, someWeight, traceKernels } from '../traced.js';

test('Q, K and V of the same x become one Linear with three outputs', () => {
  const [q, k, v, bias] = [
    someWeight([8, 16]),
    someWeight([8, 4], 2),
    someWeight([8, 4], 3),
    someWeight([16], 4),
  ];
  const graph = traceKernels((x) => [linear(x!, q, bias), linear(x!, k), tf.neg(linear(x!, v))], [[2, 8]]);
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8])
      %1: f32[2,16] = Linear(%0) { w0 f32[8,16] }
      %2: f32[16] = WeightTensor() { w1 f32[16] }
      %3: f32[2,16] = Elementwise(%1, %2) { Add(in0, in1) }
      %4: f32[2,4] = Linear(%0) { w2 f32[8,4] }
      %5: f32[2,4] = Linear(%0) { w3 f32[8,4] }
      %6: f32[2,4] = Elementwise(%5) { Neg(in0) }
      return %3, %4, %6"
  `);
  expect(print(passed(graph, (g) => joinLinears(fuseEpilogue(g))))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8])
      %1: f32[16] = WeightTensor() { w1 f32[16] }
      %2: f32[2,16], %3: f32[2,4], %4: f32[2,4] = Linear(%0, %1) { w0 f32[8,16], w2 f32[8,4], w3 f32[8,4], epilogue: Add(product 0, %1), epilogue: Neg(product 2) }
      return %2, %3, %4"
  `);
});

test('products that depend on each other, or read another x, stay apart', () => {
  const w = someWeight([8, 8]);
  const chain = traceKernels((x) => tf.add(linear(linear(x!, w), w), linear(x!, w)), [[2, 8]]);
  const text = print(passed(chain, (g) => joinLinears(fuseEpilogue(g))));
  expect(text.match(/ = Linear/g)).toHaveLength(2);
});
