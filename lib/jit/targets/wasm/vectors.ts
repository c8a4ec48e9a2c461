// lib/jit/targets/wasm/vectors.ts: WebAssembly's instructions on vectors of 128 bits, as far as the kernels use them.
// A plain number stands for a constant in every lane. Source: WebAssembly core specification 2.0, chapter 5.4.8.

import { asExpr, binary, type Expr, lane, makeExpr, type Operand, splat, ternary, unary } from './nodes.js';
import { floatComparisons, numbered } from './scalars.js';

export const v128 = {
  ...binary('v128', { and: 78, andnot: 79, or: 80, xor: 81 }),
  ...unary('v128', { not: 77 }),
  ...unary('v128', { any_true: 83 }, 'i32'),
  /** Lane by lane: bits of `a` where the mask is 1, of `b` where it is 0. */
  ...ternary('v128', { bitselect: 82 }),
};

export const i8x16 = {
  ...binary('i8x16', { add: 110, sub: 113, swizzle: 14, eq: 35, narrow_i16x8_s: 101 }),
  ...binary('i8x16', { shl: 107, shr_s: 108, shr_u: 109 }, 'v128', ['i8x16', 'i32']),
  /** The 16 bytes chosen from the 32 of both operands. */
  shuffle: (a: Expr, b: Expr, lanes: readonly number[]) =>
    makeExpr('i8x16.shuffle', 'v128', [0xfd, 13], [a, b], { kind: 'bytes', bytes: lanes }),
  splat: splat('i8x16', 15, 'i32'),
};

export const i16x8 = {
  ...binary('i16x8', {
    add: 142,
    sub: 145,
    mul: 149,
    eq: 45,
    narrow_i32x4_s: 133,
  }),
  ...unary('i16x8', {
    extend_low_i8x16_s: 135,
    extend_high_i8x16_s: 136,
    extend_low_i8x16_u: 137,
    extend_high_i8x16_u: 138,
  }),
  ...binary('i16x8', { shl: 139, shr_s: 140, shr_u: 141 }, 'v128', ['i16x8', 'i32']),
  splat: splat('i16x8', 16, 'i32'),
};

export const i32x4 = {
  ...binary('i32x4', {
    add: 174,
    sub: 177,
    mul: 181,
    min_s: 182,
    max_s: 184,
    dot_i16x8_s: 186,
    eq: 55,
    ne: 56,
    lt_s: 57,
    gt_s: 59,
    gt_u: 60,
    le_s: 61,
    ge_s: 63,
  }),
  ...unary('i32x4', {
    abs: 160,
    neg: 161,
    trunc_sat_f32x4_s: 248,
    trunc_sat_f64x2_s_zero: 252,
    extend_low_i16x8_s: 167,
    extend_high_i16x8_s: 168,
  }),
  ...unary('i32x4', {
    extend_low_i16x8_u: 169,
    extend_high_i16x8_u: 170,
  }),
  ...binary('i32x4', { shl: 171, shr_s: 172, shr_u: 173 }, 'v128', ['i32x4', 'i32']),
  splat: splat('i32x4', 17, 'i32'),
  extractLane: lane('i32x4.extract_lane', 27, 'i32'),
  replaceLane: (vector: Expr, index: number, value: Operand) =>
    makeExpr('i32x4.replace_lane', 'v128', [0xfd, 28], [vector, asExpr(value, 'i32')], {
      kind: 'byte',
      value: index,
    }),
};

export const f32x4 = {
  ...binary('f32x4', numbered(floatComparisons, 65)),
  ...binary('f32x4', {
    add: 228,
    sub: 229,
    mul: 230,
    div: 231,
    min: 232,
    max: 233,
    pmin: 234,
    pmax: 235,
  }),
  ...unary('f32x4', {
    abs: 224,
    neg: 225,
    sqrt: 227,
    ceil: 103,
    floor: 104,
    trunc: 105,
    nearest: 106,
    convert_i32x4_s: 250,
  }),
  ...unary('f32x4', { demote_f64x2_zero: 94 }),
  /** a * b + c, rounded once where the processor can: part of relaxed SIMD, see multiplyAdd.ts. */
  ...ternary('f32x4', { relaxed_madd: 261 }),
  splat: splat('f32x4', 19, 'f32'),
  extractLane: lane('f32x4.extract_lane', 31, 'f32'),
};

export const f64x2 = {
  ...binary('f64x2', numbered(floatComparisons, 71)),
  ...binary('f64x2', {
    add: 240,
    sub: 241,
    mul: 242,
    div: 243,
    min: 244,
    max: 245,
  }),
  ...unary('f64x2', {
    abs: 236,
    neg: 237,
    sqrt: 239,
    floor: 117,
    nearest: 148,
  }),
  ...unary('f64x2', {
    promote_low_f32x4: 95,
    convert_low_i32x4_s: 254,
  }),
};

export const i64x2 = {
  ...binary('i64x2', { add: 206, sub: 209, eq: 214 }),
  ...binary('i64x2', { shl: 203, shr_s: 204, shr_u: 205 }, 'v128', ['i64x2', 'i32']),
  ...unary('i64x2', { extend_low_i32x4_s: 199 }),
};
