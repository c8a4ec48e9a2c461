// lib/jit/kernels/scalars.ts: the graph's scalar programs as expressions of a kernel. Source: graph.ts says what each
// operation means, scalar.ts computes the same on JavaScript numbers.

import type { BinaryOp, ElementType, Program, ScalarOp, UnaryOp } from '../graph.js';
import { isUnary } from '../graph.js';
import type { ArrayRef, Statements } from './builder.js';
import { type Expr, literal, type Operand, type Type } from './expression.js';
import * as math from './math.js';

/** Type of an element in memory: a bool is 0 or 1 there. */
export function storedType(dtype: ElementType): Type {
  return dtype === 'f32' ? 'f32' : 'i32';
}

/** An element of an array as a value of its type. */
export function loadElement(array: ArrayRef, index: Operand, dtype: ElementType): Expr {
  const stored = array.at(index);
  return dtype === 'bool' ? stored.ne(0) : stored;
}

/** A value as it is stored. */
export function storedElement(value: Expr): Expr {
  return value.type === 'bool' ? value.to('i32') : value;
}

/** Operations in one another before one is given a name: compilers read no more than some hundred brackets. */
const deepest = 8;

/**
 * Writes a scalar program.
 * @param inputs values of its inputs, bool as bool
 * @returns its result
 */
export function writeProgram(f: Statements, program: Program, inputs: readonly Expr[]): Expr {
  const registers: Expr[] = [];
  const depths: number[] = [];
  const uses = program.map(() => 0);
  for (const instruction of program)
    if ('args' in instruction) for (const arg of instruction.args) uses[arg]! += 1;
  for (const [at, instruction] of program.entries()) {
    let value: Expr;
    if (instruction.op === 'Input') value = inputs[instruction.index]!;
    else if (instruction.op === 'Literal') value = literal(instruction.dtype, instruction.value);
    else {
      const { op, args, dtype } = instruction;
      value = scalarExpr(op, dtype, ...args.map((arg) => registers[arg]!));
    }
    const depth = 'args' in instruction ? 1 + Math.max(...instruction.args.map((arg) => depths[arg]!)) : 0;
    const isPlain = instruction.op === 'Literal' || (uses[at]! < 2 && depth < deepest);
    registers.push(isPlain ? value : f.let('value', value));
    depths.push(isPlain ? depth : 0);
  }
  return registers.at(-1)!;
}

/** One scalar operation. */
export function scalarExpr(op: ScalarOp, dtype: ElementType, ...args: readonly Expr[]): Expr {
  if (op === 'Select') return args[0]!.select(args[1]!, args[2]!);
  if (op === 'Cast') return castExpr(args[0]!, dtype);
  if (isUnary(op)) return args[0]!.type === 'f32' ? floatUnary(op, args[0]!) : integerUnary(op, args[0]!);
  const [a, b] = args as [Expr, Expr];
  return a.type === 'f32' ? floatBinary(op, a, b) : integerBinary(op, a, b);
}

function castExpr(x: Expr, to: ElementType): Expr {
  if (x.type === to) return x;
  if (to === 'bool') return x.ne(0);
  if (to === 'i32') return x.type === 'f32' ? math.truncate(x) : x.to('i32');
  return x.to('f32');
}

type FloatUnary = Exclude<UnaryOp, 'Cast' | 'Not'>;
const floatUnaries: Readonly<Record<FloatUnary, (x: Expr) => Expr>> = {
  Neg: (x) => x.neg(),
  Abs: (x) => x.abs(),
  Sign: math.sign,
  Floor: (x) => x.floor(),
  Ceil: (x) => x.ceil(),
  Round: (x) => x.round(),
  Sqrt: math.sqrt,
  Rsqrt: math.rsqrt,
  Exp: math.exp,
  Expm1: math.expm1,
  Log: math.log,
  Log1p: math.log1p,
  Sin: math.sin,
  Cos: math.cos,
  Tan: math.tan,
  Asin: math.asin,
  Acos: math.acos,
  Atan: math.atan,
  Sinh: math.sinh,
  Cosh: math.cosh,
  Tanh: math.tanh,
  Asinh: math.asinh,
  Acosh: math.acosh,
  Atanh: math.atanh,
  Erf: math.erf,
  Sigmoid: math.sigmoid,
  Softplus: math.softplus,
  IsNan: math.isNan,
  IsInf: math.isInfinite,
  IsFinite: (x) => x.bits('u32').and(0x7fffffff).lt(0x7f800000),
};

function floatUnary(op: UnaryOp, x: Expr): Expr {
  return floatUnaries[op as FloatUnary](x); // Cast was done before, Not takes bool
}

/** On whole numbers Floor and its like change nothing; what only floats have goes through them. */
function integerUnary(op: UnaryOp, x: Expr): Expr {
  if (op === 'Not') return x.type === 'bool' ? x.not() : x.eq(0);
  if (op === 'Neg' || op === 'Abs' || op === 'Sign')
    return x.unary(op.toLowerCase() as 'neg' | 'abs' | 'sign');
  if (op === 'Floor' || op === 'Ceil' || op === 'Round') return x;
  if (op === 'IsNan' || op === 'IsInf') return literal('bool', 0);
  if (op === 'IsFinite') return literal('bool', 1);
  return math.truncate(floatUnary(op, x.to('f32')));
}

const comparisons: Readonly<Partial<Record<BinaryOp, (a: Expr, b: Expr) => Expr>>> = {
  Equal: (a, b) => a.eq(b),
  NotEqual: (a, b) => a.ne(b),
  Less: (a, b) => a.lt(b),
  LessEqual: (a, b) => a.le(b),
  Greater: (a, b) => a.gt(b),
  GreaterEqual: (a, b) => a.ge(b),
};

const floatBinaries: Readonly<Partial<Record<BinaryOp, (a: Expr, b: Expr) => Expr>>> = {
  ...comparisons,
  Add: (a, b) => a.add(b),
  Sub: (a, b) => a.sub(b),
  Mul: (a, b) => a.mul(b),
  Div: (a, b) => a.div(b),
  FloorDiv: math.floorDiv,
  Mod: math.mod,
  Pow: math.pow,
  Max: math.max,
  Min: math.min,
  Atan2: math.atan2,
};

const integerBinaries: Readonly<Partial<Record<BinaryOp, (a: Expr, b: Expr) => Expr>>> = {
  ...comparisons,
  Add: (a, b) => a.add(b),
  Sub: (a, b) => a.sub(b),
  Mul: (a, b) => a.mul(b),
  FloorDiv: math.floorDivInt,
  Mod: math.modInt,
  Pow: math.powInt,
  Max: (a, b) => a.max(b),
  Min: (a, b) => a.min(b),
  And: (a, b) => a.and(b),
  Or: (a, b) => a.or(b),
  BitAnd: (a, b) => a.and(b),
  BitOr: (a, b) => a.or(b),
  BitXor: (a, b) => a.xor(b),
  ShiftLeft: (a, b) => a.shl(b.and(31).to('u32')),
  ShiftRightLogical: (a, b) => a.bits('u32').shr(b.and(31).to('u32')).bits('i32'),
};

const ordered: ReadonlySet<BinaryOp> = new Set<BinaryOp>(['Less', 'LessEqual', 'Greater', 'GreaterEqual']);

function floatBinary(op: BinaryOp, a: Expr, b: Expr): Expr {
  return found(floatBinaries[op], op)(a, b);
}

function integerBinary(op: BinaryOp, a: Expr, b: Expr): Expr {
  const isBool = a.type === 'bool';
  if (isBool && (ordered.has(op) || !(op in comparisons || op === 'And' || op === 'Or')))
    return integerBinary(op, a.to('i32'), b.to('i32'));
  if (op === 'Div' || op === 'Atan2') return math.truncate(floatBinary(op, a.to('f32'), b.to('f32')));
  return found(integerBinaries[op], op)(a, b);
}

function found<T>(value: T | undefined, op: string): T {
  if (value === undefined) throw new TypeError(`${op}: no such operation on these types`);
  return value;
}
