// lib/jit/targets/wasm/scalars.ts: WebAssembly's instructions on single numbers, as far as the kernels use them.
// Plain numbers stand for constants. Source: WebAssembly core specification 2.0, chapter 5.4.

import {
  asExpr,
  binary,
  type Expr,
  makeExpr,
  makeNode,
  type Node,
  type Operand,
  type Table,
  unary,
  type ValueType,
} from './nodes.js';

export const i32 = {
  ...binary('i32', integerBinary(0x6a)),
  ...binary('i32', integerComparison(0x46)),
  ...unary('i32', { eqz: 0x45 }),
  ...unary('i32', { clz: 0x67, ctz: 0x68, popcnt: 0x69 }),
  ...unary('i32', { wrap_i64: 0xa7 }, 'i32', ['i64']),
  ...unary('i32', { trunc_f32_s: 0xa8 }, 'i32', ['f32']),
  ...unary('i32', { reinterpret_f32: 0xbc }, 'i32', ['f32']),
  trunc_sat_f32_s: (value: Operand) =>
    makeExpr('i32.trunc_sat_f32_s', 'i32', [0xfc, 0], [asExpr(value, 'f32')]),
};

export const i64 = {
  ...binary('i64', integerBinary(0x7c)),
  ...binary('i64', integerComparison(0x51), 'i32'),
  ...unary('i64', { extend_i32_s: 0xac, extend_i32_u: 0xad }, 'i64', ['i32']),
};

type IntegerBinary =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div_s'
  | 'div_u'
  | 'rem_s'
  | 'rem_u'
  | 'and'
  | 'or'
  | 'xor'
  | 'shl'
  | 'shr_s'
  | 'shr_u'
  | 'rotl'
  | 'rotr';
type IntegerComparison = 'eq' | 'ne' | 'lt_s' | 'lt_u' | 'gt_s' | 'gt_u' | 'le_s' | 'le_u' | 'ge_s' | 'ge_u';

/** The fifteen integer operations stand in one order for both widths. */
function integerBinary(first: number): Table<IntegerBinary> {
  const names: readonly IntegerBinary[] = [
    'add',
    'sub',
    'mul',
    'div_s',
    'div_u',
    'rem_s',
    'rem_u',
    'and',
    'or',
    'xor',
    'shl',
    'shr_s',
    'shr_u',
    'rotl',
    'rotr',
  ];
  return numbered(names, first);
}

function integerComparison(first: number): Table<IntegerComparison> {
  return numbered(['eq', 'ne', 'lt_s', 'lt_u', 'gt_s', 'gt_u', 'le_s', 'le_u', 'ge_s', 'ge_u'], first);
}

export function numbered<Name extends string>(names: readonly Name[], first: number): Table<Name> {
  return Object.fromEntries(names.map((name, i) => [name, first + i])) as Table<Name>;
}

export type FloatComparison = 'eq' | 'ne' | 'lt' | 'gt' | 'le' | 'ge';
type FloatBinary = 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max' | 'copysign';
type FloatUnary = 'abs' | 'neg' | 'ceil' | 'floor' | 'trunc' | 'nearest' | 'sqrt';
export const floatComparisons: readonly FloatComparison[] = ['eq', 'ne', 'lt', 'gt', 'le', 'ge'];
const floatBinaries: readonly FloatBinary[] = ['add', 'sub', 'mul', 'div', 'min', 'max', 'copysign'];
const floatUnaries: readonly FloatUnary[] = ['abs', 'neg', 'ceil', 'floor', 'trunc', 'nearest', 'sqrt'];

export const f32 = {
  ...unary('f32', numbered(floatUnaries, 0x8b)),
  ...binary('f32', numbered(floatBinaries, 0x92)),
  ...binary('f32', numbered(floatComparisons, 0x5b), 'i32'),
  ...unary('f32', { convert_i32_s: 0xb2, convert_i32_u: 0xb3 }, 'f32', ['i32']),
  ...unary('f32', { reinterpret_i32: 0xbe }, 'f32', ['i32']),
  ...unary('f32', { demote_f64: 0xb6 }, 'f32', ['f64']),
};

export const f64 = {
  ...unary('f64', numbered(floatUnaries, 0x99)),
  ...binary('f64', numbered(floatBinaries, 0xa0)),
  ...binary('f64', numbered(floatComparisons, 0x61), 'i32'),
  ...unary('f64', { promote_f32: 0xbb }, 'f64', ['f32']),
  ...unary('f64', { convert_i32_s: 0xb7 }, 'f64', ['i32']),
};

/** Evaluates and forgets: as a statement, a load only brings its cache line in. */
export const drop = (value: Expr): Node => makeNode('drop', undefined, [0x1a], [value]);

/** `a` where the condition is not zero, else `b`; both are evaluated. */
export const select = (a: Operand, b: Operand, condition: Expr, type: ValueType): Expr =>
  makeExpr('select', type, [0x1b], [asExpr(a, type), asExpr(b, type), condition]);
