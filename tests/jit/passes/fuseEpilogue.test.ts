import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { fuseEpilogue } from '../../../lib/jit/passes/fuseEpilogue.js';
import { print } from '../../../lib/jit/print.js';
import { linear, vector } from '../../../lib/ops.js';
import { passed, someWeight, traceKernels } from '../traced.js';

const up = someWeight([8, 16]);
const gate = someWeight([8, 16], 2);
const down = someWeight([16, 8], 3);
const bias = someWeight([16], 4);

test('bias and activation move into the product', () => {
  const graph = traceKernels((x) => tf.relu(tf.add(linear(x!, up), vector(bias))), [[1, 8]]);
  expect(print(graph)).toMatchInlineSnapshot(`
    "graph(%0: f32[1,8])
      %1: f32[1,16] = Linear(%0) { w0 f32[8,16] }
      %2: f32[16] = WeightTensor() { w1 f32[16] }
      %3: f32[1,16] = Elementwise(%1, %2) { Max(Add(in0, in1), 0) }
      return %3"
  `);
  expect(print(passed(graph, fuseEpilogue))).toMatchInlineSnapshot(`
    "graph(%0: f32[1,8])
      %1: f32[16] = WeightTensor() { w1 f32[16] }
      %2: f32[1,16] = Linear(%0, %1) { w0 f32[8,16], epilogue: Max(Add(product 0, %1), 0) }
      return %2"
  `);
});

test('two products meet in one: silu(gate) * up, then the residual', () => {
  const graph = traceKernels(
    (x) => {
      const gated = linear(x!, gate);
      return tf.add(x!, linear(tf.mul(tf.mul(gated, tf.sigmoid(gated)), linear(x!, up)), down));
    },
    [[2, 8]],
  );
  expect(print(passed(graph, fuseEpilogue))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,8])
      %1: f32[2,16] = Linear(%0) { w1 f32[8,16], w0 f32[8,16], epilogue: Mul(Mul(product 1, Sigmoid(product 1)), product 0) }
      %2: f32[2,8] = Linear(%1, %0) { w2 f32[16,8], epilogue: Add(%0, product 0) }
      return %2"
  `);
});

test('parts of one kernel become outputs of their own', () => {
  const qkv = someWeight([8, 48]);
  const offset = someWeight([48], 2);
  const graph = traceKernels(
    (x) => tf.split(linear(x!, qkv, offset), 3, -1).map((part) => tf.reshape(part, [1, 2, 1, 8])),
    [[1, 1, 8]],
  );
  expect(print(passed(graph, fuseEpilogue))).toMatchInlineSnapshot(`
    "graph(%0: f32[1,1,8])
      %1: f32[48] = WeightTensor() { w1 f32[48] }
      %2: f32[1,1,16], %3: f32[1,1,16], %4: f32[1,1,16] = Linear(%0, %1) { w0 f32[8,48][0:16], w0 f32[8,48][16:32], w0 f32[8,48][32:48], epilogue: Add(product 0, %1[0; 48,48,1]), epilogue: Add(product 1, %1[16; 48,48,1]), epilogue: Add(product 2, %1[32; 48,48,1]) }
      %5: f32[1,2,1,8] = Reshape(%2)
      %6: f32[1,2,1,8] = Reshape(%3)
      %7: f32[1,2,1,8] = Reshape(%4)
      return %5, %6, %7"
  `);
});

test('a product of tensors takes an epilogue as well', () => {
  const graph = traceKernels((x, w, b) => tf.tanh(tf.add(tf.matMul(x!, w!), b!)), [[2, 3], [3, 4], [4]]);
  expect(print(passed(graph, fuseEpilogue))).toMatchInlineSnapshot(`
    "graph(%0: f32[2,3], %1: f32[3,4], %2: f32[4])
      %3: f32[2,4] = BatchMatMul(%0, %1, %2) { epilogue: Tanh(Add(product 0, %2)) }
      return %3"
  `);
});

test('a product that something else reads stays', () => {
  const graph = traceKernels(
    (x) => {
      const product = linear(x!, up);
      return [tf.relu(product), tf.sum(product)];
    },
    [[2, 8]],
  );
  expect(print(passed(graph, fuseEpilogue))).not.toContain('epilogue');
});

test('a transposed reading cannot be an epilogue', () => {
  const graph = traceKernels((x) => tf.exp(tf.transpose(linear(x!, up))), [[2, 8]]);
  expect(print(passed(graph, fuseEpilogue))).not.toContain('epilogue');
});
