// lib/jit/kernels/math/parts.ts: what the exact functions are made of: constants, series, tests and signs by bits.

import type { Statements } from '../builder.js';
import { defineFunction } from '../builder.js';
import { type Expr, literal, type Operand } from '../expression.js';

export const f32 = (value: number): Expr => literal('f32', value);
export const infinity = f32(Number.POSITIVE_INFINITY);
export const nan = f32(Number.NaN);

/** ((c0 x + c1) x + c2) ... */
export function horner(x: Expr, coefficients: readonly number[]): Expr {
  return coefficients.slice(1).reduce((sum, c) => sum.mul(x).add(c), f32(coefficients[0]!));
}

/** True for NaN, from the bits: compilers may take x != x for false. */
export function isNan(x: Expr): Expr {
  return x.bits('u32').and(0x7fffffff).gt(0x7f800000);
}

export function isInfinite(x: Expr): Expr {
  return x.bits('u32').and(0x7fffffff).eq(0x7f800000);
}

/** |size| with the sign of x. */
export function withSign(size: Expr, x: Expr): Expr {
  const sign = x.bits('u32').and(0x80000000);
  return size.bits('u32').and(0x7fffffff).or(sign).bits('f32');
}

type Body = (f: Statements, x: Expr) => Expr;
/** A function of one f32. */
export const unary = (name: string, body: Body): ((x: Operand) => Expr) =>
  defineFunction(name, ['f32'], 'f32', body as (f: Statements, ...parameters: Expr[]) => Expr);

export const powerOfTwo = (n: Expr): Expr => n.add(127).shl(23).bits('f32');
