// lib/jit/targets/wasm/program.ts: a Program (graph.ts) -> the code of four elements at a time.
// In registers a bool is a mask, all bits of its lane; in memory it is an int32 0 or 1.

import type { BinaryOp, ElementType, Program, ScalarOp, UnaryOp } from '../../graph.js';
import { isBinary, isUnary } from '../../graph.js';
import type { FunctionBuilder } from './builder.js';
import type { KernelContext } from './context.js';
import { constant, type Expr } from './nodes.js';
import { f32, f64, i32, select } from './scalars.js';
import { f32x4, i32x4, v128 } from './vectors.js';

/** A vector of four elements and how to read it. */
interface Register {
  readonly value: Expr;
  readonly dtype: ElementType;
  /** The literal that it is, if it is one. */
  readonly literal?: number;
}

/**
 * Emits a program.
 * @param input the four elements of an input, as they lie in memory
 * @returns the result as it goes into memory
 */
export function emitProgram(
  context: KernelContext,
  f: FunctionBuilder,
  program: Program,
  input: (index: number) => Expr,
): Expr {
  const registers: Register[] = [];
  const emitter = new Emitter(context, f);
  for (const instruction of program) {
    const { dtype } = instruction;
    if (instruction.op === 'Input') {
      registers.push({ value: f.let('in', fromMemory(input(instruction.index), dtype)), dtype });
    } else if (instruction.op === 'Literal') {
      registers.push({ value: literal(instruction.value, dtype), dtype, literal: instruction.value });
    } else {
      const args = instruction.args.map((at) => registers[at]!);
      registers.push({ value: f.let('r', emitter.emit(instruction.op, args, dtype)), dtype });
    }
  }
  const result = registers.at(-1)!;
  return toMemory(result.value, result.dtype);
}

const fromMemory = (value: Expr, dtype: ElementType) => (dtype === 'bool' ? i32x4.ne(value, 0) : value);
const toMemory = (value: Expr, dtype: ElementType) => (dtype === 'bool' ? v128.and(value, 1) : value);

function literal(value: number, dtype: ElementType): Expr {
  if (dtype === 'f32') return constant('f32x4', value);
  return constant('i32x4', dtype === 'bool' ? -Number(value !== 0) : value);
}

class Emitter {
  constructor(
    private readonly context: KernelContext,
    private readonly f: FunctionBuilder,
  ) {}

  emit(op: ScalarOp, args: readonly Register[], dtype: ElementType): Expr {
    const [a, b, c] = args as readonly [Register, Register, Register];
    if (op === 'Select') return v128.bitselect(b.value, c.value, a.value);
    if (op === 'Cast') return cast(a, dtype);
    if (isUnary(op)) return a.dtype === 'f32' ? this.floatUnary(op, a.value) : this.integerUnary(op, a);
    if (isBinary(op))
      return a.dtype === 'f32' ? this.floatBinary(op, a.value, b.value) : this.integerBinary(op, a, b);
    throw new Error(`wasm: no code for ${op satisfies never}`);
  }

  private floatUnary(op: Exclude<UnaryOp, 'Cast'>, x: Expr): Expr {
    switch (op) {
      case 'Neg':
        return f32x4.neg(x);
      case 'Abs':
        return f32x4.abs(x);
      case 'Sign': {
        const isSigned = v128.or(f32x4.lt(x, 0), f32x4.gt(x, 0));
        return v128.and(v128.or(v128.and(x, 0x80000000), f32x4.splat(1)), isSigned); // 0 for NaN, as tfjs has it
      }
      case 'Floor':
        return f32x4.floor(x);
      case 'Ceil':
        return f32x4.ceil(x);
      case 'Round':
        return f32x4.nearest(x);
      case 'Sqrt':
        return f32x4.sqrt(x);
      case 'Rsqrt':
        return f32x4.div(1, f32x4.sqrt(x));
      case 'IsNan':
        return f32x4.ne(x, x);
      case 'IsInf':
        return f32x4.eq(f32x4.abs(x), Number.POSITIVE_INFINITY);
      case 'IsFinite':
        return f32x4.lt(f32x4.abs(x), Number.POSITIVE_INFINITY);
      case 'Not':
        return f32x4.eq(x, 0);
      default:
        return this.context.math(op.toLowerCase(), x);
    }
  }

  private integerUnary(op: Exclude<UnaryOp, 'Cast'>, { value, dtype }: Register): Expr {
    if (op === 'Not') return dtype === 'bool' ? v128.not(value) : i32x4.eq(value, 0);
    if (op === 'Neg') return i32x4.neg(value);
    if (op === 'Abs') return i32x4.abs(value);
    if (op === 'Sign') return i32x4.sub(i32x4.lt_s(value, 0), i32x4.gt_s(value, 0));
    if (op === 'Floor' || op === 'Ceil' || op === 'Round') return value;
    if (op === 'IsNan' || op === 'IsInf') return constant('i32x4', 0);
    if (op === 'IsFinite') return constant('i32x4', -1);
    // The rest means nothing to integers: the float32 result, cut off.
    return i32x4.trunc_sat_f32x4_s(this.floatUnary(op, f32x4.convert_i32x4_s(value)));
  }

  private floatBinary(op: BinaryOp, a: Expr, b: Expr): Expr {
    switch (op) {
      case 'Add':
        return f32x4.add(a, b);
      case 'Sub':
        return f32x4.sub(a, b);
      case 'Mul':
        return f32x4.mul(a, b);
      case 'Div':
        return f32x4.div(a, b);
      case 'FloorDiv':
        return this.lanes('floatFloorDiv', a, b);
      case 'Mod':
        return this.lanes('remainder', a, b);
      case 'Pow':
      case 'Atan2':
        return this.context.math(op.toLowerCase(), a, b);
      case 'Max':
        return f32x4.max(a, b);
      case 'Min':
        return f32x4.min(a, b);
      case 'Equal':
        return f32x4.eq(a, b);
      case 'NotEqual':
        return f32x4.ne(a, b);
      case 'Less':
        return f32x4.lt(a, b);
      case 'LessEqual':
        return f32x4.le(a, b);
      case 'Greater':
        return f32x4.gt(a, b);
      case 'GreaterEqual':
        return f32x4.ge(a, b);
      default:
        throw new Error(`wasm: ${op} is not defined for f32`);
    }
  }

  private integerBinary(op: BinaryOp, left: Register, right: Register): Expr {
    const [a, b] = [left.value, right.value];
    switch (op) {
      case 'Add':
        return i32x4.add(a, b);
      case 'Sub':
        return i32x4.sub(a, b);
      case 'Mul':
        return i32x4.mul(a, b);
      case 'Max':
        return i32x4.max_s(a, b);
      case 'Min':
        return i32x4.min_s(a, b);
      case 'Div':
      case 'FloorDiv':
        return this.lanes('floorDiv', a, b);
      case 'Mod':
        return this.lanes('modulo', a, b);
      case 'Pow':
        return this.lanes('integerPower', a, b);
      case 'Equal':
        return i32x4.eq(a, b);
      case 'NotEqual':
        return i32x4.ne(a, b);
      case 'Less':
        return i32x4.lt_s(a, b);
      case 'LessEqual':
        return i32x4.le_s(a, b);
      case 'Greater':
        return i32x4.gt_s(a, b);
      case 'GreaterEqual':
        return i32x4.ge_s(a, b);
      case 'And':
      case 'BitAnd':
        return v128.and(a, b);
      case 'Or':
      case 'BitOr':
        return v128.or(a, b);
      case 'BitXor':
        return v128.xor(a, b);
      case 'ShiftLeft':
      case 'ShiftRightLogical':
        return this.shift(op, a, right);
      case 'Atan2':
        throw new Error(`wasm: ${op} is not defined for ${left.dtype}`);
    }
  }

  /** Vectors shift all lanes by one count; lanes with counts of their own go one by one. */
  private shift(op: 'ShiftLeft' | 'ShiftRightLogical', a: Expr, count: Register): Expr {
    const shift = op === 'ShiftLeft' ? i32x4.shl : i32x4.shr_u;
    if (count.literal !== undefined) return shift(a, count.literal & 31);
    return this.lanes(op === 'ShiftLeft' ? 'shiftLeft' : 'shiftRight', a, count.value);
  }

  /** What WebAssembly has for scalars only. */
  private lanes(name: keyof typeof scalarFunctions, a: Expr, b: Expr): Expr {
    const isFloat = name === 'remainder' || name === 'floatFloorDiv';
    const lane = (vector: Expr, i: number) => (isFloat ? f32x4.extractLane : i32x4.extractLane)(vector, i);
    const [x, y] = [this.f.let('x', a), this.f.let('y', b)];
    let result: Expr = constant('i32x4', 0);
    for (const i of [0, 1, 2, 3]) {
      const value = scalarFunctions[name](this.f, lane(x, i), lane(y, i));
      result = i32x4.replaceLane(result, i, value);
    }
    return result;
  }
}

/** Integer division by zero gives 0, as tfjs stores it, instead of a trap. */
const scalarFunctions = {
  floorDiv: (f: FunctionBuilder, left: Expr, right: Expr): Expr => {
    const { a, b, quotient } = divide(f, left, right);
    const rest = i32.sub(a, i32.mul(quotient, b));
    const isBelow = i32.and(i32.ne(rest, 0), i32.lt_s(i32.xor(a, b), 0));
    return select(i32.sub(quotient, isBelow), 0, i32.ne(b, 0), 'i32');
  },
  modulo: (f: FunctionBuilder, left: Expr, right: Expr): Expr => {
    const { a, b, quotient } = divide(f, left, right);
    const rest = f.let('rest', i32.sub(a, i32.mul(quotient, b)));
    const isOther = i32.and(i32.ne(rest, 0), i32.lt_s(i32.xor(rest, b), 0));
    return select(i32.add(rest, select(b, 0, isOther, 'i32')), 0, i32.ne(b, 0), 'i32');
  },
  integerPower: (f: FunctionBuilder, left: Expr, right: Expr): Expr => {
    const [base, exponent] = [f.let('base', left), f.let('exponent', right)];
    const result = f.local('i32', 'result');
    f.set(result, 1);
    f.when(i32.gt_s(exponent, 0), () =>
      f.repeat(() => {
        f.when(i32.and(exponent, 1), () => f.set(result, i32.mul(result, base)));
        f.set(base, i32.mul(base, base));
        f.set(exponent, i32.shr_u(exponent, 1));
        return exponent;
      }),
    );
    return result;
  },
  shiftLeft: (_: FunctionBuilder, a: Expr, b: Expr): Expr => i32.shl(a, b),
  shiftRight: (_: FunctionBuilder, a: Expr, b: Expr): Expr => i32.shr_u(a, b),
  /** In float64, where the quotient of two float32 is never rounded up to a whole number; its bits as an int32. */
  floatFloorDiv: (_: FunctionBuilder, left: Expr, right: Expr): Expr => {
    const quotient = f64.div(f64.promote_f32(left), f64.promote_f32(right));
    return i32.reinterpret_f32(f32.demote_f64(f64.floor(quotient)));
  },
  /** The exact rest of a / b with the sign of b; a float64 holds all steps. Its bits as an int32. */
  remainder: (f: FunctionBuilder, left: Expr, right: Expr): Expr => {
    const [a, b] = [f.let('a', f64.promote_f32(left)), f.let('b', f64.promote_f32(right))];
    const whole = f.let('whole', f64.trunc(f64.div(a, b)));
    // Nothing to take off where b is larger, even an infinite b.
    const rest = f.let('rest', f64.sub(a, select(0, f64.mul(whole, b), f64.eq(whole, 0), 'f64')));
    const isOther = i32.and(f64.ne(rest, 0), i32.ne(f64.lt(a, 0), f64.lt(b, 0)));
    return i32.reinterpret_f32(f32.demote_f64(select(f64.add(rest, b), rest, isOther, 'f64')));
  },
};

/** Quotient cut off toward zero; the divisors that trap (0, and -1 of the least integer) are set aside. */
function divide(f: FunctionBuilder, left: Expr, right: Expr) {
  const [a, b] = [f.let('a', left), f.let('b', right)];
  const isPlain = i32.gt_u(i32.add(b, 1), 1);
  const quotient = f.let('quotient', i32.div_s(a, select(b, 1, isPlain, 'i32')));
  f.set(quotient, select(i32.sub(0, a), quotient, i32.eq(b, -1), 'i32'));
  return { a, b, quotient };
}

function cast(from: Register, dtype: ElementType): Expr {
  if (from.dtype === dtype) return from.value;
  if (dtype === 'bool') return from.dtype === 'f32' ? f32x4.ne(from.value, 0) : i32x4.ne(from.value, 0);
  if (from.dtype === 'bool') return v128.and(from.value, dtype === 'f32' ? f32x4.splat(1) : 1);
  return dtype === 'f32' ? f32x4.convert_i32x4_s(from.value) : i32x4.trunc_sat_f32x4_s(from.value);
}
