// lib/jit/targets/webgpu/kernels/rotate.ts: a pair of features turned by its position's angle, as ops.ts `rotary` says.

import type { KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, vector } from '../../../kernels/expression.js';
import { cos, sin } from '../../../kernels/math.js';

/**
 * Turns a pair.
 * @param pair its number in the head: 0 to headDim / 2 - 1
 * @param frequencies radians a position, one a pair
 * @returns the pair's first and second feature
 */
export function rotatePair(
  k: KernelBuilder,
  values: readonly [Expr, Expr],
  position: Expr, // i32
  pair: Expr,
  frequencies: readonly number[],
  scale: number,
): [Expr, Expr] {
  const frequency = k.let('frequency', pick(frequencies, pair, 0));
  const angle = k.let('angle', position.to('f32').mul(frequency));
  return turnedBy(k, angle, scale)(values);
}

/** What turns pairs by an angle; by four angles four pairs each, as vectors. */
export function turnedBy(
  k: KernelBuilder,
  angle: Expr,
  scale: number,
): (pair: readonly [Expr, Expr]) => [Expr, Expr] {
  const of = (name: string, fn: (angle: Expr) => Expr): Expr => {
    const value = angle.type === 'f32x4' ? vector(...[0, 1, 2, 3].map((i) => fn(angle.lane(i)))) : fn(angle); // biome-ignore format: short
    return k.let(name, value.mul(scale));
  };
  const [cosine, sine] = [of('cosine', cos), of('sine', sin)];
  return ([a, b]) => [a.mul(cosine).sub(b.mul(sine)), b.mul(cosine).add(a.mul(sine))];
}

/** Element `index` of known numbers, by halving: as many choices as numbers, but no memory. */
function pick(numbers: readonly number[], index: Expr, first: number): Expr {
  if (numbers.length === 1) return literal('f32', numbers[0]!);
  const half = numbers.length >> 1;
  const low = pick(numbers.slice(0, half), index, first);
  return index.lt(first + half).select(low, pick(numbers.slice(half), index, first + half));
}
