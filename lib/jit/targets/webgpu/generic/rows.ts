// lib/jit/targets/webgpu/generic/rows.ts: what looks at a whole row: Reduce, Cumulative, TopK, Norm, Softmax.

import { sizeOf } from '../../../../tensor.js';
import type { ReduceKind, StructuredNode } from '../../../graph.js';
import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import { type Expr, literal, type Type } from '../../../kernels/expression.js';
import * as math from '../../../kernels/math.js';
import { reduceByTree, reduceWorkgroup } from '../../../kernels/reduce.js';
import { storedType } from '../../../kernels/scalars.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import type { DispatchWriter } from '../writer.js';
import { bindOperand, coordinates } from './indexing.js';

const threads = 64;
/** For long rows: with fewer, a row of 4,096 took 43 us on an H200. */
const wideThreads = 256;
/** Longer rows get a workgroup each, shorter ones a thread. */
const shortRow = 32;

const lowest = (type: Type): Expr => literal(type, type === 'f32' ? Number.NEGATIVE_INFINITY : -(2 ** 31));
const highest = (type: Type): Expr => literal(type, type === 'f32' ? Number.POSITIVE_INFINITY : 2 ** 31 - 1);

const folds: Readonly<
  Record<'Sum' | 'Prod' | 'Max' | 'Min', { first: (type: Type) => Expr; join: (a: Expr, b: Expr) => Expr }>
> = {
  Sum: { first: (type) => literal(type, 0), join: (a, b) => a.add(b) },
  Prod: { first: (type) => literal(type, 1), join: (a, b) => a.mul(b) },
  Max: { first: lowest, join: (a, b) => (a.type === 'f32' ? math.max(a, b) : a.max(b)) },
  Min: { first: highest, join: (a, b) => (a.type === 'f32' ? math.min(a, b) : a.min(b)) },
};

/** Elements of a row that a thread looks at: first, first + step, ... below n. */
interface Share {
  readonly first: Expr;
  readonly step: number;
}

export function reduce(
  step: KernelStep,
  { attrs: { kind, first, last } }: StructuredNode<'Reduce'>,
  context: LowerContext,
): Dispatch[] {
  const [input, output] = [context.input(step, 0), context.output(step)];
  const n = sizeOf(input.shape.slice(first, last + 1));
  const inner = sizeOf(input.shape.slice(last + 1));
  const count = sizeOf(output.shape);
  if (count === 0) return [];
  const isShort = n <= shortRow;
  const w = context.writer(`reduce${kind}`, threads);
  const { k } = w;
  const index = isShort ? w.threadIndex(count) : w.workgroupIndex(count);
  const x = bindOperand(w, 'x', input);
  const y = bindOperand(w, 'y', output);
  const [o, i] = coordinates(k, index, [count / inner, inner]) as [Expr, Expr];
  const base = k.let('base', o.mul(n * inner).add(i));
  const at = (j: Expr): Expr => x.at(base.add(inner === 1 ? j : j.mul(inner)));
  const share = isShort
    ? { first: literal('i32', 0), step: 1 }
    : { first: k.localIndex.to('i32'), step: k.threads };
  const result = reduceRow(w, kind, at, n, share, !isShort);
  if (isShort) k.store(y, index, result);
  else k.if(k.localIndex.eq(0), () => k.store(y, index, result));
  return [isShort ? w.forThreads(count, context.step) : w.forWorkgroups(count, context.step)];
}

function reduceRow(
  w: DispatchWriter,
  kind: ReduceKind,
  at: (j: Expr) => Expr,
  n: number,
  share: Share,
  together: boolean,
): Expr {
  const { k } = w;
  if (kind === 'ArgMax' || kind === 'ArgMin') return bestOfRow(k, kind, at, n, share, together);
  const { first, join } = folds[kind];
  const type = at(literal('i32', 0)).type;
  const held = k.variable('held', first(type));
  k.for('j', share.first, n, (j) => k.set(held, join(held.value, at(j))), share.step);
  if (!together) return held.value;
  if (kind === 'Sum' && type === 'f32') return reduceWorkgroup(k, w.features, 'add', held.value)[0]!;
  return reduceByTree(k, join, [held.value])[0]!;
}

/** Place of the first among the best; NaN in front is the best, elsewhere never. */
function bestOfRow(
  k: KernelBuilder,
  kind: 'ArgMax' | 'ArgMin',
  at: (j: Expr) => Expr,
  n: number,
  share: Share,
  together: boolean,
): Expr {
  const isBetter = (value: Expr, held: Expr): Expr => (kind === 'ArgMax' ? value.gt(held) : value.lt(held));
  if (n === 0) return literal('i32', 0);
  const head = k.let('head', at(literal('i32', 0)));
  const held = k.variable('held', kind === 'ArgMax' ? lowest(head.type) : highest(head.type));
  const place = k.variable('place', literal('i32', 2 ** 31 - 1));
  const consider = (value: Expr, j: Expr): void =>
    k.if(isBetter(value, held.value).or(value.eq(held.value).and(j.lt(place.value))), () => {
      k.set(held, value);
      k.set(place, j);
    });
  k.for('j', share.first, n, (j) => consider(k.let('value', at(j)), j), share.step);
  if (together) joinBest(k, held.value, place.value, consider);
  const found = place.value.eq(2 ** 31 - 1).select(literal('i32', 0), place.value);
  return head.type === 'f32' ? math.isNan(head).select(literal('i32', 0), found) : found;
}

/** Thread 0 looks at what the others found. */
function joinBest(
  k: KernelBuilder,
  value: Expr,
  place: Expr,
  consider: (value: Expr, place: Expr) => void,
): void {
  const values = k.shared('bestValues', value.type, k.threads);
  const places = k.shared('bestPlaces', 'i32', k.threads);
  k.barrier();
  k.store(values, k.localIndex, value);
  k.store(places, k.localIndex, place);
  k.barrier();
  k.if(k.localIndex.eq(0), () => {
    k.for('other', 1, k.threads, (other) => {
      consider(k.let('otherValue', values.at(other)), k.let('otherPlace', places.at(other)));
    });
  });
}

/** One thread a row; sums carry along what was rounded off (Kahan). */
export function cumulative(
  step: KernelStep,
  { attrs: { kind, axis, exclusive, reverse } }: StructuredNode<'Cumulative'>,
  context: LowerContext,
): Dispatch[] {
  const [input, output] = [context.input(step, 0), context.output(step)];
  const n = input.shape[axis]!;
  const inner = sizeOf(input.shape.slice(axis + 1));
  const rows = n === 0 ? 0 : sizeOf(input.shape) / n;
  if (rows === 0) return [];
  const w = context.writer(`cumulative${kind}`, threads);
  const { k } = w;
  const index = w.threadIndex(rows);
  const x = bindOperand(w, 'x', input);
  const y = bindOperand(w, 'y', output);
  const [o, i] = coordinates(k, index, [rows / inner, inner]) as [Expr, Expr];
  const type = storedType(input.dtype);
  const held = k.variable('held', literal(type, kind === 'Sum' ? 0 : 1));
  const lost = k.variable('lost', literal(type, 0));
  k.for('j', literal('i32', 0), n, (j) => {
    const place = reverse ? literal('i32', n - 1).sub(j) : j;
    const at = k.let('at', o.mul(n).add(place).mul(inner).add(i));
    const value = k.let('value', x.at(at));
    if (exclusive) k.store(y, at, held.value);
    if (kind === 'Prod') k.set(held, held.value.mul(value));
    else if (type === 'i32') k.set(held, held.value.add(value));
    else {
      const term = k.let('term', value.sub(lost.value));
      const sum = k.let('sum', held.value.add(term));
      k.set(lost, sum.sub(held.value).sub(term));
      k.set(held, sum);
    }
    if (!exclusive) k.store(y, at, held.value);
  });
  return [w.forThreads(rows, context.step)];
}

/** One workgroup a row: each round finds the best of what comes after the last one in order. */
export function topK(
  step: KernelStep,
  { attrs: { k: wanted } }: StructuredNode<'TopK'>,
  context: LowerContext,
): Dispatch[] {
  const input = context.input(step, 0);
  const [values, indices] = [context.output(step, 0), context.output(step, 1)];
  const n = input.shape.at(-1)!;
  const rows = sizeOf(input.shape.slice(0, -1));
  if (rows === 0 || wanted === 0) return [];
  const w = context.writer('topK', threads);
  const { k } = w;
  const row = k.let('row', w.workgroupIndex(rows).to('i32'));
  const x = bindOperand(w, 'x', input);
  const [toValues, toIndices] = [bindOperand(w, 'values', values), bindOperand(w, 'indices', indices)];
  const type = storedType(input.dtype);
  const lastValues = k.shared('lastValue', type, 1);
  const lastPlaces = k.shared('lastPlace', 'i32', 1);
  k.if(k.localIndex.eq(0), () => {
    k.store(lastValues, 0, highest(type));
    k.store(lastPlaces, 0, literal('i32', -1));
  });
  k.for('round', literal('i32', 0), wanted, (round) => {
    k.barrier();
    const lastValue = k.let('last', lastValues.at(0));
    const lastPlace = k.let('lastAt', lastPlaces.at(0));
    const held = k.variable('held', lowest(type));
    const place = k.variable('place', literal('i32', 2 ** 31 - 1));
    const consider = (value: Expr, j: Expr): void =>
      k.if(value.gt(held.value).or(value.eq(held.value).and(j.lt(place.value))), () => {
        k.set(held, value);
        k.set(place, j);
      });
    k.for(
      'j',
      k.localIndex.to('i32'),
      n,
      (j) => {
        const value = k.let('value', x.at(row.mul(n).add(j)));
        const isLeft = value.lt(lastValue).or(value.eq(lastValue).and(j.gt(lastPlace)));
        k.if(isLeft, () => consider(value, j));
      },
      k.threads,
    );
    joinBest(k, held.value, place.value, consider);
    k.if(k.localIndex.eq(0), () => {
      const found = k.let('found', place.value.min(n - 1));
      k.store(toValues, row.mul(wanted).add(round), x.at(row.mul(n).add(found)));
      k.store(toIndices, row.mul(wanted).add(round), found);
      k.store(lastValues, 0, held.value);
      k.store(lastPlaces, 0, place.value);
    });
  });
  return [w.forWorkgroups(rows, context.step)];
}

/** Calls `visit` for the elements of a row that this thread has. */
function eachOwn(k: KernelBuilder, n: number, visit: (j: Expr) => void): void {
  k.for('j', k.localIndex.to('i32'), n, visit, k.threads);
}

/** Sum of a function of the row's elements, the same in all threads. */
function rowSum(w: DispatchWriter, n: number, term: (j: Expr) => Expr): Expr {
  const { k } = w;
  const sum = k.variable('sum', literal('f32', 0));
  eachOwn(k, n, (j) => k.set(sum, sum.value.add(term(j))));
  return reduceWorkgroup(k, w.features, 'add', sum.value)[0]!;
}

export function norm(
  step: KernelStep,
  { attrs: { kind, epsilon, scaled, biased } }: StructuredNode<'Norm'>,
  context: LowerContext,
): Dispatch[] {
  const [input, output] = [context.input(step, 0), context.output(step)];
  const dim = input.shape.at(-1)!;
  const rows = sizeOf(input.shape.slice(0, -1));
  if (rows === 0 || dim === 0) return [];
  const w = context.writer(`${kind}Norm`, dim >= 1024 ? wideThreads : threads);
  const { k } = w;
  const row = w.workgroupIndex(rows);
  const x = bindOperand(w, 'x', input);
  const scale = scaled ? bindOperand(w, 'scale', context.input(step, 1)) : undefined;
  const bias = biased ? bindOperand(w, 'bias', context.input(step, scaled ? 2 : 1)) : undefined;
  const y = bindOperand(w, 'y', output);
  const base = k.let('base', row.to('i32').mul(dim));
  const at = (j: Expr): Expr => x.at(base.add(j));
  const mean = kind === 'layer' ? k.let('mean', rowSum(w, dim, at).div(dim)) : literal('f32', 0);
  const centred = (j: Expr): Expr => (kind === 'layer' ? at(j).sub(mean) : at(j));
  const square = rowSum(w, dim, (j) => {
    const value = k.let('value', centred(j));
    return value.mul(value);
  });
  const deviation = k.let('deviation', square.div(dim).add(epsilon).sqrt());
  eachOwn(k, dim, (j) => {
    const normal = centred(j).div(deviation);
    const scaledValue = scale ? normal.mul(scale.at(j)) : normal;
    k.store(y, base.add(j), bias ? scaledValue.add(bias.at(j)) : scaledValue);
  });
  return [w.forWorkgroups(rows, context.step)];
}

export function softmax(
  step: KernelStep,
  { attrs: { log, scale } }: StructuredNode<'Softmax'>,
  context: LowerContext,
): Dispatch[] {
  const [input, output] = [context.input(step, 0), context.output(step)];
  const n = input.shape.at(-1)!;
  const rows = sizeOf(input.shape.slice(0, -1));
  if (rows === 0 || n === 0) return [];
  const w = context.writer('softmax', threads);
  const { k } = w;
  const row = w.workgroupIndex(rows);
  const x = bindOperand(w, 'x', input);
  const y = bindOperand(w, 'y', output);
  const base = k.let('base', row.to('i32').mul(n));
  const at = (j: Expr): Expr => scaledElement(x, base.add(j), scale);
  const largest = k.variable('largest', literal('f32', Number.NEGATIVE_INFINITY));
  eachOwn(k, n, (j) => k.set(largest, largest.value.max(at(j))));
  const max = reduceWorkgroup(k, w.features, 'max', largest.value)[0]!;
  const total = k.let(
    'total',
    rowSum(w, n, (j) => math.exp(at(j).sub(max))),
  );
  const logTotal = log ? k.let('logTotal', math.log(total)) : undefined;
  eachOwn(k, n, (j) => {
    const over = at(j).sub(max);
    const value = logTotal ? over.sub(logTotal) : math.exp(over).div(total);
    k.store(y, base.add(j), value);
  });
  return [w.forWorkgroups(rows, context.step)];
}

function scaledElement(x: ArrayRef, at: Expr, scale: number): Expr {
  return scale === 1 ? x.at(at) : x.at(at).mul(scale);
}
