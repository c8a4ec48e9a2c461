// lib/jit/kernels/math/exponential.ts: e^x, logarithms, powers, and what is made of them.
// Source: Moshier's Cephes library (expf, logf, tanhf) for reductions and coefficients; erf as in XLA and Eigen; log1p by
// 2 atanh, Abramowitz and Stegun 4.1.38 and 4.6.

import { defineFunction } from '../builder.js';
import type { Expr } from '../expression.js';
import { f32, horner, infinity, isInfinite, isNan, nan, powerOfTwo, unary, withSign } from './parts.js';

/** 2^n e^r; 2^n in two factors, so that subnormal results come out right where the adapter has them. */
export const exp = unary('exactExp', (f, input) => {
  const x = f.let('x', input.clamp(-104, 89));
  const n = f.let('n', x.mul(Math.LOG2E).round());
  const r = f.let('r', x.sub(n.mul(0.693359375)).sub(n.mul(-2.1219444e-4)));
  const power = f.let('power', n.to('i32'));
  const half = f.let('half', power.shr(1));
  const series = horner(r, [1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1]);
  const value = f.let('value', series.mul(powerOfTwo(half)).mul(powerOfTwo(power.sub(half))));
  const low = input.lt(-104).select(0, value);
  return isNan(input).select(input, input.gt(89).select(infinity, low));
});

/** n ln 2 + ln m, m in 0.707..1.414. */
export const log = unary('exactLog', (f, x) => {
  // By bits, since adapters may take a subnormal for 0: it is its fraction, a whole number, times 2^-149.
  const bits = f.let('bits', x.bits('u32'));
  const size = f.let('size', bits.and(0x7fffffff));
  const isTiny = f.let('isTiny', size.lt(0x800000));
  const scaled = f.let('scaled', isTiny.select(size.to('f32'), x));
  const shifted = f.let('shifted', scaled.bits('i32').sub(0x3f3504f3));
  const n = f.let(
    'n',
    shifted
      .shr(23)
      .to('f32')
      .sub(isTiny.select(f32(149), 0)),
  );
  const t = f.let('t', shifted.and(0x7fffff).add(0x3f3504f3).bits('f32').sub(1));
  const square = f.let('square', t.mul(t));
  const series = horner(t, [
    ...[7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1],
    ...[-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1],
  ]);
  const tail = f.let('tail', t.mul(square).mul(series).add(n.mul(-2.1219444e-4)).sub(square.mul(0.5)));
  const value = f.let('value', t.add(tail).add(n.mul(0.693359375)));
  const isNegative = bits.ge(0x80000000);
  const finite = size.eq(0).select(infinity.neg(), isNegative.select(nan, value));
  return isNan(x).or(x.eq(infinity)).select(x, finite);
});

/** 2 atanh(x / (2 + x)) near 0, where 1 + x would lose x's last bits. */
export const log1p = unary('exactLog1p', (f, x) => {
  const s = f.let('s', x.div(x.add(2)));
  const terms = [15, 13, 11, 9, 7, 5, 3, 1].map((k) => 2 / k);
  const near = f.let('near', s.mul(horner(s.mul(s), terms)));
  return x
    .abs()
    .lt(0.5)
    .select(near, log(x.add(1)));
});

export const expm1 = unary('exactExpm1', (_, x) => {
  const terms = [9, 8, 7, 6, 5, 4, 3, 2, 1].map((k) => 1 / factorial(k));
  return x
    .abs()
    .lt(0.5)
    .select(x.mul(horner(x, terms)), exp(x).sub(1));
});

const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));

export const sigmoid = unary('exactSigmoid', (_, x) => f32(1).div(exp(x.neg()).add(1)));

export const tanh = unary('exactTanh', (f, x) => {
  const size = f.let('size', x.abs());
  const far = f32(1).sub(f32(2).div(exp(size.add(size)).add(1)));
  const square = f.let('square', x.mul(x));
  const series = horner(
    square,
    [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
  );
  const near = x.add(x.mul(square).mul(series));
  return isNan(x).select(x, size.lt(0.625).select(near, withSign(far, x)));
});

/** x P(x^2) / Q(x^2) for |x| up to 4, where erf is 1 in float32. */
export const erf = unary('exactErf', (f, input) => {
  const x = f.let('x', input.clamp(-4, 4));
  const square = f.let('square', x.mul(x));
  const above = horner(square, [
    ...[-2.72614225801306e-10, 2.77068142495902e-8, -2.10102402082508e-6, -5.69250639462346e-5],
    ...[-7.34990630326855e-4, -2.95459980854025e-3, -1.60960333262415e-2],
  ]);
  const below = horner(square, [
    ...[-1.45660718464996e-5, -2.13374055278905e-4, -1.68282697438203e-3],
    ...[-7.37332916720468e-3, -1.42647390514189e-2],
  ]);
  return isNan(input).select(input, x.mul(above).div(below));
});

export const softplus = unary('exactSoftplus', (_, x) => x.max(0).add(log1p(exp(x.abs().neg()))));

/** By multiplications for small whole y, else e^(y ln |x|), with the sign of x where y is odd. */
export const pow = defineFunction('exactPow', ['f32', 'f32'], 'f32', (f, ...both) => {
  const [x, y] = both as [Expr, Expr];
  const isWhole = f.let('isWhole', y.floor().eq(y));
  const halfOfY = f.let('halfOfY', y.mul(0.5));
  const isOdd = f.let('isOdd', isWhole.and(halfOfY.floor().ne(halfOfY)));
  f.if(isWhole.and(y.abs().le(64)), () => {
    const left = f.variable('left', y.abs().to('i32'));
    const factor = f.variable('factor', x);
    const product = f.variable('product', f32(1));
    f.while(left.value.gt(0), () => {
      f.if(left.value.and(1).ne(0), () => f.set(product, product.value.mul(factor.value)));
      f.set(factor, factor.value.mul(factor.value));
      f.set(left, left.value.shr(1));
    });
    f.return(y.lt(0).select(f32(1).div(product.value), product.value));
  });
  const size = f.let('size', exp(y.mul(log(x.abs()))));
  const signed = isOdd.and(x.lt(0)).select(size.neg(), size);
  return x.lt(0).and(isWhole.not()).and(isInfinite(x).not()).select(nan, signed);
});
