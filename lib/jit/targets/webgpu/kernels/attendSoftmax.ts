// lib/jit/targets/webgpu/kernels/attendSoftmax.ts: a round's scores -> weights, for attention of many queries: each query
// keeps a running softmax. Source: Milakov and Gimelshein 2018, arXiv:1805.02867.
//
// A query's weights are made against a held score, not against the largest so far: it is replaced, and the result
// multiplied by what that makes of it, only when a score exceeds it by more than `slack`. So results can stay in the
// matrix units.

import type { Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { laneSum, literal, splat, vector } from '../../../kernels/expression.js';
import { reduceNeighbours } from '../../../kernels/reduce.js';
import type { Block } from './attendBlock.js';
import { packed } from './attendRows.js';
import type { OwnRow } from './attendStage.js';
import { ownStageAt } from './attendStage.js';
import type { AttendKernel } from './attendTile.js';

/** The score of a key that a query does not see. */
const hidden = -1e30;
/** Held before the first key: far above `hidden`, so that hidden keys weigh 0, and below any score. */
const nothing = -1e15;
/** A score may exceed the held one by this power of two: weights up to 2^8, float16 holds 2^15. */
const slack = 8;

/** A query's running softmax, the same in all threads of its row but for `total`: of the thread's own columns. */
export interface Running {
  readonly held: Variable;
  readonly total: Variable;
}

export function beginSoftmax({ k }: AttendKernel): Running {
  return {
    held: k.variable('held', literal('f32', nothing)),
    total: k.variable('total', literal('f32', 0)),
  };
}

/**
 * Scores -> weights.
 * @param at position of the round's first key
 * @returns what the query's older results are multiplied by
 */
export function weigh(
  kernel: AttendKernel,
  own: OwnRow,
  { held, total }: Running,
  at: Expr,
  block: Block,
): Expr {
  const { k, layout, memory, replaced } = kernel;
  const { strides, begins } = layout;
  const from = ownStageAt(kernel, own);
  const scores = own.places.map((place) => k.variable('score', memory.at(from.add(place)).bits('f32x4')));
  hideUnseen(kernel, own, scores, at, block);
  const four = k.let(
    'four',
    scores.map(({ value }) => value).reduce((a, b) => a.max(b)),
  );
  const most = reduceNeighbours(k, 'max', own.threads, largestLane(four));
  const isAbove = k.let('isAbove', most.gt(held.value.add(slack)));
  k.if(isAbove.and(held.value.gt(nothing / 2)), () => k.store(replaced, 0, 1));
  const next = k.let('next', isAbove.select(most, held.value));
  const keep = k.let('keep', held.value.sub(next).unary('exp2'));
  k.set(held, next);
  const weights = scores.map(({ value }) => k.let('weight', value.sub(splat(next, 4)).unary('exp2')));
  const sum = k.let('sum', weights.reduce((a, b) => a.add(b))); // biome-ignore format: short
  k.set(total, total.value.mul(keep).add(laneSum(sum)));
  const to = k.let('weightsAt', own.row.mul(strides.weights).add(begins.weights));
  for (let i = 0; i < weights.length; i += 2)
    k.store(memory, to.add(own.places[i]!.div(2)), packed(weights.slice(i, i + 2), own.isSwapped));
  return keep;
}

/** Hides what the query does not see, where some query of the block does not see all keys of the round. */
function hideUnseen(
  { k, spec, tile, layout }: AttendKernel,
  own: OwnRow,
  scores: readonly Variable[],
  at: Expr,
  { start, position }: Block,
): void {
  const { window } = spec;
  const isNew = at.add(tile.keys - 1).gt(position);
  const isOld = window === null ? null : at.lt(position.add(layout.queries - window));
  const lanes = vector(...[0, 1, 2, 3].map((lane) => literal('i32', lane)));
  k.if(isOld ? isNew.or(isOld) : isNew, () => {
    const newest = k.let('newest', start.add(own.query.bits('i32')));
    for (const [i, score] of scores.entries()) {
      const first = at.add(own.places[i]!.mul(4).bits('i32'));
      const positions = k.let('positions', splat(first, 4).add(lanes));
      const isPast = positions.le(splat(newest, 4));
      const isSeen = window === null ? isPast : isPast.and(positions.gt(splat(newest.sub(window), 4)));
      k.set(score, isSeen.select(score.value, literal('f32x4', hidden)));
    }
  });
}

function largestLane(four: Expr): Expr {
  return four
    .lane(0)
    .max(four.lane(1))
    .max(four.lane(2).max(four.lane(3)));
}
