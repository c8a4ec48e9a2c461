// lib/jit/targets/webgpu/kernels/attend.ts: one query a row over the cache -> its mixture of values. In decode this reads
// the whole cache once; a long cache is cut into chunks, a workgroup each, which a second kernel puts together.
// Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (softmax in pieces); Dao et al. 2023, "Flash-Decoding".
//
// Every thread has up to 16 vectors of keys on their way before it uses the first, and as many of values before the
// weights are made: with one at a time the memory's latency took most of the time.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';
import { reduceNeighbours } from '../../../kernels/reduce.js';
import type { AttendSpec } from './attendShape.js';
import {
  keysAtOnce,
  keysPerThread,
  paddedChunk,
  sharingThreads,
  valuesPerThread,
  vectorsUnderWay,
} from './attendShape.js';
import { attendWeights } from './attendWeights.js';
import { beginMix, elementOf, joinHeads } from './mix.js';

export interface AttendArrays {
  readonly q: ArrayRef; // f32x4 [batch, heads, headDim]
  readonly keys: ArrayRef; // f32x4 [batch, kvHeads, capacity, headDim]
  readonly values: ArrayRef; // f32x4, the same
  readonly start: ArrayRef; // i32 [batch]
  readonly count: ArrayRef; // i32 [batch]
}

/** A vector of what a workgroup found for a head: mixture (not yet divided), largest score, sum of weights. */
export interface Mixture {
  readonly row: Expr; // batch * heads + head
  readonly head: Expr; // of the workgroup's
  readonly chunk: Expr;
  readonly vector: Expr; // of headDim / 4
  readonly value: Expr; // f32x4, sum of weight * value
  readonly largest: Expr;
  readonly total: Expr;
}

/** A mixture over the sum of its weights. A query that is padding sees nothing and gives 0. */
export function divided(value: Expr, total: Expr): Expr {
  return total.gt(0).select(value.div(splat(total, 4)), 0);
}

/** Workgroups of the kernel: a row's chunks one after another. */
export function attendWorkgroups({ batch, heads, together, chunks }: AttendSpec): number {
  return ((batch * heads) / together) * chunks;
}

/**
 * Writes the kernel, of spec.threads threads and attendWorkgroups workgroups. Chunks past a row's end return at once.
 * @param finish told each vector of each head once
 */
export function writeAttend(
  k: KernelBuilder,
  features: Features,
  spec: AttendSpec,
  { q, keys, values, start, count }: AttendArrays,
  finish: (mixture: Mixture) => void,
): void {
  const { heads, kvHeads, headDim, capacity, window, together, chunk, chunks } = spec;
  const vectors = headDim / 4;
  const tile = k.let('tile', k.builtin('workgroupX'));
  const part = k.let('part', chunks === 1 ? literal('u32', 0) : tile.rem(chunks));
  const firstRow = k.let('firstRow', tile.div(chunks).mul(together));
  const batch = k.let('batch', firstRow.div(heads));
  const kvRow = k.let('kvRow', batch.mul(kvHeads).add(firstRow.rem(heads).div(heads / kvHeads)));
  const last = k.let('last', start.at(batch));
  const oldest = window === null ? literal('i32', 0) : last.add(1 - window).max(0);
  const first = k.let('first', oldest.bits('u32'));
  const seen = k.let('seen', last.bits('u32').add(1).sub(first));
  const begin = k.let('begin', part.mul(chunk));
  const isReal = k.let('isReal', count.at(batch).gt(0).and(begin.lt(seen)));
  const own = isReal.select(seen.sub(begin.min(seen)).min(chunk), 0);
  const length = chunks === 1 ? k.let('length', own) : k.uniform('length', own);
  if (chunks > 1) k.if(length.eq(0), () => k.return());
  const slot = k.let('slot', first.add(begin));
  const place = (position: Expr): Expr =>
    kvRow.mul(capacity).add(slot.add(position).rem(capacity)).mul(vectors);

  const queries = k.shared('queries', 'f32x4', together * vectors);
  const load = (at: Expr): void => k.store(queries, at, q.at(firstRow.mul(vectors).add(at)).mul(spec.scale));
  k.for('at', k.localIndex, literal('u32', together * vectors), load, k.threads);
  k.barrier();

  const scores = k.shared('scores', elementOf(together), paddedChunk(spec));
  const beginValues = (): ReturnType<typeof beginMix> =>
    beginMix(k, {
      ...{ together, vectors, count: length, unroll: valuesPerThread(spec) },
      read: (position, vector) => values.at(place(position).add(vector)),
    });
  // Values set out together with the keys where a thread has room for both, else when the keys are there.
  const early = vectorsUnderWay(features, spec) <= 20 ? beginValues() : undefined;
  const largest = writeScores(k, features, spec, keys, queries, scores, length, place);
  const mix = early ?? beginValues();
  const { most, weigh } = attendWeights({ k, features, spec, scores, length, largest });
  mix(weigh, (head, vector, value, total) => {
    const ofHead = most.reduce((found, one, i) => head.eq(i).select(one, found));
    finish({ ...{ row: firstRow.add(head), head, chunk: part, vector, value }, largest: ofHead, total });
  });
}

/**
 * Scores of a chunk's positions: a few neighbouring threads share a key, so that it is read in whole lines.
 * @returns the largest that this thread has seen of each head
 */
function writeScores(
  k: KernelBuilder,
  features: Features,
  spec: AttendSpec,
  keys: ArrayRef,
  queries: ArrayRef,
  scores: ArrayRef,
  length: Expr,
  place: (position: Expr) => Expr,
): Expr[] {
  const { headDim, together } = spec;
  const vectors = headDim / 4;
  const sharing = sharingThreads(features, vectors);
  const atOnce = keysAtOnce(features, spec);
  const perThread = keysPerThread(features, spec);
  const lane = k.let('lane', k.localIndex.rem(sharing));
  const group = k.let('group', k.localIndex.div(sharing));
  const lastKey = k.let('lastKey', length.max(1).sub(1));
  const each = Array.from({ length: together }, (_, head) => head);
  const largest = each.map(() => k.variable('largest', literal('f32', Number.NEGATIVE_INFINITY)));
  const round = (begin: Expr): void => {
    // All threads stay: those past the end look at the last position again, so that subgroups are whole.
    const own = Array.from({ length: perThread }, (_, u) =>
      k.let('own', begin.add(group).add((u * k.threads) / sharing)),
    );
    const parts = own.map((position) => {
      const from = k.let('from', place(position.min(lastKey)).add(lane));
      return Array.from({ length: vectors / sharing }, (_, i) =>
        k.let('key', keys.at(from.add(i * sharing))),
      );
    });
    const sums = each.map((head) => {
      const query = parts[0]!.map((_, i) =>
        k.let('query', queries.at(lane.add(head * vectors + i * sharing))),
      );
      return parts.map((key) => {
        const products = key.map((one, i) => one.dot(query[i]!));
        const product = products.reduce((held, one) => held.add(one));
        return reduceNeighbours(k, 'add', sharing, product);
      });
    });
    for (const head of each)
      for (const sum of sums[head]!) k.set(largest[head]!, largest[head]!.value.max(sum));
    for (const [u, position] of own.entries())
      k.if(lane.eq(0).and(position.lt(length)), () => {
        k.store(scores, position, joinHeads(each.map((head) => sums[head]![u]!)));
      });
  };
  if (atOnce >= spec.chunk) round(literal('u32', 0));
  else k.for('keysBegin', 0, length, round, atOnce);
  return largest.map((one) => one.value);
}
