// lib/jit/targets/wasm/math.ts: exp, log, tanh, sigmoid and erf of four float32 at a time, to about 1e-7 of the value.
// Source: Moshier's Cephes library (expf, logf) for the reductions and the coefficients of logf; the rational
// approximations of tanh and erf are those of XLA and Eigen. math64.ts has the functions that need no speed.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import type { Expr, Operand } from './nodes.js';
import { f32x4, i32x4, v128 } from './vectors.js';

/** Reads a variable's polynomial: ((c0 x + c1) x + c2) ... */
export function horner(
  x: Expr,
  coefficients: readonly number[],
  ops: {
    readonly add: (a: Operand, b: Operand) => Expr;
    readonly mul: (a: Operand, b: Operand) => Expr;
  } = f32x4,
): Expr {
  const [first, ...rest] = coefficients;
  return rest.reduce<Operand>((sum, c) => ops.add(ops.mul(sum, x), c), first!) as Expr;
}

/** Starts a function of one vector. */
function unary(name: string, body: (f: FunctionBuilder, x: Local) => Expr): FunctionCode {
  const f = new FunctionBuilder(name, ['v128']);
  const x = f.param('v128', 'x');
  f.return(body(f, x));
  return f.finish();
}

/** NaN stays NaN. One instruction each, where min and max, careful of zeros and NaN, take several. */
const clamp = (x: Expr, least: number, most: number): Expr => f32x4.pmin(f32x4.pmax(x, least), most);

/** Float32 2^n for whole n in -126..127, from its bits. */
const powerOfTwo = (n: Expr): Expr => i32x4.shl(i32x4.add(n, 127), 23);

/** exp x = 2^n exp r, |r| <= ln 2 / 2; 2^n in two factors, so that subnormal results come out right. */
const exp = (): FunctionCode =>
  unary('exp', (f, input) => {
    const x = f.let('clamped', clamp(input, -104, 89));
    const n = f.let('n', f32x4.nearest(f32x4.mul(x, Math.LOG2E)));
    const high = 0.693359375; // ln 2 in two parts: n times the first is exact
    const low = -2.1219444e-4;
    const r = f.let('r', f32x4.sub(f32x4.sub(x, f32x4.mul(n, high)), f32x4.mul(n, low)));
    const power = f.let('power', i32x4.trunc_sat_f32x4_s(n));
    const half = f.let('half', i32x4.shr_s(power, 1));
    const series = horner(r, [1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1]);
    return f32x4.mul(f32x4.mul(series, powerOfTwo(half)), powerOfTwo(i32x4.sub(power, half)));
  });

/** ln x = n ln 2 + ln m, m in 0.707..1.414. */
const log = (): FunctionCode =>
  unary('log', (f, x) => {
    // A subnormal is scaled up first.
    const isTiny = f.let('isTiny', f32x4.lt(x, 1.17549435e-38));
    const scaled = f.let('scaled', v128.bitselect(f32x4.mul(x, 2 ** 25), x, isTiny));
    // Subtracting the bits of sqrt(1/2) puts the cut between exponents there.
    const shifted = f.let('shifted', i32x4.sub(scaled, 0x3f3504f3));
    const n = f.let('n', f32x4.convert_i32x4_s(i32x4.shr_s(shifted, 23)));
    f.set(n, f32x4.sub(n, v128.and(isTiny, f32x4.splat(25))));
    const m = i32x4.add(v128.and(shifted, 0x7fffff), 0x3f3504f3);
    const t = f.let('t', f32x4.sub(m, 1));
    const square = f.let('square', f32x4.mul(t, t));
    const series = horner(
      t,
      [
        7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
      ],
    );
    const tail = f.let('tail', f32x4.mul(f32x4.mul(t, square), series));
    f.set(tail, f32x4.add(tail, f32x4.mul(n, -2.1219444e-4)));
    f.set(tail, f32x4.sub(tail, f32x4.mul(square, 0.5)));
    const result = f.let('result', f32x4.add(f32x4.add(t, tail), f32x4.mul(n, 0.693359375)));
    // Zero gives -Infinity, what is below gives NaN, Infinity and NaN stay.
    f.set(result, v128.bitselect(f32x4.splat(Number.NEGATIVE_INFINITY), result, f32x4.eq(x, 0)));
    f.set(result, v128.bitselect(f32x4.splat(Number.NaN), result, f32x4.lt(x, 0)));
    const isLarge = v128.not(f32x4.le(x, 3.4028234e38));
    return v128.bitselect(x, result, isLarge);
  });

/** x P(x^2) / Q(x^2) for |x| up to 7.9, where tanh is 1 in float32. By exp GELU took nearly twice as long. */
const tanh = (): FunctionCode =>
  unary('tanh', (f, input) => {
    const x = f.let('clamped', clamp(input, -7.905311107635498, 7.905311107635498));
    const square = f.let('square', f32x4.mul(x, x));
    const above = horner(
      square,
      [
        -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-8,
        1.48572235717979e-5, 6.37261928875436e-4, 4.89352455891786e-3,
      ],
    );
    const below = horner(
      square,
      [1.19825839466702e-6, 1.18534705686654e-4, 2.268434632439e-3, 4.89352518554385e-3],
    );
    return f32x4.div(f32x4.mul(x, above), below);
  });

const sigmoid = (call: MathCall) => (): FunctionCode =>
  unary('sigmoid', (_, x) => f32x4.div(1, f32x4.add(1, call('exp', f32x4.neg(x)))));

/** x P(x^2) / Q(x^2) for |x| up to 4, where erf is 1 in float32. */
const erf = (): FunctionCode =>
  unary('erf', (f, input) => {
    const x = f.let('clamped', clamp(input, -4, 4));
    const square = f.let('square', f32x4.mul(x, x));
    const above = horner(
      square,
      [
        -2.72614225801306e-10, 2.77068142495902e-8, -2.10102402082508e-6, -5.69250639462346e-5,
        -7.34990630326855e-4, -2.95459980854025e-3, -1.60960333262415e-2,
      ],
    );
    const below = horner(
      square,
      [
        -1.45660718464996e-5, -2.13374055278905e-4, -1.68282697438203e-3, -7.37332916720468e-3,
        -1.42647390514189e-2,
      ],
    );
    return f32x4.div(f32x4.mul(x, above), below);
  });

/** A call of one of the vector functions, which the module then contains. */
export type MathCall = (name: string, ...values: Expr[]) => Expr;

/** Makers of the functions by name. */
export function fastMath(call: MathCall): Readonly<Record<string, () => FunctionCode>> {
  return { exp, log, tanh, sigmoid: sigmoid(call), erf };
}
