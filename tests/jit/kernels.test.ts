// Every tfjs operation that the compiler can lower, against eager tfjs.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { jit } from '../../lib/jit/jit.js';
import { agrees, defaultTarget, flags, integers, numbers } from './agree.js';

type Unary = (x: tf.Tensor) => unknown;
type Binary = (a: tf.Tensor, b: tf.Tensor) => unknown;
const third = (x: tf.Tensor) => tf.div(x, 3);
const positive = (x: tf.Tensor) => tf.add(tf.abs(x), 0.5);

const unary: Record<string, Unary> = {
  abs: tf.abs,
  acos: (x) => tf.acos(third(x)),
  acosh: (x) => tf.acosh(tf.add(tf.abs(x), 1)),
  asin: (x) => tf.asin(third(x)),
  asinh: tf.asinh,
  atan: tf.atan,
  atanh: (x) => tf.atanh(third(x)),
  'cast to bool': (x) => tf.cast(tf.step(x), 'bool'),
  'cast to int32': (x) => tf.cast(x, 'int32'),
  ceil: tf.ceil,
  clipByValue: (x) => tf.clipByValue(x, -0.5, 1),
  cos: tf.cos,
  cosh: tf.cosh,
  elu: tf.elu,
  erf: (x) => tf.erf(tf.mul(x, 2)),
  exp: tf.exp,
  expm1: tf.expm1,
  floor: tf.floor,
  isFinite: (x) => tf.isFinite(tf.div(x, tf.relu(x))),
  isInf: (x) => tf.isInf(tf.div(x, tf.relu(x))),
  isNaN: (x) => tf.isNaN(tf.sqrt(x)),
  leakyRelu: (x) => tf.leakyRelu(x, 0.3),
  log: (x) => tf.log(positive(x)),
  log1p: (x) => tf.log1p(positive(x)),
  logSigmoid: tf.logSigmoid,
  neg: tf.neg,
  onesLike: tf.onesLike,
  reciprocal: tf.reciprocal,
  relu: tf.relu,
  relu6: (x) => tf.relu6(tf.mul(x, 9)),
  round: (x) => tf.round(tf.mul(x, 4)),
  'round halves': (x) => tf.round(tf.add(tf.floor(tf.mul(x, 2)), 0.5)),
  rsqrt: (x) => tf.rsqrt(positive(x)),
  selu: tf.selu,
  sigmoid: tf.sigmoid,
  sign: tf.sign,
  sin: tf.sin,
  sinh: tf.sinh,
  softplus: (x) => tf.softplus(tf.mul(x, 30)),
  sqrt: (x) => tf.sqrt(positive(x)),
  square: tf.square,
  step: (x) => tf.step(x, 0.25),
  tan: tf.tan,
  tanh: tf.tanh,
  zerosLike: tf.zerosLike,
};

const binary: Record<string, Binary> = {
  add: tf.add,
  atan2: tf.atan2,
  divNoNan: (a, b) => tf.divNoNan(a, tf.floor(b)),
  div: tf.div,
  equal: tf.equal,
  floorDiv: tf.floorDiv,
  greater: tf.greater,
  greaterEqual: tf.greaterEqual,
  less: tf.less,
  lessEqual: tf.lessEqual,
  maximum: tf.maximum,
  minimum: tf.minimum,
  mod: tf.mod,
  mul: tf.mul,
  notEqual: tf.notEqual,
  pow: (a, b) => tf.pow(tf.abs(a), b),
  squaredDifference: tf.squaredDifference,
  sub: tf.sub,
};

const shapes: Record<string, Unary> = {
  broadcastTo: (x) => tf.broadcastTo(tf.slice(x, [0, 0, 0], [2, 1, 4]), [2, 3, 4]),
  concat: (x) => tf.concat([x, tf.neg(x), tf.slice(x, [0, 0, 0], [-1, 1, -1])], 1),
  expandDims: (x) => tf.expandDims(x, -1),
  gather: (x) => tf.gather(x, tf.tensor1d([2, 0, 2], 'int32'), 1),
  gatherND: (x) => tf.gatherND(x, tf.tensor2d([1, 2, 0, 1], [2, 2], 'int32')),
  'gather by batch': (x) => tf.gather(x, tf.tensor2d([1, 0, 2, 2], [2, 2], 'int32'), 1, 1),
  mirrorPad: (x) => [
    tf.mirrorPad(x, [[1, 1], [2, 1], [0, 3]], 'reflect'), // biome-ignore format: one axis each
    tf.mirrorPad(x, [[2, 1], [0, 3], [1, 0]], 'symmetric'), // biome-ignore format: one axis each
  ],
  oneHot: (x) => tf.oneHot(tf.cast(tf.mul(x, 2), 'int32'), 3, 5, -1),
  pad: (x) => tf.pad(x, [[0, 1], [2, 0], [1, 1]], 7), // biome-ignore format: one axis each
  reshape: (x) => tf.reshape(tf.transpose(x, [2, 0, 1]), [6, -1]),
  reverse: (x) => tf.reverse(x, [0, 2]),
  slice: (x) => tf.slice(x, [1, 0, 2], [1, 2, 2]),
  split: (x) => tf.split(x, [1, 2], 1),
  squeeze: (x) => tf.squeeze(tf.slice(x, [0, 1, 0], [-1, 1, -1])),
  stack: (x) => tf.stack([x, tf.square(x)], -1),
  stridedSlice: (x) => tf.stridedSlice(x, [0, 2, 3], [2, 0, 0], [1, -1, -2]),
  tensorScatterUpdate: (x) =>
    tf.tensorScatterUpdate(x, tf.tensor2d([1, 0, 0, 2], [2, 2], 'int32'), tf.ones([2, 4])),
  tile: (x) => tf.tile(x, [1, 2, 3]),
  transpose: (x) => tf.transpose(x),
  unstack: (x) => tf.unstack(x, 1),
  where: (x) => tf.where(tf.greater(x, 0), x, tf.scalar(-1)),
  'depth to space': (x) => tf.depthToSpace(tf.reshape(x, [1, 2, 3, 4]) as tf.Tensor4D, 2),
  'space to batch': (x) => tf.spaceToBatchND(tf.reshape(x, [1, 3, 4, 2]), [3, 2], [[0, 0], [1, 1]]), // biome-ignore format: one axis each
  'batch to space': (x) => tf.batchToSpaceND(tf.reshape(x, [4, 3, 1, 2]), [2, 2], [[1, 0], [0, 1]]), // biome-ignore format: one axis each
};

const reductions: Record<string, Unary> = {
  all: (x) => tf.all(tf.greater(x, -1.9), 1),
  any: (x) => tf.any(tf.greater(x, 1.9), [0, 2]),
  argMax: (x) => [tf.argMax(x, 1), tf.argMax(x, -1)],
  argMin: (x) => tf.argMin(x, 0),
  cumprod: (x) => tf.cumprod(x, 1, true, true),
  cumsum: (x) => [tf.cumsum(x, 2), tf.cumsum(x, 0, true), tf.cumsum(x, 1, false, true)],
  logSoftmax: (x) => tf.logSoftmax(x),
  logSumExp: (x) => tf.logSumExp(x, [0, 2]),
  max: (x) => tf.max(x, [0, 2], true),
  mean: (x) => [tf.mean(x), tf.mean(x, 1), tf.mean(x, [0, 1], true)],
  min: (x) => tf.min(x, -1),
  moments: (x) => tf.moments(x, [1, 2]),
  norm: (x) => tf.norm(x, 2, 1),
  prod: (x) => tf.prod(x, [1, 2]),
  softmax: (x) => tf.softmax(x),
  sum: (x) => [tf.sum(x), tf.sum(x, [0, 2]), tf.sum(tf.greater(x, 0), 1)],
  topk: (x) => tf.topk(x, 3),
};

const products: Record<string, [Binary, number[], number[]]> = {
  dot: [(a, b) => tf.dot(a, b), [4], [4]],
  einsum: [(a, b) => tf.einsum('bij,bjk->bik', a, b), [2, 3, 4], [2, 4, 5]],
  'einsum of heads': [(a, b) => tf.einsum('bqhd,bkhd->bhqk', a, b), [2, 3, 2, 4], [2, 5, 2, 4]],
  'fused matMul': [
    (a, b) =>
      tf.fused.matMul({ a: a as tf.Tensor2D, b: b as tf.Tensor2D, bias: tf.range(0, 5), activation: 'relu' }),
    [3, 4],
    [4, 5],
  ],
  matMul: [(a, b) => tf.matMul(a, b), [3, 4], [4, 5]],
  'matMul, batched': [(a, b) => tf.matMul(a, b), [2, 3, 4], [1, 4, 2]],
  'matMul, both transposed': [(a, b) => tf.matMul(a, b, true, true), [4, 3], [5, 4]],
  outerProduct: [(a, b) => tf.outerProduct(a as tf.Tensor1D, b as tf.Tensor1D), [3], [4]],
};

describe('element by element', () => {
  test.each(Object.entries(unary))('%s', async (_, fn) => {
    await agrees(fn, [numbers([3, 5])]);
  });
  test.each(Object.entries(binary))('%s', async (_, fn) => {
    await agrees(fn, [numbers([2, 3, 4]), numbers([3, 1], 2)]);
    await agrees(fn, [integers([2, 3]), tf.add(tf.abs(integers([3])), 1)]);
  });
  test('logical operations and bits', async () => {
    const logic = (a: tf.Tensor, b: tf.Tensor) => [
      tf.logicalAnd(a, b),
      tf.logicalOr(a, b),
      tf.logicalXor(a, b),
      tf.logicalNot(a),
    ];
    await agrees(logic, [flags([2, 3]), flags([3])]);
    await agrees(
      (a: tf.Tensor, b: tf.Tensor) => tf.bitwiseAnd(a, b),
      [integers([6], 100), integers([6], 50)],
    );
  });
  test('prelu, batchNorm, addN, scalars', async () => {
    await agrees((x: tf.Tensor, a: tf.Tensor) => tf.prelu(x, a), [numbers([2, 3]), numbers([3], 2)]);
    await agrees(
      (x: tf.Tensor) =>
        tf.batchNorm(x as tf.Tensor2D, tf.range(0, 3), tf.range(1, 4), tf.range(0, 3), tf.range(2, 5)),
      [numbers([4, 3])],
    );
    await agrees((x: tf.Tensor) => tf.addN([x, x, tf.square(x)]), [numbers([2])]);
    await agrees((x: tf.Tensor) => tf.add(tf.mul(x, 2), tf.scalar(3)), [tf.scalar(4)]);
  });
  test('integers stay integers', async () => {
    const fn = (x: tf.Tensor) => [
      tf.neg(x),
      tf.abs(x),
      tf.square(x),
      tf.relu(x),
      tf.exp(x),
      tf.sum(x),
      tf.max(x),
    ];
    await agrees(fn, [integers([2, 3])]);
    await agrees((x: tf.Tensor) => tf.matMul(x, x, false, true), [integers([2, 3])]);
    await agrees((x: tf.Tensor) => [tf.argMax(x), tf.topk(x, 2), tf.cumsum(x)], [integers([7])]);
  });
});

describe('shapes', () => {
  test.each(Object.entries(shapes))('%s', async (_, fn) => {
    await agrees(fn, [numbers([2, 3, 4])]);
  });
  test('constants', async () => {
    await agrees(
      (x: tf.Tensor) => [
        tf.range(0, 5, 2, 'int32'),
        tf.linspace(0, 1, 5),
        tf.fill([2, 2], 3, 'int32'),
        tf.eye(3),
        tf.zeros([2], 'bool'),
        tf.diag(x),
        tf.tensor2d([1, 2, 3, 4], [2, 2]),
      ],
      [numbers([3])],
    );
  });
  test('scatter', async () => {
    const indices = tf.tensor2d([1, 3, 1], [3, 1], 'int32');
    await agrees((x: tf.Tensor) => tf.scatterND(indices, x, [5, 2]), [numbers([3, 2])]);
    await agrees(
      (x: tf.Tensor) => tf.unsortedSegmentSum(x, tf.tensor1d([1, 0, 1], 'int32'), 2),
      [numbers([3, 2])],
    );
    await agrees((x: tf.Tensor) => tf.searchSorted(tf.tensor1d([-1, 0, 1]), x), [numbers([4])]);
  });
});

describe('along axes', () => {
  test.each(Object.entries(reductions))('%s', async (_, fn) => {
    await agrees(fn, [numbers([2, 3, 4])]);
  });
});

describe('products', () => {
  test.each(Object.entries(products))('%s', async (_, [fn, a, b]) => {
    await agrees(fn, [numbers(a), numbers(b, 2)]);
  });
});

describe('odd sizes', () => {
  test('no elements at all', async () => {
    const empty = tf.zeros([0, 3]);
    await agrees((x: tf.Tensor) => [tf.add(x, 1), tf.transpose(x), tf.concat([x, x], 0)], [empty]);
    await agrees((x: tf.Tensor) => [tf.sum(x), tf.sum(x, 0), tf.matMul(x, tf.ones([3, 2]))], [empty]);
  });
  test('scalars', async () => {
    await agrees((x: tf.Tensor) => [tf.exp(x), tf.reshape(x, [1, 1]), tf.sum(x)], [tf.scalar(2)]);
  });
});

test('an operation without a lowering is named, with the line that called it', async () => {
  const convolve = jit((x: tf.Tensor) => tf.conv2d(x as tf.Tensor4D, tf.ones([1, 1, 1, 1]), 1, 'same'), {
    target: defaultTarget,
  });
  await expect(convolve(tf.ones([1, 2, 2, 1]))).rejects.toThrow(
    /conv2d.*Conv2D.*kernels\.test\.ts:\d+:\d+.*no lowering/,
  );
});
