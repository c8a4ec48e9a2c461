// lib/jit/targets/webgpu/kernels/attend.ts: one query a row over the cache -> its mixture of values. In decode this reads
// the whole cache once; a long cache is cut into chunks, a workgroup each, which a second kernel puts together.
// Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (softmax in pieces); Dao et al. 2023, "Flash-Decoding".

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';
import { exp } from '../../../kernels/math.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';

export interface AttendSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly capacity: number;
  readonly window: number | null;
  readonly scale: number;
  /** Query heads that a workgroup serves: a divisor of heads / kvHeads. They share what is read of the cache. */
  readonly together: number;
  /** Positions of a workgroup, and how many such chunks the cache has. */
  readonly chunk: number;
  readonly chunks: number;
}

export interface AttendArrays {
  readonly q: ArrayRef; // f32x4 [batch, heads, headDim]
  readonly keys: ArrayRef; // f32x4 [batch, kvHeads, capacity, headDim]
  readonly values: ArrayRef; // f32x4, the same
  readonly start: ArrayRef; // i32 [batch]
  readonly count: ArrayRef; // i32 [batch]
}

/** What a workgroup found for one head: mixture (not yet divided), largest score, sum of weights. */
export interface Mixture {
  readonly row: Expr; // batch * heads + head
  readonly chunk: Expr;
  readonly element: Expr; // of headDim
  readonly value: Expr; // sum of weight * value
  readonly largest: Expr;
  readonly total: Expr;
}

/** Threads of a workgroup: a multiple of headDim / 4. */
export function attendThreads(features: Features, headDim: number): number {
  const wanted = Math.min(256, features.maxThreads);
  return Math.max(1, Math.floor(wanted / (headDim / 4))) * (headDim / 4);
}

/** Bytes of shared memory. */
export function attendSharedBytes(features: Features, { headDim, chunk, together }: AttendSpec): number {
  return 4 * together * (chunk + attendThreads(features, headDim) * 4) + 4 * together * headDim + 1024;
}

/**
 * Writes the kernel: workgroups [batch * heads / together * chunks], a row's chunks one after another.
 * @param finish told once for each head of the workgroup and element
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
  const length = k.let('length', isReal.select(seen.sub(begin.min(seen)).min(chunk), 0));
  const place = (position: Expr): Expr =>
    kvRow.mul(capacity).add(first.add(begin).add(position).rem(capacity)).mul(vectors);

  const scores = k.shared('scores', 'f32', together * chunk);
  const queries = k.shared('queries', 'f32x4', together * vectors);
  k.for(
    'at',
    k.localIndex,
    literal('u32', together * vectors),
    (at) => {
      k.store(queries, at, q.at(firstRow.mul(vectors).add(at)).mul(spec.scale));
    },
    k.threads,
  );
  k.barrier();
  writeScores(k, features, spec, keys, queries, scores, length, place);

  const each = Array.from({ length: together }, (_, head) => head);
  const largest = each.map(() => k.variable('largest', literal('f32', Number.NEGATIVE_INFINITY)));
  k.for(
    'position',
    k.localIndex,
    length,
    (position) => {
      for (const head of each)
        k.set(largest[head]!, largest[head]!.value.max(scores.at(position.add(head * chunk))));
    },
    k.threads,
  );
  const most = reduceWorkgroup(k, features, 'max', ...largest.map((one) => one.value)).map((one) =>
    k.let('most', one),
  );
  const weights = each.map(() => k.variable('weight', literal('f32', 0)));
  k.for(
    'position',
    k.localIndex,
    length,
    (position) => {
      for (const head of each) {
        const at = position.add(head * chunk);
        const weight = k.let('own', exp(scores.at(at).sub(most[head]!)));
        k.store(scores, at, weight);
        k.set(weights[head]!, weights[head]!.value.add(weight));
      }
    },
    k.threads,
  );
  const totals = reduceWorkgroup(k, features, 'add', ...weights.map((one) => one.value)).map((one) =>
    k.let('total', one),
  );

  // Threads take a vector of the head each, and positions in turn.
  const strands = k.threads / vectors;
  const vector = k.let('vector', k.localIndex.rem(vectors));
  const strand = k.let('strand', k.localIndex.div(vectors));
  const sums = each.map(() => k.variable('sum', literal('f32x4', 0)));
  k.for(
    'position',
    strand,
    length,
    (position) => {
      const value = k.let('value', values.at(place(position).add(vector)));
      for (const head of each) {
        const weight = scores.at(position.add(head * chunk));
        k.set(sums[head]!, sums[head]!.value.add(value.mul(splat(weight, 4))));
      }
    },
    strands,
  );
  const meeting = k.shared('meeting', 'f32x4', together * k.threads);
  for (const head of each) k.store(meeting, k.localIndex.add(head * k.threads), sums[head]!.value);
  k.barrier();
  for (const head of each) {
    k.if(k.localIndex.lt(vectors), () => {
      const sum = k.variable('sum', meeting.at(k.localIndex.add(head * k.threads)));
      k.for('other', 1, literal('u32', strands), (other) => {
        k.set(
          sum,
          sum.value.add(
            meeting.at(
              other
                .mul(vectors)
                .add(k.localIndex)
                .add(head * k.threads),
            ),
          ),
        );
      });
      for (let i = 0; i < 4; i++) {
        finish({
          ...{
            row: firstRow.add(head),
            chunk: part,
            element: k.localIndex.mul(4).add(i),
            value: sum.value.lane(i),
          },
          ...{ largest: most[head]!, total: totals[head]! },
        });
      }
    });
  }
}

/** Scores of a chunk's positions: a few neighbouring threads share a key, so that it is read in whole lines. */
function writeScores(
  k: KernelBuilder,
  features: Features,
  { headDim, chunk, together }: AttendSpec,
  keys: ArrayRef,
  queries: ArrayRef,
  scores: ArrayRef,
  length: Expr,
  place: (position: Expr) => Expr,
): void {
  const vectors = headDim / 4;
  const sharing = sharingThreads(features, vectors);
  const lane = k.let('lane', k.localIndex.rem(sharing));
  const others = k.threads / sharing;
  const rounds = k.let('rounds', length.add(others - 1).div(others));
  k.for('round', 0, rounds, (round) => {
    // All threads stay: those past the end look at the last position again, so that subgroups are whole.
    const own = k.let('own', round.mul(others).add(k.localIndex.div(sharing)));
    const position = k.let('position', own.min(length.sub(1)));
    const from = k.let('from', place(position).add(lane));
    const parts = Array.from({ length: vectors / sharing }, (_, i) =>
      k.let('key', keys.at(from.add(i * sharing))),
    );
    for (let head = 0; head < together; head++) {
      const products = parts.map((key, i) => key.dot(queries.at(lane.add(head * vectors + i * sharing))));
      let sum = k.let(
        'score',
        products.reduce((held, product) => held.add(product)),
      );
      for (let step = 1; step < sharing; step *= 2)
        sum = k.let('score', sum.add(sum.subgroup('subgroupShuffleXor', step)));
      k.if(lane.eq(0).and(own.lt(length)), () => k.store(scores, position.add(head * chunk), sum));
    }
  });
  k.barrier();
}

/** Neighbouring threads that share a key: they have to be of one subgroup. */
function sharingThreads(features: Features, vectors: number): number {
  let sharing = 1;
  const most = features.subgroups ? Math.min(8, features.minSubgroupSize) : 1;
  while (sharing * 2 <= most && vectors % (sharing * 2) === 0) sharing *= 2;
  return sharing;
}
