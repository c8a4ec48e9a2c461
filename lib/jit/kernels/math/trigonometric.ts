// lib/jit/kernels/math/trigonometric.ts: sine, cosine, tangent and their inverses.
// Source: Moshier's Cephes library (asinf, atanf); the parts of pi/2 as in Eigen.

import type { Statements } from '../builder.js';
import { defineFunction } from '../builder.js';
import type { Expr } from '../expression.js';
import { f32, horner, isInfinite, isNan, nan, unary, withSign } from './parts.js';

/** Sine, or cosine a quarter turn on, of the rest to whole quarter turns; |x| up to 70,000. */
function wave(f: Statements, x: Expr, quarter: 0 | 1): Expr {
  const n = f.let('n', x.mul(2 / Math.PI).round());
  const parts = [-1.5703125, -0.0004839897155761719, 1.628650352358818e-7, 5.564431554416771e-11];
  const r = f.let(
    'r',
    parts.reduce((rest, part) => n.fma(part, rest), x),
  );
  const square = f.let('square', r.mul(r));
  const sine = r.add(r.mul(square).mul(horner(square, [1 / 362880, -1 / 5040, 1 / 120, -1 / 6])));
  const cosine = horner(square, [-1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1]);
  const place = f.let('place', n.to('i32').add(quarter));
  const size = f.let('size', place.and(1).ne(0).select(cosine, sine));
  return place.and(2).ne(0).select(size.neg(), size);
}

export const sin = unary('exactSin', (f, x) =>
  isNan(x)
    .or(isInfinite(x))
    .select(nan, wave(f, x, 0)),
);
export const cos = unary('exactCos', (f, x) =>
  isNan(x)
    .or(isInfinite(x))
    .select(nan, wave(f, x, 1)),
);
export const tan = unary('exactTan', (_, x) => sin(x).div(cos(x)));

export const atan = unary('exactAtan', (f, x) => {
  const size = f.let('size', x.abs());
  const isLarge = f.let('isLarge', size.gt(2.414213562373095));
  const isMiddle = f.let('isMiddle', size.gt(0.414213562373095));
  const inverse = f32(-1).div(size);
  const t = f.let('t', isLarge.select(inverse, isMiddle.select(size.sub(1).div(size.add(1)), size)));
  const base = isLarge.select(f32(Math.PI / 2), isMiddle.select(f32(Math.PI / 4), 0));
  const square = f.let('square', t.mul(t));
  const series = horner(square, [8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1]);
  return isNan(x).select(x, withSign(base.add(t.add(t.mul(square).mul(series))), x));
});

export const asin = unary('exactAsin', (f, x) => {
  const size = f.let('size', x.abs());
  const isLarge = f.let('isLarge', size.gt(0.5));
  const square = f.let('square', isLarge.select(f32(0.5).mul(f32(1).sub(size)), size.mul(size)));
  const root = f.let('root', isLarge.select(square.max(0).sqrt(), size));
  const series = horner(
    square,
    [4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1],
  );
  const near = f.let('near', root.add(root.mul(square).mul(series)));
  const value = isLarge.select(f32(Math.PI / 2).sub(near.mul(2)), near);
  return size.le(1).select(withSign(value, x), nan);
});

export const acos = unary('exactAcos', (f, x) => {
  const high = f.let('high', asin(f32(0.5).sub(x.mul(0.5)).max(0).sqrt()).mul(2));
  const low = f32(Math.PI).sub(asin(f32(0.5).add(x.mul(0.5)).max(0).sqrt()).mul(2));
  const middle = f32(Math.PI / 2).sub(asin(x));
  return x
    .abs()
    .le(1)
    .select(x.gt(0.5).select(high, x.lt(-0.5).select(low, middle)), nan);
});

export const atan2 = defineFunction('exactAtan2', ['f32', 'f32'], 'f32', (f, ...both) => {
  const [y, x] = both as [Expr, Expr];
  const [up, right] = [f.let('up', y.abs()), f.let('right', x.abs())];
  const both0 = up.eq(0).and(right.eq(0));
  const bothInfinite = isInfinite(y).and(isInfinite(x));
  // Where both are 0 or both are infinite their quotient is NaN.
  const ratio = both0.select(f32(0), bothInfinite.select(f32(1), up.div(right)));
  const angle = f.let('angle', atan(ratio));
  const isLeft = x.bits('i32').lt(0); // -0 is on the left too
  const value = withSign(isLeft.select(f32(Math.PI).sub(angle), angle), y);
  return isNan(x).or(isNan(y)).select(nan, value);
});
