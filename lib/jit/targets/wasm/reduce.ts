// lib/jit/targets/wasm/reduce.ts: Reduce and Cumulative. An axis is reduced across vectors where its elements lie
// side by side, else in the lanes of the elements after it.

import type { Shape } from '../../../tensor.js';
import { sizeOf } from '../../../tensor.js';
import type { ElementType, ReduceKind, StructuredNode } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import { constant, type Expr, lanesOf, type Operand } from './nodes.js';
import { foldRow, maskTail } from './rows.js';
import { f32, f64, i32, select } from './scalars.js';
import { storeLanes } from './strips.js';
import { f32x4, i32x4, v128 } from './vectors.js';

/** Sizes before, of, and after the axes first to last. */
function around(shape: Shape, first: number, last = first): [outer: number, n: number, inner: number] {
  return [sizeOf(shape.slice(0, first)), sizeOf(shape.slice(first, last + 1)), sizeOf(shape.slice(last + 1))];
}

interface Folding {
  readonly start: Expr;
  readonly combine: (held: Expr, value: Expr) => Expr;
  readonly combineScalars: (held: Expr, value: Expr) => Expr;
}

const LEAST = -(2 ** 31);
const GREATEST = 2 ** 31 - 1;
const smaller = (a: Expr, b: Expr) => select(a, b, i32.lt_s(a, b), 'i32');
const larger = (a: Expr, b: Expr) => select(a, b, i32.gt_s(a, b), 'i32');

function foldingOf(kind: Exclude<ReduceKind, 'ArgMax' | 'ArgMin'>, dtype: ElementType): Folding {
  const float = {
    Sum: { start: 0, combine: f32x4.add, combineScalars: f32.add },
    Prod: { start: 1, combine: f32x4.mul, combineScalars: f32.mul },
    Max: { start: Number.NEGATIVE_INFINITY, combine: f32x4.max, combineScalars: f32.max },
    Min: { start: Number.POSITIVE_INFINITY, combine: f32x4.min, combineScalars: f32.min },
  }[kind];
  const integer = {
    Sum: { start: 0, combine: i32x4.add, combineScalars: i32.add },
    Prod: { start: 1, combine: i32x4.mul, combineScalars: i32.mul },
    Max: { start: LEAST, combine: i32x4.max_s, combineScalars: larger },
    Min: { start: GREATEST, combine: i32x4.min_s, combineScalars: smaller },
  }[kind];
  return dtype === 'f32'
    ? { ...float, start: constant('f32x4', float.start) }
    : { ...integer, start: constant('i32x4', integer.start) };
}

export function emitReduce(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Reduce'>;
  const { kind, first, last } = node.attrs;
  const { shape, dtype } = node.inputs[0]!;
  const [outer, n, inner] = around(shape, first, last);
  const { f, begin, end } = context.kernel('reduce');
  const x = f.let('x', context.addresses.place(step.inputs[0]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const unit = f.local('i32', 'unit');
  const columns = Math.ceil(inner / 4); // vectors
  const isArg = kind === 'ArgMax' || kind === 'ArgMin';
  f.loop(unit, begin, end, 1, () => {
    if (inner === 1) {
      const row = f.let('row', i32.add(x, i32.mul(unit, n * 4)));
      const result = isArg
        ? argOfRow(f, row, n, kind, dtype)
        : foldOfRow(f, row, n, foldingOf(kind, dtype), dtype);
      f.do((dtype === 'f32' && !isArg ? stores.f32 : stores.i32)(i32.add(out, i32.shl(unit, 2)), result));
      return;
    }
    const row = f.let('row', i32.div_u(unit, columns));
    const column = f.let('column', i32.shl(i32.rem_u(unit, columns), 4)); // bytes
    const from = f.let('from', i32.add(i32.add(x, i32.mul(row, n * inner * 4)), column));
    const result = f.local('v128', 'result');
    if (isArg) argOfColumns(f, from, n, inner, { kind, dtype }, result);
    else foldColumns(f, from, n, inner, foldingOf(kind, dtype), result);
    const to = i32.add(i32.add(out, i32.mul(row, inner * 4)), column);
    storeLanes(f, to, result, i32.sub(inner * 4, column));
  });
  const units = inner === 1 ? outer : outer * columns;
  return context.finish(f, outer * inner === 0 ? 0 : units);
}

const laneOf = (dtype: ElementType) => (dtype === 'f32' ? f32x4.extractLane : i32x4.extractLane);

function foldOfRow(f: FunctionBuilder, row: Local, n: number, folding: Folding, dtype: ElementType): Expr {
  const held = foldRow(f, row, n, folding.start, folding.combine);
  // The scalar minimum and maximum read their operands twice, so each lane gets a name.
  const folded = f.let('folded', laneOf(dtype)(held, 0));
  for (const i of [1, 2, 3]) {
    const lane = f.let('lane', laneOf(dtype)(held, i));
    f.set(folded, folding.combineScalars(folded, lane));
  }
  return folded;
}

function foldColumns(
  f: FunctionBuilder,
  from: Local,
  n: number,
  inner: number,
  folding: Folding,
  result: Local,
): void {
  const k = f.local('i32', 'k');
  f.set(result, folding.start);
  f.loop(k, 0, n, 1, () => {
    f.set(result, folding.combine(result, loads.v128(from)));
    f.increase(from, inner * 4);
  });
}

// ------------------------------------------------------------------ positions of extremes

interface Extreme {
  readonly kind: 'ArgMax' | 'ArgMin';
  readonly dtype: ElementType;
}

function betterThan({ kind, dtype }: Extreme): (value: Operand, held: Operand) => Expr {
  if (dtype === 'f32') return kind === 'ArgMax' ? f32x4.gt : f32x4.lt;
  return kind === 'ArgMax' ? i32x4.gt_s : i32x4.lt_s;
}

function worst({ kind, dtype }: Extreme): Expr {
  if (dtype === 'f32')
    return constant('f32x4', kind === 'ArgMax' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY);
  return constant('i32x4', kind === 'ArgMax' ? LEAST : GREATEST);
}

/** First index of the extreme. NaN is passed over, unless it stands first: then the answer is 0, as in tfjs. */
function argOfRow(
  f: FunctionBuilder,
  row: Local,
  n: number,
  kind: Extreme['kind'],
  dtype: ElementType,
): Expr {
  const extreme = { kind, dtype };
  const [value, held, at, indices, isBetter] = [
    f.local('v128', 'value'),
    f.let('held', worst(extreme)),
    f.let('at', lanesOf(Int32Array.of(0, 1, 2, 3))),
    f.let('indices', lanesOf(Int32Array.of(0, 1, 2, 3))),
    f.local('v128', 'isBetter'),
  ];
  const advance = (next: Expr) => {
    f.set(value, next);
    f.set(isBetter, betterThan(extreme)(value, held));
    f.set(held, v128.bitselect(value, held, isBetter));
    f.set(at, v128.bitselect(indices, at, isBetter));
    f.set(indices, i32x4.add(indices, 4));
  };
  const offset = f.local('i32', 'offset');
  const whole = Math.floor(n / 4) * 16;
  f.loop(offset, 0, whole, 16, () => advance(loads.v128(i32.add(row, offset))));
  if (n % 4 > 0) advance(maskTail(loads.v128(row, whole), worst(extreme), n % 4));
  const best = f.local(dtype === 'f32' ? 'f32' : 'i32', 'best');
  const index = f.local('i32', 'index');
  f.set(best, laneOf(dtype)(held, 0));
  f.set(index, i32x4.extractLane(at, 0));
  for (const lane of [1, 2, 3]) {
    const candidate = f.let('candidate', laneOf(dtype)(held, lane));
    const place = f.let('place', i32x4.extractLane(at, lane));
    const ahead =
      dtype === 'f32'
        ? (kind === 'ArgMax' ? f32.gt : f32.lt)(candidate, best)
        : (kind === 'ArgMax' ? i32.gt_s : i32.lt_s)(candidate, best);
    const equal = dtype === 'f32' ? f32.eq(candidate, best) : i32.eq(candidate, best);
    f.when(i32.or(ahead, i32.and(equal, i32.lt_u(place, index))), () => {
      f.set(best, candidate);
      f.set(index, place);
    });
  }
  if (dtype === 'f32') f.when(f32.ne(loads.f32(row), loads.f32(row)), () => f.set(index, 0));
  return index;
}

function argOfColumns(
  f: FunctionBuilder,
  from: Local,
  n: number,
  inner: number,
  extreme: Extreme,
  result: Local,
): void {
  const first = f.let('first', loads.v128(from));
  const held = f.let('held', worst(extreme));
  const value = f.local('v128', 'value');
  const isBetter = f.local('v128', 'isBetter');
  const k = f.local('i32', 'k');
  f.set(result, constant('i32x4', 0));
  f.loop(k, 0, n, 1, () => {
    f.set(value, loads.v128(from));
    f.set(isBetter, betterThan(extreme)(value, held));
    f.set(held, v128.bitselect(value, held, isBetter));
    f.set(result, v128.bitselect(i32x4.splat(k), result, isBetter));
    f.increase(from, inner * 4);
  });
  if (extreme.dtype === 'f32')
    f.set(result, v128.bitselect(constant('i32x4', 0), result, f32x4.ne(first, first)));
}

// ------------------------------------------------------------------ running sums

/** One unit: one line along the axis. float32 is summed in float64, so that a long line keeps its precision. */
export function emitCumulative(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Cumulative'>;
  const { kind, axis, exclusive, reverse } = node.attrs;
  const { shape, dtype } = node.inputs[0]!;
  const [outer, n, inner] = around(shape, axis);
  const { f, begin, end } = context.kernel('cumulative');
  const x = f.let('x', context.addresses.place(step.inputs[0]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const isFloat = dtype === 'f32';
  const held = f.local(isFloat ? 'f64' : 'i32', 'held');
  const next = f.local(isFloat ? 'f64' : 'i32', 'next');
  const unit = f.local('i32', 'unit');
  const at = f.local('i32', 'at');
  const k = f.local('i32', 'k');
  const ops = isFloat ? f64 : i32;
  f.loop(unit, begin, end, 1, () => {
    const line = i32.add(i32.mul(i32.div_u(unit, inner), n * inner), i32.rem_u(unit, inner));
    f.set(at, i32.shl(i32.add(line, reverse ? (n - 1) * inner : 0), 2));
    f.set(held, kind === 'Sum' ? 0 : 1);
    f.loop(k, 0, n, 1, () => {
      const from = i32.add(x, at);
      const value = isFloat ? f64.promote_f32(loads.f32(from)) : loads.i32(from);
      f.set(next, (kind === 'Sum' ? ops.add : ops.mul)(held, value));
      const result = exclusive ? held : next;
      const to = i32.add(out, at);
      f.do(isFloat ? stores.f32(to, f32.demote_f64(result)) : stores.i32(to, result));
      f.set(held, next);
      f.increase(at, (reverse ? -1 : 1) * inner * 4);
    });
  });
  const size = sizeOf(shape);
  return context.finish(f, size === 0 ? 0 : outer * inner);
}
