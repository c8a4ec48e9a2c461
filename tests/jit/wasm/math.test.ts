// The functions of math.ts and math64.ts against JavaScript's in double precision, over their whole range.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { jit } from '../../../lib/jit/jit.js';

const erfOf = (x: number): number => {
  // Series where it is short, else Lentz's continued fraction of erfc.
  if (Math.abs(x) < 2.5) {
    let [sum, term] = [x, x];
    for (let n = 1; n < 80; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (Math.abs(x) + fraction);
  const tail = Math.exp(-x * x) / Math.sqrt(Math.PI) / (Math.abs(x) + fraction);
  return Math.sign(x) * (1 - tail);
};

type Case = [
  name: string,
  fn: (x: tf.Tensor) => tf.Tensor,
  exact: (x: number) => number,
  low: number,
  high: number,
];
const cases: Case[] = [
  ['exp', tf.exp, Math.exp, -100, 88],
  ['expm1', tf.expm1, Math.expm1, -20, 80],
  ['log', tf.log, Math.log, 1e-38, 1e6],
  ['log1p', tf.log1p, Math.log1p, -0.99, 1000],
  ['sin', tf.sin, Math.sin, -1000, 1000],
  ['cos', tf.cos, Math.cos, -1000, 1000],
  ['tan', tf.tan, Math.tan, -1.5, 1.5],
  ['asin', tf.asin, Math.asin, -1, 1],
  ['acos', tf.acos, Math.acos, -1, 0.99],
  ['atan', tf.atan, Math.atan, -50, 50],
  ['sinh', tf.sinh, Math.sinh, -20, 20],
  ['cosh', tf.cosh, Math.cosh, -20, 20],
  ['tanh', tf.tanh, Math.tanh, -10, 10],
  ['asinh', tf.asinh, Math.asinh, -50, 50],
  ['acosh', tf.acosh, Math.acosh, 1, 50],
  ['atanh', tf.atanh, Math.atanh, -0.999, 0.999],
  ['erf', tf.erf, erfOf, -5, 5],
  ['sigmoid', tf.sigmoid, (x) => 1 / (1 + Math.exp(-x)), -80, 80],
  ['softplus', tf.softplus, (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), -80, 80],
  ['rsqrt', tf.rsqrt, (x) => 1 / Math.sqrt(x), 1e-6, 1e6],
  ['power', (x) => tf.pow(tf.abs(x), 1.7), (x) => Math.abs(x) ** Math.fround(1.7), -30, 30],
];

/** Points over the range, and close to zero where it lies inside. */
function pointsIn(low: number, high: number): Float32Array {
  const even = Array.from({ length: 4001 }, (_, i) => low + ((high - low) * i) / 4000);
  const small = [1e-30, 1e-8, 1e-6, 1e-5, 3e-5, 1e-4, 1e-3, 1e-2].flatMap((x) => [x, -x]);
  return Float32Array.from([...even, ...small.filter((x) => x > low && x < high)]);
}

test.each(cases)('%s', async (_, fn, exact, low, high) => {
  await tf.setBackend('cpu');
  const points = pointsIn(low, high);
  const compiled = jit(fn, { target: 'wasm' });
  const received = await (await compiled(tf.tensor1d(points))).data();
  compiled.dispose();
  let worst = 0;
  for (const [i, x] of points.entries()) {
    const wanted = exact(x);
    // Where the result is near 0 for an x that is not, float32 inputs allow no more than their own error.
    const scale = Math.max(Math.abs(wanted), Math.abs(x) > 2 ? 1e-3 : 1e-37);
    worst = Math.max(worst, Math.abs(received[i]! - wanted) / scale);
  }
  expect(worst).toBeLessThan(4e-7);
});

test('what is not a number, or no finite one', async () => {
  await tf.setBackend('cpu');
  const special = tf.tensor1d([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -1]);
  const compiled = jit((x: tf.Tensor) => [tf.exp(x), tf.log(x), tf.tanh(x), tf.sigmoid(x), tf.erf(x)], {
    target: 'wasm',
  });
  const results = await Promise.all((await compiled(special)).map(async (y) => Array.from(await y.data())));
  const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
  expect(results[0]!.slice(0, 4)).toEqual([nan, inf, 0, 1]);
  expect(results[1]).toEqual([nan, inf, nan, -inf, nan]);
  expect(results[2]!.slice(0, 4)).toEqual([nan, 1, -1, 0]);
  expect(results[3]!.slice(0, 4)).toEqual([nan, 1, 0, 0.5]);
  expect(results[4]!.slice(0, 4)).toEqual([nan, expect.closeTo(1, 6), expect.closeTo(-1, 6), 0]);
});
