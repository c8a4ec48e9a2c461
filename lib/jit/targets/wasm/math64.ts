// lib/jit/targets/wasm/math64.ts: the rarer functions of four float32, computed in float64 two lanes at a time: there a
// plain formula is exact enough for float32 even where it cancels (sinh near 0, log1p, powers).
// Source: series of Abramowitz and Stegun 4.2 to 4.6; reductions as in Cody and Waite 1980.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { horner } from './math.js';
import { constant, type Expr, lanes64 } from './nodes.js';
import { f32x4, f64x2, i8x16, i32x4, i64x2, v128 } from './vectors.js';

/** Makes function name(x) -> f of each half in float64, put together again. */
function inDoubles(
  name: string,
  count: 1 | 2,
  body: (f: FunctionBuilder, ...values: Local[]) => Expr,
): () => FunctionCode {
  return () => {
    const f = new FunctionBuilder(name, ['v128']);
    const inputs = ['x', 'y'].slice(0, count).map((each) => f.param('v128', each));
    const upper = (v: Expr) =>
      i8x16.shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
    const halves = [(v: Expr) => v, upper].map((pick, i) => {
      const values = inputs.map((input, at) =>
        f.let(`${'xy'[at]}${i}`, f64x2.promote_low_f32x4(pick(input))),
      );
      return f.let(`half${i}`, f32x4.demote_f64x2_zero(body(f, ...values)));
    });
    const low = [0, 1, 2, 3, 4, 5, 6, 7];
    f.return(i8x16.shuffle(halves[0]!, halves[1]!, [...low, ...low.map((lane) => lane + 16)]));
    return f.finish();
  };
}

const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));
/** Coefficients term(count - 1), ..., term(0), the highest power first as horner wants them. */
const series = (count: number, term: (k: number) => number) =>
  Array.from({ length: count }, (_, i) => term(count - 1 - i));
const poly = (x: Expr, coefficients: readonly number[]) => horner(x, coefficients, f64x2);
const pick = (mask: Expr, a: Expr, b: Expr) => v128.bitselect(a, b, mask);
const double = (value: number) => constant('f64x2', value);
const signOf = (x: Expr) => v128.and(x, double(-0));

/** e^x, relative error 1e-13; x beyond 700 is cut off there, where float32 is 0 or Infinity. */
function exp(f: FunctionBuilder, input: Expr): Local {
  const x = f.let('e', f64x2.min(f64x2.max(input, -700), 700));
  const n = f.let('n', f64x2.nearest(f64x2.mul(x, Math.LOG2E)));
  // ln 2 in two parts: n times the first is exact.
  const high = f64x2.sub(x, f64x2.mul(n, 0.6931471803691238));
  const r = f.let('r', f64x2.sub(high, f64x2.mul(n, 1.9082149292705877e-10)));
  const exponent = i64x2.add(i64x2.extend_low_i32x4_s(i32x4.trunc_sat_f64x2_s_zero(n)), 1023);
  const mantissa = poly(
    r,
    series(12, (k) => 1 / factorial(k)),
  );
  return f.let('exp', f64x2.mul(mantissa, i64x2.shl(exponent, 52)));
}

/** ln x = n ln 2 + 2 atanh((m - 1) / (m + 1)), m in 0.707..1.414; 0 gives -Infinity, below it NaN. */
function log(f: FunctionBuilder, input: Expr): Local {
  const rootBits = lanes64(0x3fe6a09e667f3bcdn); // of sqrt(1/2)
  const x = f.let('l', input);
  const shifted = f.let('shifted', i64x2.sub(x, rootBits));
  const exponent = f.let('exponent', i64x2.shr_s(shifted, 52));
  const narrow = i8x16.shuffle(exponent, exponent, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
  const n = f64x2.convert_low_i32x4_s(narrow);
  const m = f.let('m', i64x2.add(v128.and(shifted, lanes64(0xfffffffffffffn)), rootBits));
  const s = f.let('s', f64x2.div(f64x2.sub(m, 1), f64x2.add(m, 1)));
  const terms = poly(
    f64x2.mul(s, s),
    series(9, (k) => 2 / (2 * k + 1)),
  );
  const result = f.let('log', f64x2.add(f64x2.mul(n, Math.LN2), f64x2.mul(s, terms)));
  f.set(result, pick(f64x2.eq(x, 0), double(Number.NEGATIVE_INFINITY), result));
  f.set(result, pick(f64x2.lt(x, 0), double(Number.NaN), result));
  f.set(result, pick(f64x2.lt(x, Number.POSITIVE_INFINITY), result, x));
  return result;
}

/** Replaces a formula by its series where |x| is small enough for it to cancel. */
function nearZero(f: FunctionBuilder, x: Local, formula: Expr, coefficients: readonly number[]): Expr {
  const value = f.let('formula', formula);
  return pick(f64x2.lt(f64x2.abs(x), 1e-4), f64x2.mul(x, poly(x, coefficients)), value);
}

/** atan of t >= 0: first by 1 / t, then by (t - 1) / (t + 1), then the series below tan(pi / 8). */
function arcTangent(f: FunctionBuilder, input: Expr): Expr {
  const t = f.let('t', f64x2.abs(input));
  const isLarge = f.let('isLarge', f64x2.gt(t, 1));
  f.set(t, pick(isLarge, f64x2.div(1, t), t));
  const isMiddle = f.let('isMiddle', f64x2.gt(t, Math.SQRT2 - 1));
  f.set(t, pick(isMiddle, f64x2.div(f64x2.sub(t, 1), f64x2.add(t, 1)), t));
  const square = f.let('tt', f64x2.mul(t, t));
  const terms = f64x2.mul(
    t,
    poly(
      square,
      series(14, (k) => (k % 2 ? -1 : 1) / (2 * k + 1)),
    ),
  );
  const angle = f.let('angle', f64x2.add(terms, v128.and(isMiddle, double(Math.PI / 4))));
  f.set(angle, pick(isLarge, f64x2.sub(Math.PI / 2, angle), angle));
  return angle;
}

const atan = (f: FunctionBuilder, x: Expr) => v128.or(arcTangent(f, x), signOf(x));
const asin = (f: FunctionBuilder, x: Local) =>
  atan(f, f.let('ratio', f64x2.div(x, f64x2.sqrt(f64x2.sub(1, f64x2.mul(x, x))))));

function atan2(f: FunctionBuilder, y: Local, x: Local): Expr {
  const ratio = f.let('ratio', f64x2.div(f64x2.abs(y), f64x2.abs(x)));
  // Where both are 0 or both are infinite the quotient is NaN.
  f.set(ratio, pick(v128.and(f64x2.eq(y, 0), f64x2.eq(x, x)), double(0), ratio));
  const isInfinite = f64x2.eq(f64x2.min(f64x2.abs(x), f64x2.abs(y)), Number.POSITIVE_INFINITY);
  f.set(ratio, pick(isInfinite, double(1), ratio));
  const angle = f.let('plane', arcTangent(f, ratio));
  f.set(angle, pick(i64x2.shr_s(x, 63), f64x2.sub(Math.PI, angle), angle)); // -0 is on the left too
  return v128.or(angle, signOf(y));
}

/** Sine (quarter 0) or cosine (quarter 1) by the remainder to whole quarter turns, for |x| up to 1e6. */
function wave(f: FunctionBuilder, x: Expr, quarter: 0 | 1): Local {
  const n = f.let('turns', f64x2.nearest(f64x2.mul(x, 2 / Math.PI)));
  const high = f64x2.sub(x, f64x2.mul(n, 1.5707963267341256));
  const r = f.let('rest', f64x2.sub(high, f64x2.mul(n, 6.077100506506192e-11)));
  const square = f.let('rr', f64x2.mul(r, r));
  const sine = f64x2.mul(
    r,
    poly(
      square,
      series(8, (k) => (k % 2 ? -1 : 1) / factorial(2 * k + 1)),
    ),
  );
  const cosine = poly(
    square,
    series(9, (k) => (k % 2 ? -1 : 1) / factorial(2 * k)),
  );
  const turn = i64x2.add(i64x2.extend_low_i32x4_s(i32x4.trunc_sat_f64x2_s_zero(n)), quarter);
  const place = f.let('place', turn);
  const isOdd = i64x2.eq(v128.and(place, lanes64(1n)), lanes64(1n));
  const size = pick(isOdd, cosine, sine);
  return f.let('wave', v128.xor(size, i64x2.shl(v128.and(place, lanes64(2n)), 62)));
}

/** x^y = e^(y ln |x|); for whole y with the sign of its parity, for other y NaN below zero. */
function power(f: FunctionBuilder, x: Local, y: Local): Expr {
  const size = exp(f, f64x2.mul(y, log(f, f64x2.abs(x))));
  const isWhole = f.let('isWhole', f64x2.eq(f64x2.nearest(y), y));
  const halfOfY = f.let('halfOfY', f64x2.mul(y, 0.5));
  const isOdd = v128.and(isWhole, f64x2.ne(f64x2.nearest(halfOfY), halfOfY));
  const signed = f.let('signed', v128.or(size, v128.and(signOf(x), isOdd)));
  const isBelowZero = v128.and(f64x2.lt(x, 0), f64x2.gt(x, Number.NEGATIVE_INFINITY));
  const isUndefined = v128.and(isBelowZero, v128.not(isWhole));
  return pick(f64x2.eq(y, 0), double(1), pick(isUndefined, double(Number.NaN), signed));
}

const half = (x: Expr) => f64x2.mul(x, 0.5);
const minusOne = (x: Expr) => f64x2.sub(x, 1);
const sinhOf = (f: FunctionBuilder, x: Local) => {
  const e = exp(f, x);
  return nearZero(f, x, half(f64x2.sub(e, f64x2.div(1, e))), [1 / 6, 0, 1]);
};
const coshOf = (f: FunctionBuilder, x: Local) => {
  const e = exp(f, x);
  return half(f64x2.add(e, f64x2.div(1, e)));
};
const log1pOf = (f: FunctionBuilder, x: Local) => nearZero(f, x, log(f, f64x2.add(x, 1)), [1 / 3, -1 / 2, 1]);
const asinhOf = (f: FunctionBuilder, x: Local) => {
  const size = f.let('size', f64x2.abs(x));
  const sum = f64x2.add(size, f64x2.sqrt(f64x2.add(f64x2.mul(size, size), 1)));
  return nearZero(f, x, v128.or(log(f, sum), signOf(x)), [-1 / 6, 0, 1]);
};
const acoshOf = (f: FunctionBuilder, x: Local) => {
  const root = f64x2.sqrt(minusOne(f64x2.mul(x, x)));
  return pick(f64x2.lt(x, 1), double(Number.NaN), log(f, f64x2.add(x, root)));
};
const softplusOf = (f: FunctionBuilder, x: Local) => {
  const small = exp(f, f64x2.neg(f64x2.abs(x)));
  return f64x2.add(f64x2.max(x, 0), log1pOf(f, small));
};

/** Makers of the functions by name; two arguments for pow and atan2. */
export const preciseMath: Readonly<Record<string, () => FunctionCode>> = {
  expm1: inDoubles('expm1', 1, (f, x) => nearZero(f, x, minusOne(exp(f, x)), [1 / 6, 1 / 2, 1])),
  log1p: inDoubles('log1p', 1, log1pOf),
  sin: inDoubles('sin', 1, (f, x) => wave(f, x, 0)),
  cos: inDoubles('cos', 1, (f, x) => wave(f, x, 1)),
  tan: inDoubles('tan', 1, (f, x) => f64x2.div(wave(f, x, 0), wave(f, x, 1))),
  asin: inDoubles('asin', 1, asin),
  acos: inDoubles('acos', 1, (f, x) => f64x2.sub(Math.PI / 2, asin(f, x))),
  atan: inDoubles('atan', 1, atan),
  atan2: inDoubles('atan2', 2, atan2),
  sinh: inDoubles('sinh', 1, sinhOf),
  cosh: inDoubles('cosh', 1, coshOf),
  asinh: inDoubles('asinh', 1, asinhOf),
  acosh: inDoubles('acosh', 1, acoshOf),
  atanh: inDoubles('atanh', 1, (f, x) => {
    const ratio = f64x2.div(f64x2.add(1, x), f64x2.sub(1, x));
    return nearZero(f, x, half(log(f, ratio)), [1 / 3, 0, 1]);
  }),
  softplus: inDoubles('softplus', 1, softplusOf),
  pow: inDoubles('pow', 2, power),
};
