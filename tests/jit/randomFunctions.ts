// tests/jit/randomFunctions.ts: tfjs functions made at random by fast-check: a list of steps, each of which applies an
// operation to tensors that are there. Every list is a valid function: a step that does not fit its operand's shape
// does something simpler.
import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { scan } from '../../lib/jit/jit.js';
import { linear, vector } from '../../lib/ops.js';
import type { Weight } from '../../lib/tensor.js';
import { someWeight } from './traced.js';

/** An operation, the operands it takes (places in the pool, counted round), and a number that chooses its details. */
export interface Step {
  readonly op: string;
  readonly a: number;
  readonly b: number;
  readonly c: number;
}

export interface RandomFunction {
  readonly shape: readonly [number, number];
  readonly steps: readonly Step[];
}

/** `input` is the function's own: what jumps (argMax) looks at it alone, so that rounding cannot tip it over. */
type Make = (x: tf.Tensor, y: tf.Tensor, choice: number, input: tf.Tensor) => tf.Tensor;

/** Keeps numbers small, so that f32 and its rounding stay comparable. */
const tame = (x: tf.Tensor): tf.Tensor => tf.clipByValue(tf.cast(x, 'float32'), -4, 4);

const weights = new Map<string, Weight>();
function weightOf(rows: number, columns: number, seed: number): Weight {
  const key = `${rows},${columns},${seed}`;
  const weight = weights.get(key) ?? someWeight([rows, columns], seed + 1);
  weights.set(key, weight);
  return weight;
}
const biases = new Map<number, Weight>();
function biasOf(size: number): Weight {
  const bias = biases.get(size) ?? someWeight([size], 7);
  biases.set(size, bias);
  return bias;
}

/** All tensors of the pool are float32 matrices; `y` may have another shape than x. */
const makers: Record<string, Make> = {
  add: (x, y) => tf.add(x, like(y, x)),
  sub: (x, y) => tf.sub(x, like(y, x)),
  mul: (x, y) => tf.mul(x, like(y, x)),
  max: (x, y) => tf.maximum(x, like(y, x)),
  divide: (x, y) => tf.div(x, tf.add(tf.abs(like(y, x)), 1)),
  where: (x, y) => tf.where(tf.greater(x, like(y, x)), x, like(y, x)),
  unary: (x, _, c) =>
    [tf.tanh, tf.sigmoid, tf.abs, tf.exp, tf.sin, tf.relu, tf.neg, tf.square, tf.erf][c % 9]!(x),
  scale: (x, _, c) => tf.add(tf.mul(x, (c % 5) / 2), c % 3),
  row: (x) => tf.mul(x, tf.slice(x, [0, 0], [1, -1])),
  column: (x, _, c) => tf.sub(x, [tf.mean, tf.max, tf.sum, tf.min][c % 4]!(x, 1, true)),
  transpose: (x) => tf.transpose(x),
  reshape: (x) => tf.reshape(x, [x.shape[1]!, x.shape[0]!]),
  reverse: (x, _, c) => tf.reverse(x, c % 2),
  half: (x, _, c) =>
    tf.slice(x, [0, c % x.shape[1]!], [-1, Math.max(1, (x.shape[1]! - (c % x.shape[1]!)) >> 1)]),
  concat: (x, y, c) => (c % 2 === 0 ? tf.concat([x, tf.mul(x, like(y, x))], 0) : tf.concat([x, x], 1)),
  tile: (x) => tf.slice(tf.tile(x, [2, 1]), [1, 0], [x.shape[0]!, -1]),
  pad: (x) => tf.slice(tf.pad(x, [[1, 1], [0, 2]], 0.5), [0, 1], [x.shape[0]!, x.shape[1]!]), // biome-ignore format: one axis each
  gather: (x, _, c) => tf.gather(x, tf.tensor1d([c % x.shape[0]!, 0], 'int32')),
  softmax: (x) => tf.softmax(x),
  composedSoftmax: (x) => {
    const e = tf.exp(tf.sub(x, tf.max(x, -1, true)));
    return tf.div(e, tf.sum(e, -1, true));
  },
  layerNorm: (x) => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const normal = tf.mul(centred, tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), 0.1)));
    return tf.add(tf.mul(normal, vector(biasOf(x.shape[1]!))), vector(biasOf(x.shape[1]!)));
  },
  rmsNorm: (x) => tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 0.1))),
  matMul: (x, y) => tf.matMul(x, tf.mul(x, like(y, x)), false, true),
  linear: (x, _, c) =>
    linear(x, weightOf(x.shape[1]!, 16 * ((c % 2) + 1), c % 3), biasOf(16 * ((c % 2) + 1))),
  gated: (x) => {
    const gate = linear(x, weightOf(x.shape[1]!, 16, 1));
    return tf.mul(tf.mul(gate, tf.sigmoid(gate)), linear(x, weightOf(x.shape[1]!, 16, 2)));
  },
  parts: (x) => {
    const [a, b] = tf.split(linear(x, weightOf(x.shape[1]!, 32, 0), biasOf(32)), 2, 1) as [
      tf.Tensor,
      tf.Tensor,
    ];
    return tf.sub(tf.tanh(a), b);
  },
  attention: (x, _, c) => {
    const [q, k, v] = [0, 1, 2].map((seed) => linear(x, weightOf(x.shape[1]!, 16, seed))) as [
      tf.Tensor,
      tf.Tensor,
      tf.Tensor,
    ];
    const scores = tf.mul(tf.matMul(q, k, false, true), 0.25);
    const mask = tf.sub(tf.cast(tf.greaterEqual(tf.range(0, x.shape[0]!), c % x.shape[0]!), 'float32'), 1);
    return tf.matMul(tf.softmax(tf.add(scores, tf.mul(mask, 1e9))), v);
  },
  cumsum: (x, _, c) => tf.cumsum(x, c % 2, c % 3 === 0, c % 5 === 0),
  argMax: (x, _, c, input) =>
    tf.add(x, like(tf.cast(tf.expandDims(tf.argMax(input, c % 2), c % 2), 'float32'), x)),
  topk: (x) => tf.topk(x, 1).values,
  oneHot: (_x, _y, _c, input) => tf.cast(tf.oneHot(tf.argMax(input, 1), input.shape[1]! + 1), 'float32'),
  scan: (x, y, c) =>
    scan((h) => ({ carry: tf.tanh(tf.add(tf.mul(h, 0.5), like(y, x))) }), x, (c % 3) + 1).carry,
};

/** y, cut to a shape that broadcasts to x's. */
function like(y: tf.Tensor, x: tf.Tensor): tf.Tensor {
  const [rows, columns] = x.shape as [number, number];
  if (y.shape[0] === rows && y.shape[1] === columns) return y;
  if (y.shape[1] === columns) return tf.slice(y, [0, 0], [1, -1]);
  if (y.shape[0] === rows) return tf.slice(y, [0, 0], [-1, 1]);
  return tf.slice(y, [0, 0], [1, 1]);
}

const maxElements = 256;

/** The function itself: two inputs of `shape` [rows, columns]; its results are the last two tensors that were made. */
export function runSteps({ steps }: RandomFunction, inputs: readonly tf.Tensor[]): tf.Tensor[] {
  const pool = [...inputs];
  for (const { op, a, b, c } of steps) {
    const made = makers[op]!(pool[a % pool.length]!, pool[b % pool.length]!, c, inputs[0]!);
    if (made.size <= maxElements) pool.push(tame(made));
  }
  return pool.slice(-2);
}

const step: fc.Arbitrary<Step> = fc.record({
  op: fc.constantFrom(...Object.keys(makers)),
  a: fc.nat(20),
  b: fc.nat(20),
  c: fc.nat(30),
});

export const randomFunctions: fc.Arbitrary<RandomFunction> = fc.record({
  shape: fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 9 })),
  steps: fc.array(step, { minLength: 1, maxLength: 10 }),
});
