// lib/jit/lower/elementwise.ts: tfjs kernels that work element by element -> scalar Nodes. Types as in tfjs: most
// keep the type of their input, and an int32 result of a float formula is cut to an integer.

import type {
  CastAttrs,
  ClipByValueAttrs,
  FusedBatchNormAttrs,
  LeakyReluAttrs,
  StepAttrs,
} from '@tensorflow/tfjs-core';
import type { GraphBuilder } from '../build.js';
import type { BinaryOp, UnaryOp, Value } from '../graph.js';
import type { LoweringTable } from './lowering.js';
import { elementType, lowering, upcast } from './lowering.js';

// Klambauer et al. 2017, arXiv:1706.02515; the constants are tfjs's.
const SELU_SCALE_ALPHA = 1.7580993408473768;
const SELU_SCALE = 1.0507009873554805;

/** Both operands in the type that holds them. */
function matched(b: GraphBuilder, x: Value, y: Value): [Value, Value] {
  const dtype = upcast(x.dtype, y.dtype);
  return [b.cast(x, dtype), b.cast(y, dtype)];
}

/** Runs `make` on numbers: bools become i32 before and bools again after. */
function onNumbers(b: GraphBuilder, operands: readonly Value[], make: (values: Value[]) => Value): Value {
  if (operands[0]!.dtype !== 'bool') return make([...operands]);
  return b.cast(make(operands.map((each) => b.cast(each, 'i32'))), 'bool');
}

function arithmetic(op: BinaryOp) {
  return lowering((b, { a, b: other }) =>
    onNumbers(b, matched(b, a, other), ([x, y]) => b.binary(op, x!, y!)),
  );
}

function comparison(op: BinaryOp) {
  return lowering((b, { a, b: other }) => {
    const [x, y] = matched(b, a, other);
    return x.dtype === 'bool' ? b.binary(op, b.cast(x, 'i32'), b.cast(y, 'i32')) : b.binary(op, x, y);
  });
}

function logical(op: BinaryOp) {
  return lowering((b, { a, b: other }) => b.binary(op, b.cast(a, 'bool'), b.cast(other, 'bool')));
}

/** A formula over f32; the result goes back to the input's type unless tfjs always gives float32. */
function onFloats(make: (b: GraphBuilder, x: Value, attrs: unknown) => Value, alwaysFloat = false) {
  return lowering((b, { x }, attrs) => {
    const result = make(b, b.cast(x, 'f32'), attrs);
    return alwaysFloat || result.dtype === 'bool' ? result : b.cast(result, x.dtype);
  });
}

function floatUnary(op: Exclude<UnaryOp, 'Cast'>, alwaysFloat = false) {
  return onFloats((b, x) => b.unary(op, x), alwaysFloat);
}

/** Keeps i32 exact. */
function exactUnary(op: 'Neg' | 'Abs' | 'Sign') {
  return lowering((b, { x }) => onNumbers(b, [x], ([value]) => b.unary(op, value!)));
}

function whole(op: 'Floor' | 'Ceil' | 'Round') {
  return lowering((b, { x }) => (x.dtype === 'f32' ? b.unary(op, x) : x));
}

function squaredDifference(b: GraphBuilder, x: Value, y: Value): Value {
  const difference = b.binary('Sub', x, y);
  return b.binary('Mul', difference, difference);
}

function elu(b: GraphBuilder, x: Value): Value {
  return b.select(b.binary('GreaterEqual', x, 0), x, b.binary('Sub', b.unary('Exp', x), 1));
}

function selu(b: GraphBuilder, x: Value): Value {
  const below = b.binary('Mul', b.binary('Sub', b.unary('Exp', x), 1), SELU_SCALE_ALPHA);
  return b.select(b.binary('GreaterEqual', x, 0), b.binary('Mul', x, SELU_SCALE), below);
}

function leaky(b: GraphBuilder, x: Value, slope: Value): Value {
  return b.select(b.binary('Less', x, 0), b.binary('Mul', x, slope), x);
}

/** max(x, low) and min(x, high) as tfjs's kernels do it. */
export function clip(b: GraphBuilder, x: Value, low: number, high: number): Value {
  return b.binary('Min', b.binary('Max', x, low), high);
}

/** Activation that tfjs's fused kernels apply, by tfjs's name. */
export function activate(
  b: GraphBuilder,
  x: Value,
  name: string,
  leakySlope: number | undefined,
  preluSlope: Value | undefined,
): Value {
  switch (name) {
    case 'linear':
      return x;
    case 'relu':
      return b.binary('Max', x, 0);
    case 'relu6':
      return clip(b, x, 0, 6);
    case 'elu':
      return elu(b, x);
    case 'sigmoid':
      return b.unary('Sigmoid', x);
    case 'leakyrelu':
      return leaky(b, x, b.literal(leakySlope ?? 0.2));
    case 'prelu':
      return leaky(b, x, preluSlope!);
    default:
      throw new Error(`activation: ${name} has no lowering`);
  }
}

export const elementwise: LoweringTable = {
  Add: arithmetic('Add'),
  AddN: lowering((b, { all }) => all.reduce((sum, each) => b.binary('Add', sum, each))),
  Sub: arithmetic('Sub'),
  Multiply: arithmetic('Mul'),
  Maximum: arithmetic('Max'),
  Minimum: arithmetic('Min'),
  Mod: arithmetic('Mod'),
  Pow: arithmetic('Pow'),
  SquaredDifference: lowering((b, { a, b: other }) => {
    return onNumbers(b, matched(b, a, other), ([x, y]) => squaredDifference(b, x!, y!));
  }),
  RealDiv: lowering((b, { a, b: other }) => {
    const dtype = upcast(a.dtype, other.dtype);
    return b.cast(b.binary('Div', b.cast(a, 'f32'), b.cast(other, 'f32')), dtype);
  }),
  DivNoNan: lowering((b, { a, b: other }) => b.binary('Div', a, other)),
  FloorDiv: lowering((b, { a, b: other }) => {
    const [x, y] = matched(b, a, other);
    return b.cast(x.dtype === 'bool' ? x : b.binary('FloorDiv', x, y), 'i32');
  }),
  Atan2: lowering((b, { a, b: other }) => {
    const dtype = upcast(a.dtype, other.dtype);
    return b.cast(b.binary('Atan2', b.cast(a, 'f32'), b.cast(other, 'f32')), dtype);
  }),
  Equal: comparison('Equal'),
  NotEqual: comparison('NotEqual'),
  Less: comparison('Less'),
  LessEqual: comparison('LessEqual'),
  Greater: comparison('Greater'),
  GreaterEqual: comparison('GreaterEqual'),
  LogicalAnd: logical('And'),
  LogicalOr: logical('Or'),
  LogicalXor: logical('NotEqual'),
  LogicalNot: lowering((b, { x }) => b.unary('Not', b.cast(x, 'bool'))),
  BitwiseAnd: lowering((b, { a, b: other }) => b.binary('BitAnd', a, other)),
  Select: lowering((b, { condition, t, e }) => {
    const dtype = upcast(t.dtype, e.dtype);
    const missing = condition.shape.length === 1 ? t.shape.length - 1 : 0; // a list of rows to choose from
    const flags = b.reshape(condition, [...condition.shape, ...new Array<number>(missing).fill(1)]);
    return b.select(b.cast(flags, 'bool'), b.cast(t, dtype), b.cast(e, dtype));
  }),
  Cast: lowering<CastAttrs>((b, { x }, { dtype }) => b.cast(x, elementType(dtype))),
  Identity: lowering((_, { x }) => x),
  Neg: exactUnary('Neg'),
  Abs: exactUnary('Abs'),
  Sign: exactUnary('Sign'),
  Square: lowering((b, { x }) => onNumbers(b, [x], ([value]) => b.binary('Mul', value!, value!))),
  Floor: whole('Floor'),
  Ceil: whole('Ceil'),
  Round: whole('Round'),
  Exp: floatUnary('Exp', true),
  Expm1: floatUnary('Expm1'),
  Log: floatUnary('Log'),
  Log1p: floatUnary('Log1p'),
  Sqrt: floatUnary('Sqrt'),
  Rsqrt: floatUnary('Rsqrt'),
  Reciprocal: onFloats((b, x) => b.binary('Div', b.literal(1), x)),
  Sin: floatUnary('Sin'),
  Cos: floatUnary('Cos'),
  Tan: floatUnary('Tan'),
  Asin: floatUnary('Asin'),
  Acos: floatUnary('Acos'),
  Atan: floatUnary('Atan'),
  Sinh: floatUnary('Sinh'),
  Cosh: floatUnary('Cosh'),
  Tanh: floatUnary('Tanh'),
  Asinh: floatUnary('Asinh'),
  Acosh: floatUnary('Acosh'),
  Atanh: floatUnary('Atanh'),
  Erf: floatUnary('Erf'),
  Sigmoid: floatUnary('Sigmoid'),
  Softplus: floatUnary('Softplus'),
  IsNan: floatUnary('IsNan'),
  IsInf: floatUnary('IsInf'),
  IsFinite: floatUnary('IsFinite'),
  Relu: lowering((b, { x }) => onNumbers(b, [x], ([value]) => b.binary('Max', value!, 0))),
  Relu6: lowering((b, { x }) => onNumbers(b, [x], ([value]) => clip(b, value!, 0, 6))),
  Elu: onFloats(elu),
  Selu: onFloats(selu),
  LeakyRelu: lowering<LeakyReluAttrs>((b, { x }, { alpha }) => leaky(b, x, b.literal(alpha))),
  Prelu: lowering((b, { x, alpha }) => leaky(b, x, alpha)),
  Step: onFloats((b, x, attrs) => {
    const { alpha } = attrs as StepAttrs;
    const step = b.select(b.binary('Greater', x, 0), b.literal(1), b.literal(alpha));
    return b.select(b.unary('IsNan', x), x, step);
  }),
  ClipByValue: lowering<ClipByValueAttrs>((b, { x }, { clipValueMin, clipValueMax }) => {
    return clip(b, x, clipValueMin, clipValueMax);
  }),
  FusedBatchNorm: lowering<FusedBatchNormAttrs>((b, inputs, { varianceEpsilon }) => {
    const { x, mean, variance, offset, scale } = inputs;
    const width = b.unary('Sqrt', b.binary('Add', variance, varianceEpsilon));
    const centred = b.binary('Sub', x, mean);
    const normal = b.binary('Div', scale ? b.binary('Mul', centred, scale) : centred, width);
    return offset ? b.binary('Add', normal, offset) : normal;
  }),
};
