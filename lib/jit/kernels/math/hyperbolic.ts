// lib/jit/kernels/math/hyperbolic.ts: hyperbolic functions and their inverses.

import { exp, log, log1p } from './exponential.js';
import { f32, horner, isNan, nan, unary, withSign } from './parts.js';

/** e^x / 2 for x >= 0, without passing through infinity before x does. */
const halfExp = unary('exactHalfExp', (f, x) => {
  const root = f.let('root', exp(x.mul(0.5)));
  return x.gt(80).select(root.mul(0.5).mul(root), exp(x).mul(0.5));
});

export const sinh = unary('exactSinh', (f, x) => {
  const size = f.let('size', x.abs());
  const square = f.let('square', x.mul(x));
  const near = x.mul(horner(square, [1 / 362880, 1 / 5040, 1 / 120, 1 / 6, 1]));
  const half = f.let('half', halfExp(size));
  return isNan(x).select(x, size.lt(1).select(near, withSign(half.sub(f32(0.25).div(half)), x)));
});

export const cosh = unary('exactCosh', (f, x) => {
  const half = f.let('half', halfExp(x.abs()));
  return half.add(f32(0.25).div(half));
});

export const asinh = unary('exactAsinh', (f, x) => {
  const size = f.let('size', x.abs());
  const square = f.let('square', size.mul(size));
  const near = log1p(size.add(square.div(square.add(1).sqrt().add(1))));
  return isNan(x).select(x, withSign(size.gt(1e9).select(log(size).add(Math.LN2), near), x));
});

export const acosh = unary('exactAcosh', (f, x) => {
  const over = f.let('over', x.sub(1));
  const near = log1p(over.add(over.mul(2).add(over.mul(over)).max(0).sqrt()));
  return x.lt(1).select(nan, x.gt(1e9).select(log(x).add(Math.LN2), near));
});

export const atanh = unary('exactAtanh', (f, x) => {
  const size = f.let('size', x.abs());
  const value = log1p(size.mul(2).div(f32(1).sub(size))).mul(0.5);
  return size.gt(1).select(nan, isNan(x).select(x, withSign(value, x)));
});
