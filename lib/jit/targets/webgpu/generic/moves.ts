// lib/jit/targets/webgpu/generic/moves.ts: what changes places and computes nothing: copies, Concat, Gather, ScatterNd.
// One thread an element.

import { sizeOf } from '../../../../tensor.js';
import type { ElementType, StructuredNode } from '../../../graph.js';
import { stridesOf } from '../../../graph.js';
import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import { type Expr, literal } from '../../../kernels/expression.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext, Operand } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import { bindOperand, coordinates } from './indexing.js';

const threads = 64;

/** Copies words from one place to another, `base` words into it. */
export function copyWords(
  from: BufferUse,
  to: BufferUse,
  words: number,
  context: LowerContext,
  base = 0,
): Dispatch[] {
  if (words === 0) return [];
  const w = context.writer('copy', threads);
  const index = w.threadIndex(words);
  const x = w.bind('x', from, 'u32');
  const y = w.bind('y', to, 'u32');
  w.k.store(y, base === 0 ? index : index.add(base), x.at(index));
  return [w.forThreads(words, context.step)];
}

export function concat(
  step: KernelStep,
  { attrs: { axis } }: StructuredNode<'Concat'>,
  context: LowerContext,
): Dispatch[] {
  const output = context.output(step);
  const inner = sizeOf(output.shape.slice(axis + 1));
  const row = output.shape[axis]! * inner;
  let begin = 0;
  return step.inputs.flatMap((_, i) => {
    const input = context.input(step, i);
    const length = input.shape[axis]! * inner;
    const first = begin;
    begin += length;
    const count = sizeOf(input.shape);
    if (count === 0) return [];
    const w = context.writer('concat', threads);
    const index = w.threadIndex(count);
    const x = bindOperand(w, 'x', input);
    const y = bindOperand(w, 'y', output);
    w.k.store(y, index.div(length).mul(row).add(index.rem(length)).add(first), x.at(index));
    return [w.forThreads(count, context.step)];
  });
}

/** What stands where an index is outside: NaN, or 0 of integers. */
function outside(dtype: ElementType): Expr {
  return dtype === 'f32' ? literal('f32', Number.NaN) : literal('i32', 0);
}

/** x[element] where the condition holds; else nothing of x is read. */
function guardedLoad(k: KernelBuilder, x: ArrayRef, element: Expr, isInside: Expr, dtype: ElementType): Expr {
  const safe = k.let('safe', isInside.select(element, literal('i32', 0)));
  return isInside.select(x.at(safe), outside(dtype));
}

/** A dispatch of a thread an element of the output, and its arrays. */
function chosenElements(
  name: string,
  [x, indices, output]: readonly [Operand, Operand, Operand],
  context: LowerContext,
) {
  const w = context.writer(name, threads);
  const index = w.threadIndex(sizeOf(output.shape));
  const [from, at, to] = [
    bindOperand(w, 'x', x),
    bindOperand(w, 'indices', indices),
    bindOperand(w, 'y', output),
  ];
  return { w, index, from, at, to };
}

export function gather(
  step: KernelStep,
  { attrs: { axis, batchAxes } }: StructuredNode<'Gather'>,
  context: LowerContext,
): Dispatch[] {
  const [x, indices, output] = [context.input(step, 0), context.input(step, 1), context.output(step)];
  const outer = sizeOf(x.shape.slice(batchAxes, axis));
  const n = x.shape[axis]!;
  const inner = sizeOf(x.shape.slice(axis + 1));
  const count = sizeOf(indices.shape.slice(batchAxes));
  const size = sizeOf(output.shape);
  if (size === 0) return [];
  const { w, index, from, at, to } = chosenElements('gather', [x, indices, output], context);
  const { k } = w;
  const batch = sizeOf(x.shape.slice(0, batchAxes));
  const [b, o, j, i] = coordinates(k, index, [batch, outer, count, inner]) as [Expr, Expr, Expr, Expr];
  const chosen = k.let('chosen', at.at(b.mul(count).add(j)));
  const isInside = k.let('isInside', chosen.ge(0).and(chosen.lt(n)));
  const element = b.mul(outer).add(o).mul(n).add(chosen).mul(inner).add(i);
  k.store(to, index, n === 0 ? outside(x.dtype) : guardedLoad(k, from, element, isInside, x.dtype));
  return [w.forThreads(size, context.step)];
}

/** Offset of an index tuple in elements, and whether all of it is inside. */
function tupleOffset(
  k: KernelBuilder,
  indices: ArrayRef,
  first: Expr,
  depth: number,
  shape: readonly number[],
): { offset: Expr; isInside: Expr } {
  const strides = stridesOf(shape);
  let offset = literal('i32', 0);
  let isInside = literal('bool', 1);
  for (let axis = 0; axis < depth; axis++) {
    const place = k.let('place', indices.at(first.add(axis)));
    isInside = isInside.and(place.ge(0)).and(place.lt(shape[axis]!));
    offset = offset.add(place.mul(strides[axis]!));
  }
  return { offset: k.let('offset', offset), isInside: k.let('isInside', isInside) };
}

export function gatherNd(step: KernelStep, context: LowerContext): Dispatch[] {
  const [x, indices, output] = [context.input(step, 0), context.input(step, 1), context.output(step)];
  const depth = indices.shape.at(-1)!;
  const inner = sizeOf(x.shape.slice(depth));
  const size = sizeOf(output.shape);
  if (size === 0) return [];
  const { w, index, from, at, to } = chosenElements('gatherNd', [x, indices, output], context);
  const { k } = w;
  const [tuple, i] = coordinates(k, index, [size / inner, inner]) as [Expr, Expr];
  const { offset, isInside } = tupleOffset(k, at, k.let('first', tuple.mul(depth)), depth, x.shape);
  const isEmpty = sizeOf(x.shape) === 0;
  const value = isEmpty ? outside(x.dtype) : guardedLoad(k, from, offset.add(i), isInside, x.dtype);
  k.store(to, index, value);
  return [w.forThreads(size, context.step)];
}

/** One thread an element of the inner axes goes through all updates, so that they are added in order. */
export function scatterNd(
  step: KernelStep,
  { attrs: { mode } }: StructuredNode<'ScatterNd'>,
  context: LowerContext,
): Dispatch[] {
  const [indices, updates] = [context.input(step, 1), context.input(step, 2)];
  const output = context.output(step);
  const depth = indices.shape.at(-1)!;
  const inner = sizeOf(output.shape.slice(depth));
  const tuples = sizeOf(indices.shape.slice(0, -1));
  if (inner === 0 || tuples === 0 || sizeOf(output.shape) === 0) return [];
  const w = context.writer('scatterNd', threads);
  const { k } = w;
  const thread = k.let('i', w.threadIndex(inner).to('i32'));
  const [at, from] = [bindOperand(w, 'indices', indices), bindOperand(w, 'updates', updates)];
  const to = bindOperand(w, 'y', output);
  k.for('tuple', literal('i32', 0), tuples, (tuple) => {
    const { offset, isInside } = tupleOffset(k, at, k.let('first', tuple.mul(depth)), depth, output.shape);
    k.if(isInside, () => {
      const element = k.let('element', offset.add(thread));
      const update = from.at(tuple.mul(inner).add(thread));
      k.store(to, element, mode === 'add' ? to.at(element).add(update) : update);
    });
  });
  return [w.forThreads(inner, context.step)];
}
