// lib/jit/targets/webgpu/kernels/attendJoin.ts: what attention found in each chunk of a cache -> its mixture of values.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, vector as vectorOf } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import { divided, type Mixture } from './attend.js';
import type { AttendSpec } from './attendShape.js';
import { valuesPerThread } from './attendShape.js';
import { attendExp } from './attendWeights.js';
import { beginMix, mixedAtOnce, type Weigh } from './mix.js';

export interface JoinArrays {
  readonly mixed: ArrayRef; // f32x4 [batch * heads, chunks, headDim]
  readonly found: ArrayRef; // f32x2 [batch * heads, chunks]: largest score, sum of weights
  readonly start: ArrayRef; // i32 [batch]
  readonly count: ArrayRef; // i32 [batch]
}

/** Writes what a workgroup found in its chunk where the join looks for it. */
export function leaveForJoin(
  k: KernelBuilder,
  { chunks, headDim }: AttendSpec,
  { mixed, found }: Pick<JoinArrays, 'mixed' | 'found'>,
  { row, chunk, vector, value, largest, total }: Mixture,
): void {
  const at = k.let('at', row.mul(chunks).add(chunk));
  k.store(mixed, at.mul(headDim / 4).add(vector), value);
  k.if(vector.eq(0), () => k.store(found, at, vectorOf(largest, total)));
}

/**
 * Writes the kernel: a workgroup of spec.threads threads a row. Each chunk's mixture is weighed by how its largest score
 * compares with the largest of all.
 * @param finish told each vector of the row once, divided
 */
export function writeJoin(
  k: KernelBuilder,
  features: Features,
  spec: AttendSpec,
  { mixed, found, start, count }: JoinArrays,
  finish: (row: Expr, vector: Expr, value: Expr) => void,
): void {
  const { heads, headDim, window, chunk, chunks } = spec;
  const vectors = headDim / 4;
  const row = k.let('row', k.builtin('workgroupX'));
  const batch = k.let('batch', row.div(heads));
  const held = k.let('held', start.at(batch).add(1));
  const seen = window === null ? held : held.min(window);
  const all = seen
    .add(chunk - 1)
    .div(chunk)
    .bits('u32');
  const real = k.let('real', count.at(batch).gt(0).select(all, 0));
  const begin = k.let('begin', row.mul(chunks));
  const unroll = Math.min(8, valuesPerThread(spec));
  const mix = beginMix(k, {
    ...{ together: 1, vectors, count: real, unroll },
    read: (at, vector) => mixed.at(begin.add(at).mul(vectors).add(vector)),
  });

  const largest = k.variable('largest', literal('f32', Number.NEGATIVE_INFINITY));
  const look = (at: Expr): void => k.set(largest, largest.value.max(found.at(begin.add(at)).lane(0)));
  k.for('at', k.localIndex, real, look, k.threads);
  const [most] = reduceWorkgroup(k, features, 'max', largest.value) as [Expr];
  const atOnce = mixedAtOnce(k.threads, vectors, unroll);
  const padded = Math.ceil(chunks / atOnce) * atOnce;
  const weights = k.shared('weights', 'f32', padded);
  const sum = k.variable('sum', literal('f32', 0));
  const weigh = (at: Expr): void => {
    const fact = k.let('fact', found.at(begin.add(at.min(chunks - 1))));
    const weight = attendExp(spec, fact.lane(0).sub(most));
    const own = k.let('own', at.lt(real).select(weight, 0));
    k.store(weights, at, own);
    // A chunk past the end has left nothing: what lies there may be no number.
    k.set(sum, at.lt(real).select(sum.value.add(own.mul(fact.lane(1))), sum.value));
  };
  k.for('at', k.localIndex, literal('u32', padded), weigh, k.threads);
  const [total] = reduceWorkgroup(k, features, 'add', sum.value) as [Expr];
  k.barrier();
  const weighed: Weigh = (positions) => positions.map((at) => k.let('weight', weights.at(at)));
  mix(weighed, (_, vector, value) => finish(row, vector, divided(value, total)));
}
