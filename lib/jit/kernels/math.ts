// lib/jit/kernels/math.ts: functions of float32 to its last bits, whatever the adapter's own are worth: WebGPU lets sine
// be off by 2^-11, and NaN and infinities be ignored. NaN is told by its bits here. Quotients rounded down, remainders,
// roots, signs and extremes stand here, the other families in files of their own.

import type { Statements } from './builder.js';
import { defineFunction } from './builder.js';
import { type Expr, literal } from './expression.js';
import { f32, isInfinite, isNan, nan, unary } from './math/parts.js';

export * from './math/exponential.js';
export * from './math/hyperbolic.js';
export * from './math/integers.js';
export { isInfinite, isNan } from './math/parts.js';
export * from './math/trigonometric.js';

/** x - quotient * y to the last bit: the product in two parts, of which the first is rounded and the second is what that lost. */
function restOf(f: Statements, x: Expr, quotient: Expr, y: Expr): Expr {
  // Dekker's product: halves of 12 bits, whose products are exact.
  const halves = (value: Expr): [Expr, Expr] => {
    const scaled = f.let('scaled', value.mul(4097));
    const high = f.let('high', scaled.sub(scaled.sub(value)));
    return [high, f.let('low', value.sub(high))];
  };
  const [qHigh, qLow] = halves(quotient);
  const [yHigh, yLow] = halves(y);
  const product = f.let('product', quotient.mul(y));
  const cross = qHigh.mul(yHigh).sub(product).add(qHigh.mul(yLow)).add(qLow.mul(yHigh));
  return f.let('rest', x.sub(product).sub(cross.add(qLow.mul(yLow))));
}

/** The quotient rounded down, mended where rounding took it over a whole number. */
function flooredQuotient(f: Statements, x: Expr, y: Expr): { quotient: Expr; rest: Expr } {
  const first = f.let('first', x.div(y).floor());
  const rest = restOf(f, x, first, y);
  const isOver = f.let('isOver', y.gt(0).select(rest.lt(0), rest.gt(0)));
  return { quotient: isOver.select(first.sub(1), first), rest: isOver.select(rest.add(y), rest) };
}

/** The remainder with the sign of y. */
export const mod = defineFunction('exactMod', ['f32', 'f32'], 'f32', (f, ...both) => {
  const [x, y] = both as [Expr, Expr];
  const rest = f.let('remainder', flooredQuotient(f, x, y).rest);
  const sameSign = x.bits('i32').xor(y.bits('i32')).ge(0);
  // Less than a whole infinity is left as it is.
  const ofInfinity = sameSign.and(isInfinite(x).not()).select(x, nan);
  const finite = y.eq(0).select(nan, rest.eq(y).select(0, rest));
  return isNan(x).or(isNan(y)).select(nan, isInfinite(y).select(ofInfinity, finite));
});

export const floorDiv = defineFunction('exactFloorDiv', ['f32', 'f32'], 'f32', (f, ...both) => {
  const [x, y] = both as [Expr, Expr];
  return flooredQuotient(f, x, y).quotient;
});

/** Adapters may take a subnormal for 0: it is its fraction, a whole number, times 2^-149. */
function rootOf(f: Statements, x: Expr): { root: Expr; isTiny: Expr } {
  const bits = f.let('bits', x.bits('u32'));
  const isTiny = f.let('isTiny', bits.lt(0x800000).and(bits.ne(0)));
  return { root: f.let('root', isTiny.select(bits.to('f32').mul(2), x).sqrt()), isTiny };
}

/** By bits, as above; 0 for NaN. */
export const sign = unary('exactSign', (f, x) => {
  const size = f.let('size', x.bits('u32').and(0x7fffffff));
  const isZero = size.eq(0).or(size.gt(0x7f800000));
  return isZero.select(f32(0), x.bits('i32').lt(0).select(f32(-1), 1));
});

export const sqrt = unary('exactSqrt', (f, x) => {
  const { root, isTiny } = rootOf(f, x);
  return x.lt(0).select(nan, isTiny.select(root.mul(2 ** -75), root));
});

export const rsqrt = unary('exactRsqrt', (f, x) => {
  const { root, isTiny } = rootOf(f, x);
  return x.lt(0).select(nan, isTiny.select(f32(2 ** 75), 1).div(root));
});

/** NaN where one is NaN. */
export const max = defineFunction('exactMax', ['f32', 'f32'], 'f32', (_, ...both) => {
  const [x, y] = both as [Expr, Expr];
  return isNan(x).select(x, isNan(y).select(y, x.max(y)));
});

export const min = defineFunction('exactMin', ['f32', 'f32'], 'f32', (_, ...both) => {
  const [x, y] = both as [Expr, Expr];
  return isNan(x).select(x, isNan(y).select(y, x.min(y)));
});

/** Toward zero, held at the ends of the range; NaN is 0. */
export const truncate = defineFunction('exactTruncate', ['f32'], 'i32', (_, ...one) => {
  const [x] = one as [Expr];
  const inside = x.clamp(-2147483648, 2147483520).to('i32');
  const held = x.ge(2147483648).select(literal('i32', 2147483647), inside);
  return isNan(x).select(literal('i32', 0), held);
});
