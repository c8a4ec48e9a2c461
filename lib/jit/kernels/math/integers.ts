// lib/jit/kernels/math/integers.ts: quotients, remainders and powers of int32.

import { defineFunction } from '../builder.js';
import { type Expr, literal } from '../expression.js';

/** floor(a / b) of integers; 0 where b is 0. */
export const floorDivInt = defineFunction('exactFloorDivInt', ['i32', 'i32'], 'i32', (f, ...both) => {
  const [a, b] = both as [Expr, Expr];
  const divisor = f.let('divisor', b.eq(0).select(literal('i32', 1), b));
  const quotient = f.let('quotient', a.div(divisor));
  const rest = f.let('rest', a.sub(quotient.mul(divisor)));
  const isOver = rest.ne(0).and(rest.xor(divisor).lt(0));
  const value = isOver.select(quotient.sub(1), quotient);
  return b.eq(0).select(literal('i32', 0), value);
});

/** The remainder with the divisor's sign; 0 where b is 0. */
export const modInt = defineFunction('exactModInt', ['i32', 'i32'], 'i32', (f, ...both) => {
  const [a, b] = both as [Expr, Expr];
  const value = f.let('value', a.sub(floorDivInt(a, b).mul(b)));
  return b.eq(0).select(literal('i32', 0), value);
});

/** Wrapping at 32 bits; below an exponent of 0 only 1 and -1 are whole. */
export const powInt = defineFunction('exactPowInt', ['i32', 'i32'], 'i32', (f, ...both) => {
  const [a, b] = both as [Expr, Expr];
  const left = f.variable('left', b.lt(0).select(b.and(1), b));
  const factor = f.variable('factor', a);
  const product = f.variable('product', literal('i32', 1));
  f.while(left.value.gt(0), () => {
    f.if(left.value.and(1).ne(0), () => f.set(product, product.value.mul(factor.value)));
    f.set(factor, factor.value.mul(factor.value));
    f.set(left, left.value.shr(1));
  });
  const isUnit = a.eq(1).or(a.eq(-1));
  return b.lt(0).and(isUnit.not()).select(literal('i32', 0), product.value);
});
