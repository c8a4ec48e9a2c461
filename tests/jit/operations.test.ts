// More of tfjs's operations against eager tfjs: composed ones, odd arguments, integers and flags.
import * as tf from '@tensorflow/tfjs-core';
import { test } from 'vitest';
import { agrees, flags, integers, numbers } from './agree.js';

/** tfjs operations that are composed of others, and corners of those that are not. */
const operations: Record<string, (x: tf.Tensor) => unknown> = {
  meshgrid: (x) => tf.meshgrid(tf.reshape(x, [-1]), tf.range(0, 3)),
  gramSchmidt: (x) => tf.linalg.gramSchmidt(x as tf.Tensor2D),
  qr: (x) => tf.linalg.qr(tf.add(tf.transpose(x), tf.eye(4, 3))),
  rgbToGrayscale: (x) => tf.image.rgbToGrayscale(tf.reshape(x, [1, 4, 3]) as never),
  grayscaleToRGB: (x) => tf.image.grayscaleToRGB(tf.reshape(x, [2, 6, 1]) as never),
  confusionMatrix: (x) =>
    tf.math.confusionMatrix(
      tf.cast(tf.argMax(x, 0), 'int32') as never,
      tf.cast(tf.argMin(x, 0), 'int32') as never,
      3,
    ),
  absoluteDifference: (x) => tf.losses.absoluteDifference(x, tf.square(x)),
  huberLoss: (x) => tf.losses.huberLoss(x, tf.square(x)),
  logLoss: (x) => tf.losses.logLoss(tf.sigmoid(x), tf.sigmoid(tf.square(x))),
  hingeLoss: (x) => tf.losses.hingeLoss(tf.cast(tf.greater(x, 0), 'float32'), x),
  cosineDistance: (x) => tf.losses.cosineDistance(x, tf.square(x), 1),
  sigmoidCrossEntropy: (x) => tf.losses.sigmoidCrossEntropy(tf.cast(tf.greater(x, 0), 'float32'), x),
  norm: (x) => [
    tf.norm(x, 1, 0),
    tf.norm(x, 'euclidean'),
    tf.norm(x, 'fro', [0, 1]),
    tf.norm(x, Infinity, 1),
  ],
  'softmax of columns': (x) => tf.softmax(tf.transpose(x)),
  logSumExp: (x) => tf.logSumExp(x, 1, true),
  'every other row, reversed': (x) => tf.stridedSlice(x, [0, 3], [3, 0], [2, -1]),
  'strided slice with masks and a dropped axis': (x) =>
    tf.stridedSlice(x, [0, 0, 1], [0, 0, 3], [1, 1, 1], 0b001, 0b001, 0, 0b010, 0),
  'strided slice with a dropped axis': (x) => tf.stridedSlice(x, [1], [2], [1], 0, 0, 0, 0, 1),
  'strided slice with an ellipsis': (x) => tf.stridedSlice(x, [0, 1], [0, 3], [1, 1], 0, 0, 0b01),
  'strided slice from the end': (x) => tf.stridedSlice(x, [-1, -1], [-4, -5], [-1, -2]),
  bincount: (x) => tf.bincount(tf.cast(tf.argMax(x, 0), 'int32') as never, tf.tensor1d([]), 5),
  denseBincount: (x) =>
    tf.denseBincount(
      tf.cast(tf.reshape(tf.argMax(x, 0), [2, 2]), 'int32') as never,
      tf.tensor1d([]) as never,
      4,
      false,
    ),
  'all of a topk': (x) => tf.topk(tf.round(x), 4),
  'ties of argMax': (x) => [
    tf.argMax(tf.zerosLike(x), 1),
    tf.argMin(tf.zerosLike(x), 1),
    tf.argMax(tf.round(x), 1),
  ],
  'mod and floorDiv of negatives': (x) => [
    tf.mod(x, -0.7),
    tf.mod(x, 0.7),
    tf.floorDiv(x, 0.7),
    tf.floorDiv(x, -0.3),
  ],
  batchNorm4d: (x) =>
    tf.batchNorm(tf.reshape(x, [1, 1, 3, 4]) as never, tf.range(0, 4) as never, tf.range(1, 5) as never),
  batchNorm3d: (x) =>
    tf.batchNorm3d(
      tf.reshape(x, [1, 3, 4]) as never,
      tf.range(0, 4) as never,
      tf.range(1, 5) as never,
      undefined,
      tf.range(2, 6) as never,
      1e-2,
    ),
  'moments of columns': (x) => tf.moments(x, 0, true),
  'numbers on the left': (x) => [tf.sub(3, x), tf.div(1, x), tf.pow(2, x), tf.maximum(0.3, x)],
  pad1d: (x) => [
    tf.pad(x, [
      [0, 0],
      [0, 0],
    ]),
    tf.pad1d(tf.reshape(x, [-1]) as never, [1, 2], 3),
  ],
  sparseToDense: (x) =>
    tf.sparseToDense(tf.tensor1d([1, 3, 5], 'int32'), tf.reshape(tf.slice(x, [0, 0], [1, 3]), [3]), [7], 9),
  lowerBound: (x) => [
    tf.lowerBound(tf.tensor1d([-1, 0, 1]), tf.reshape(x, [-1])),
    tf.upperBound(tf.tensor1d([-1, 0, 1]), tf.reshape(x, [-1])),
  ],
  'where with a column': (x) => tf.where(tf.greater(tf.slice(x, [0, 0], [-1, 1]), 0), x, 0),
  unstack: (x) => tf.unstack(x, -1).map((t) => tf.add(t, 1)),
  eye: (x) => tf.matMul(tf.eye(3), x),
  'einsum: transpose': (x) => tf.einsum('ij->ji', x),
  'einsum: product': (x) => tf.einsum('ij,kj->ik', x, x),
  'einsum: element by element': (x) => tf.einsum('ij,ij->ij', x, x),
  'flags as numbers': (x) => [
    tf.cast(tf.greater(x, 0), 'float32'),
    tf.sum(tf.cast(tf.greater(x, 0), 'int32'), 0),
    tf.mean(tf.greater(x, 0)),
    tf.logicalNot(tf.greater(x, 0)),
    tf.max(tf.cast(tf.greater(x, 0), 'int32')),
  ],
  'concat of odd parts': (x) => [
    tf.concat([x, tf.zeros([0, 4])], 0),
    tf.concat([x], 1),
    tf.stack([x, x, x]),
    tf.concat([tf.cast(x, 'int32'), tf.ones([1, 4], 'int32')]),
  ],
  reverse: (x) => [tf.reverse(x), tf.reverse(x, [0, 1]), tf.reverse1d(tf.range(0, 4) as never)],
  'cumsum of integers': (x) => [tf.cumsum(tf.cast(x, 'int32'), 0), tf.cumprod(x, 0, true, false)],
  'slices with parts left out': (x) => [tf.slice(x, 1), tf.slice(x, [1], [2]), tf.slice(x, [0, 2])],
  expandDims: (x) => [
    tf.expandDims(x),
    tf.expandDims(x, 1),
    tf.expandDims(x, 2),
    tf.squeeze(tf.expandDims(x)),
  ],
  gather: (x) => [
    tf.gather(x, tf.scalar(1, 'int32')),
    tf.gather(
      x,
      tf.tensor2d(
        [
          [0, 1],
          [2, 0],
        ],
        [2, 2],
        'int32',
      ),
      1,
    ),
    tf.gather(x, [0, 0], 0),
    tf.gather(x, tf.cast(tf.argMax(x, 0), 'int32')),
  ],
  bandPart: (x) => tf.linalg.bandPart(x, 1, 0),
  'clip of integers': (x) => tf.clipByValue(tf.cast(tf.mul(x, 4), 'int32'), -2, 3),
  'powers of integers': (x) => [
    tf.pow(tf.cast(x, 'int32'), tf.scalar(2, 'int32')),
    tf.square(tf.cast(x, 'int32')),
  ],
  logSigmoid: (x) => tf.logSigmoid(tf.mul(x, 50)),
  avgPool: (x) => tf.avgPool(tf.reshape(x, [1, 3, 4, 1]) as never, 2, 1, 'valid'),
  atan2: (x) => tf.atan2(x, tf.sub(x, 1)),
  'tile of a scalar': (x) => tf.tile(tf.sum(x), []),
  broadcastTo: (x) => [tf.broadcastTo(tf.scalar(2), [2, 3]), tf.broadcastTo(x, [2, 3, 4])],
  dot: (x) => [
    tf.dot(x, tf.range(0, 4) as never),
    tf.dot(tf.range(0, 3) as never, x),
    tf.outerProduct(tf.range(0, 2) as never, tf.range(0, 3) as never),
  ],
  erf: (x) => tf.erf(tf.mul(x, 3)),
  constants: (x) => [
    tf.ones([2, 2], 'bool'),
    tf.zeros([3], 'int32'),
    tf.onesLike(tf.cast(x, 'int32')),
    tf.linspace(0, 1, 1),
    tf.range(5, 0, -2),
    tf.range(0, 0),
  ],
};
test.each(Object.entries(operations))('%s', async (_, fn) => {
  await agrees(fn, [numbers([3, 4])]);
});
test('integers and flags', async () => {
  await agrees(
    (a: tf.Tensor) => [
      tf.sub(a, tf.scalar(3, 'int32')),
      tf.mul(a, a),
      tf.maximum(a, tf.scalar(1, 'int32')),
      tf.mean(a),
      tf.prod(a),
      tf.min(a, 0),
      tf.sign(a),
      tf.div(a, tf.scalar(2, 'int32')),
      tf.div(a, 2),
      tf.sqrt(tf.cast(a, 'float32')),
      tf.greater(a, 0.5),
      tf.softmax(tf.cast(a, 'float32')),
    ],
    [integers([3, 4])],
  );
  await agrees(
    (a: tf.Tensor) => [
      tf.logicalAnd(a, a),
      tf.any(a, 0),
      tf.all(a),
      tf.cast(a, 'float32'),
      tf.add(tf.cast(a, 'int32'), 1),
      tf.where(a, tf.ones([3, 4]), tf.zeros([3, 4])),
    ],
    [flags([3, 4])],
  );
});
