// lib/jit/scalar.ts: what scalar operations mean: on JavaScript numbers, each result rounded to its type. Slow and
// plain: the reference target computes with it, and passes fold constants.

import type { ElementType, Program, ScalarOp } from './graph.js';

type Scalar = (a: number, b: number, c: number) => number;

const flag = (condition: boolean): number => (condition ? 1 : 0);

const floats: Readonly<Record<Exclude<ScalarOp, 'Cast'>, Scalar>> = {
  Neg: (a) => -a,
  Abs: Math.abs,
  Sign: (a) => (a > 0 ? 1 : a < 0 ? -1 : 0),
  Floor: Math.floor,
  Ceil: Math.ceil,
  Round: roundHalfEven,
  Sqrt: Math.sqrt,
  Rsqrt: (a) => 1 / Math.sqrt(a),
  Exp: Math.exp,
  Expm1: Math.expm1,
  Log: Math.log,
  Log1p: Math.log1p,
  Sin: Math.sin,
  Cos: Math.cos,
  Tan: Math.tan,
  Asin: Math.asin,
  Acos: Math.acos,
  Atan: Math.atan,
  Sinh: Math.sinh,
  Cosh: Math.cosh,
  Tanh: Math.tanh,
  Asinh: Math.asinh,
  Acosh: Math.acosh,
  Atanh: Math.atanh,
  Erf: erf,
  Sigmoid: (a) => 1 / (1 + Math.exp(-a)),
  Softplus: (a) => Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a))),
  Not: (a) => flag(a === 0),
  IsNan: (a) => flag(Number.isNaN(a)),
  IsInf: (a) => flag(Math.abs(a) === Number.POSITIVE_INFINITY),
  IsFinite: (a) => flag(Number.isFinite(a)),
  Add: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
  Div: (a, b) => a / b,
  FloorDiv: (a, b) => Math.floor(a / b),
  Mod: modulo,
  Pow: (a, b) => a ** b,
  Max: (a, b) => Math.max(a, b),
  Min: (a, b) => Math.min(a, b),
  Atan2: Math.atan2,
  Equal: (a, b) => flag(a === b),
  NotEqual: (a, b) => flag(a !== b),
  Less: (a, b) => flag(a < b),
  LessEqual: (a, b) => flag(a <= b),
  Greater: (a, b) => flag(a > b),
  GreaterEqual: (a, b) => flag(a >= b),
  And: (a, b) => a & b,
  Or: (a, b) => a | b,
  BitAnd: (a, b) => a & b,
  BitOr: (a, b) => a | b,
  BitXor: (a, b) => a ^ b,
  ShiftLeft: (a, b) => a << b,
  ShiftRightLogical: (a, b) => a >>> b,
  Select: (a, b, c) => (a !== 0 ? b : c),
};

/** Where integers need more than the float formula cut to 32 bits. */
const integers: Partial<Record<ScalarOp, Scalar>> = {
  Mul: Math.imul,
};

/**
 * A scalar operation as a function of numbers.
 * @param input type of the operands (of Select: of what is selected)
 * @param output type that the result is rounded to
 */
export function scalarFunction(op: ScalarOp, input: ElementType, output: ElementType): Scalar {
  if (op === 'Cast') return (a) => convert(a, output);
  const compute = (input === 'f32' ? undefined : integers[op]) ?? floats[op];
  if (output === 'f32') return (a, b, c) => Math.fround(compute(a, b, c));
  return (a, b, c) => compute(a, b, c) | 0;
}

/** A program as a function of its inputs' values at one element. */
export function programFunction(program: Program): (inputs: readonly number[]) => number {
  const registers = new Array<number>(program.length);
  const steps = program.map((instruction): ((inputs: readonly number[]) => number) => {
    if (instruction.op === 'Input') return (inputs) => inputs[instruction.index]!;
    if (instruction.op === 'Literal') {
      const value = convert(instruction.value, instruction.dtype);
      return () => value;
    }
    const { op, args, dtype } = instruction;
    const compute = scalarFunction(op, program[args.at(-1)!]!.dtype, dtype);
    const [first, second, third] = args as [number, number, number];
    return () => compute(registers[first]!, registers[second]!, registers[third]!);
  });
  return (inputs) => {
    for (let at = 0; at < steps.length; at++) registers[at] = steps[at]!(inputs);
    return registers[steps.length - 1]!;
  };
}

/** Cast: to i32 toward zero, at the ends of the range held there; NaN is 0. */
export function convert(value: number, to: ElementType): number {
  if (to === 'f32') return Math.fround(value);
  if (to === 'bool') return flag(value !== 0);
  return Math.min(Math.max(Math.trunc(value) || 0, -(2 ** 31)), 2 ** 31 - 1);
}

function roundHalfEven(a: number): number {
  const below = Math.floor(a);
  const distance = a - below;
  if (distance !== 0.5) return distance < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The remainder with the divisor's sign, by tfjs's formula. */
function modulo(a: number, b: number): number {
  const remainder = a % b;
  const sameSign = (a < 0 && b < 0) || (a >= 0 && b >= 0);
  return sameSign ? remainder : (remainder + b) % b;
}

/** Error function to double precision. Source: Abramowitz and Stegun 7.1.5 (series), 7.1.14 (continued fraction). */
function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size > 2.5) return Math.sign(x) * (1 - erfcFraction(size));
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= -(x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

function erfcFraction(x: number): number {
  let tail = 0;
  for (let n = 60; n > 0; n--) tail = n / 2 / (x + tail);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + tail);
}
