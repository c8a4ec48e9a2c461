// lib/jit/kernels/math.ts: functions of float32 to its last bits, whatever the adapter's own are worth: WebGPU lets sine
// be off by 2^-11, and NaN and infinities be ignored. NaN is told by its bits here.
// Source: Moshier's Cephes library (expf, logf, tanhf, asinf, atanf) for reductions and coefficients; erf as in XLA and
// Eigen; the parts of pi/2 as in Eigen; log1p by 2 atanh, Abramowitz and Stegun 4.1.38 and 4.6.

import type { Statements } from './builder.js';
import { defineFunction } from './builder.js';
import { type Expr, literal, type Operand } from './expression.js';

const f32 = (value: number): Expr => literal('f32', value);
const infinity = f32(Number.POSITIVE_INFINITY);
const nan = f32(Number.NaN);

/** ((c0 x + c1) x + c2) ... */
function horner(x: Expr, coefficients: readonly number[]): Expr {
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
function withSign(size: Expr, x: Expr): Expr {
  const sign = x.bits('u32').and(0x80000000);
  return size.bits('u32').and(0x7fffffff).or(sign).bits('f32');
}

type Body = (f: Statements, x: Expr) => Expr;
/** A function of one f32. */
const unary = (name: string, body: Body): ((x: Operand) => Expr) =>
  defineFunction(name, ['f32'], 'f32', body as (f: Statements, ...parameters: Expr[]) => Expr);

const powerOfTwo = (n: Expr): Expr => n.add(127).shl(23).bits('f32');

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
