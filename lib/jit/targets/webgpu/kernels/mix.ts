// lib/jit/targets/webgpu/kernels/mix.ts: vectors at many positions, each times its weight, summed by a workgroup: what
// attention does with values, and with what its chunks found.

import type { KernelBuilder, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { lanesOf, literal, splat, type Type, vector } from '../../../kernels/expression.js';

/** So many weights of a position in one element. */
export type Together = 1 | 2 | 4;

export function elementOf(together: Together): Type {
  return together === 1 ? 'f32' : `f32x${together}`;
}

/** Element of several heads: from one value a head, and back. */
export function joinHeads(values: readonly Expr[]): Expr {
  return values.length === 1 ? values[0]! : vector(...values);
}

export function headOf(element: Expr, head: number): Expr {
  return lanesOf(element.type) === 1 ? element : element.lane(head);
}

export interface Mix {
  readonly together: Together;
  /** f32x4 a position. */
  readonly vectors: number;
  /** How many positions there are; may be 0. */
  readonly count: Expr;
  /** Positions whose vectors a thread reads before it uses the first. */
  readonly unroll: number;
  readonly read: (position: Expr, vector: Expr) => Expr;
}

/**
 * Makes a thread's weights, elements of `together` numbers: of `positions`, which lie `stride` apart, 0 from the count
 * on. Threads with the same positions are neighbours, `vectors` of them; all threads of the workgroup call it together.
 */
export type Weigh = (positions: readonly [Expr, ...Expr[]], stride: number) => readonly Expr[];

/** Told a head's sum of vectors, and of its weights. */
export type FinishMix = (head: Expr, vector: Expr, sum: Expr, total: Expr) => void;

/** Positions that a workgroup reads at once. */
export function mixedAtOnce(threads: number, vectors: number, unroll: number): number {
  return (threads / vectors) * unroll;
}

/**
 * Begins to read the first vectors, so that they are on their way while the weights are still being made.
 * @returns what mixes by given weights and tells the sums, each once: to one thread a head and vector. Every thread has
 * to arrive
 */
export function beginMix(
  k: KernelBuilder,
  { together, vectors, count, unroll, read }: Mix,
): (weigh: Weigh, finish: FinishMix) => void {
  const strands = k.threads / vectors;
  const atOnce = mixedAtOnce(k.threads, vectors, unroll);
  const own = k.let('vector', k.localIndex.rem(vectors));
  const strand = k.let('strand', k.localIndex.div(vectors));
  const last = k.let('lastMixed', count.max(1).sub(1));
  const positionsFrom = (begin: Expr): [Expr, ...Expr[]] =>
    Array.from({ length: unroll }, (_, u) => k.let('position', begin.add(u * strands))) as [Expr]; // at least one
  const readAll = (positions: readonly Expr[]): Expr[] =>
    positions.map((position) => k.let('value', read(position.min(last), own)));
  const firstPositions = positionsFrom(strand);
  const firstValues = readAll(firstPositions);
  return (weigh, finish) => {
    const sums = Array.from({ length: together }, () => k.variable('sum', literal('f32x4', 0)));
    const totals = Array.from({ length: together }, () => k.variable('total', literal('f32', 0)));
    const add = (positions: readonly [Expr, ...Expr[]], values: readonly Expr[]): void => {
      for (const [u, weight] of weigh(positions, strands).entries()) {
        for (const [head, sum] of sums.entries()) {
          k.set(sum, values[u]!.fma(splat(headOf(weight, head), 4), sum.value));
          k.set(totals[head]!, totals[head]!.value.add(headOf(weight, head)));
        }
      }
    };
    add(firstPositions, firstValues);
    const further = (begin: Expr): void => {
      const positions = positionsFrom(begin.add(strand));
      add(positions, readAll(positions));
    };
    k.for('begin', literal('u32', atOnce), count, further, atOnce);
    addStrands(k, vectors, own.eq(0), sums, totals, finish);
  };
}

/** Adds up what the strands have: [together, strands, vectors], and of weights [together, strands]. */
function addStrands(
  k: KernelBuilder,
  vectors: number,
  isFirst: Expr,
  sums: readonly Variable[],
  totals: readonly Variable[],
  finish: FinishMix,
): void {
  const strands = k.threads / vectors;
  const meeting = k.shared('meeting', 'f32x4', sums.length * k.threads);
  const weights = k.shared('strandWeights', 'f32', sums.length * strands);
  for (const [head, { value }] of sums.entries()) k.store(meeting, k.localIndex.add(head * k.threads), value);
  k.if(isFirst, () => {
    const strand = k.localIndex.div(vectors);
    for (const [head, { value }] of totals.entries()) k.store(weights, strand.add(head * strands), value);
  });
  k.barrier();
  const atOnce = [8, 4, 2].find((n) => strands % n === 0) ?? 1;
  const one = (index: Expr): void => {
    const head = k.let('head', index.div(vectors));
    const own = k.let('ownVector', index.rem(vectors));
    const mixture = k.variable('mixture', literal('f32x4', 0));
    const total = k.variable('weights', literal('f32', 0));
    k.for(
      'strand',
      head.mul(strands),
      head.add(1).mul(strands),
      (first) => {
        const place = (i: number): Expr => first.add(i).mul(vectors).add(own);
        const parts = Array.from({ length: atOnce }, (_, i) => k.let('part', meeting.at(place(i))));
        const shares = Array.from({ length: atOnce }, (_, i) => k.let('share', weights.at(first.add(i))));
        const added = (to: Expr, all: readonly Expr[]): Expr => all.reduce((sum, each) => sum.add(each), to);
        k.set(mixture, added(mixture.value, parts));
        k.set(total, added(total.value, shares));
      },
      atOnce,
    );
    finish(head, own, mixture.value, total.value);
  };
  k.for('index', k.localIndex, literal('u32', sums.length * vectors), one, k.threads);
}
