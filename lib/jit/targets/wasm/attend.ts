// lib/jit/targets/wasm/attend.ts: the code of attention for a few queries that share keys and values, the tokens of one
// head or the heads of one group. Block by block: scores into scratch memory, their weights there, the weighted sum of the
// values onto the result. Keys and values are each read from memory once, side by side, for all queries.
// Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (weights are relative to the largest score so far: where a larger
// one comes, what is summed up is scaled down).

import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import { mixBlock } from './mixing.js';
import { constant, type Expr } from './nodes.js';
import {
  atRow,
  type Block,
  eachBlockOf,
  eachRow,
  type Queries,
  SCORE_BYTES,
  SUMS_AT,
  sumBytes,
} from './queries.js';
import { acrossLanes, mapRow } from './rows.js';
import { f32, i32, select } from './scalars.js';
import { scoreBlock } from './scores.js';
import { f32x4, i8x16, v128 } from './vectors.js';

/** The largest score before the first: finite, so that a block of hidden scores leaves no NaN behind. */
const LOWEST = -3.4028234663852886e38;
const HIDDEN = Number.NEGATIVE_INFINITY; // its exponential is 0
/** Bytes of a vector, its halves and its neighbours swapped. */
const SWAPPED = [
  [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7],
  [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11],
] as const;

/** Leaves the sums of each row. */
export function attend(context: KernelContext, f: FunctionBuilder, queries: Queries): void {
  const sumsOf = (row: Local | undefined) => atRow(f, queries.sums, row, sumBytes(queries.valueDim));
  eachRow(f, queries, (row) => {
    const sums = sumsOf(row);
    f.do(stores.v128(sums, f32x4.splat(LOWEST), SUMS_AT.largest));
    f.do(stores.v128(sums, f32x4.splat(0), SUMS_AT.total));
    mapRow(f, mixedOf(f, sums), padded(queries), () => f32x4.splat(0));
  });
  eachBlockOf(f, queries, (block) => {
    scoreBlock(context, f, queries, block);
    eachRow(f, queries, (row) => {
      const scores = atRow(f, queries.scores, row, SCORE_BYTES);
      const sums = sumsOf(row);
      if (queries.unseen) hideUnseen(f, scores, queries, block, row);
      fillUp(f, scores, block);
      raiseLargest(context, f, scores, sums, queries, block);
      weigh(context, f, scores, sums, block);
    });
    mixBlock(context, f, queries, block);
  });
}

/** out[row] = the weighted sum of the values by the sum of the weights. */
export function divide(f: FunctionBuilder, queries: Queries, out: Local): void {
  const { valueDim } = queries;
  eachRow(f, queries, (row) => {
    const sums = atRow(f, queries.sums, row, sumBytes(valueDim));
    const total = f.let('total', loads.v128(sums, SUMS_AT.total));
    const inverse = f.let('inverse', inverseOf(total));
    mapRow(f, atRow(f, out, row, valueDim * 4), valueDim, (at) =>
      f32x4.mul(loads.v128(i32.add(sums, at), SUMS_AT.mixed), inverse),
    );
  });
}

/** 1 / the sum of the lanes, in all lanes. */
export const inverseOf = (total: Local): Expr =>
  f32x4.splat(f32.div(1, acrossLanes(total, f32x4.extractLane, f32.add)));

const mixedOf = (f: FunctionBuilder, sums: Local) => f.let('mixed', i32.add(sums, SUMS_AT.mixed));
const padded = ({ valueDim }: Queries) => Math.ceil(valueDim / 4) * 4;

/** Scores of the block that a row does not see. */
function hideUnseen(
  f: FunctionBuilder,
  scores: Local,
  { count, unseen }: Queries,
  { j, size }: Block,
  row: Local | undefined,
): void {
  const { before, after } = unseen!(row ?? constant('i32', 0));
  const i = f.local('i32', 'i');
  const hide = () => f.do(stores.f32(i32.add(scores, i32.shl(i, 2)), HIDDEN));
  const inBlock = (position: Expr) => {
    const at = f.let('at', i32.sub(position, j));
    f.set(at, select(at, 0, i32.gt_s(at, 0), 'i32'));
    f.set(at, select(at, size, i32.lt_s(at, size), 'i32'));
    return at;
  };
  f.loop(i, 0, inBlock(before), 1, hide);
  f.loop(i, inBlock(i32.sub(count, after)), size, 1, hide);
}

/** Hides what the last vector of scores holds beyond the block. */
function fillUp(f: FunctionBuilder, scores: Local, { size }: Block): void {
  f.when(i32.and(size, 3), () => {
    const end = f.let('end', i32.add(scores, i32.shl(size, 2)));
    for (const lane of [0, 1, 2]) f.do(stores.f32(end, HIDDEN, lane * 4));
  });
}

/** Where the block has a larger score than those before it: what was summed up is scaled down. */
function raiseLargest(
  context: KernelContext,
  f: FunctionBuilder,
  scores: Local,
  sums: Local,
  queries: Queries,
  { size }: Block,
): void {
  const at = f.local('i32', 'at');
  const end = f.let('end', i32.add(scores, i32.shl(size, 2)));
  const before = f.let('before', loads.v128(sums, SUMS_AT.largest));
  const largest = f.let('largest', before);
  f.loop(at, scores, end, 16, () => f.set(largest, f32x4.pmax(largest, loads.v128(at))));
  for (const order of SWAPPED) f.set(largest, f32x4.pmax(largest, i8x16.shuffle(largest, largest, order)));
  f.when(v128.any_true(f32x4.ne(largest, before)), () => {
    const factor = f.let('factor', context.math('exp', f32x4.sub(before, largest)));
    f.do(stores.v128(sums, largest, SUMS_AT.largest));
    f.do(stores.v128(sums, f32x4.mul(loads.v128(sums, SUMS_AT.total), factor), SUMS_AT.total));
    const mixed = mixedOf(f, sums);
    mapRow(f, mixed, padded(queries), (i) => f32x4.mul(loads.v128(i32.add(mixed, i)), factor));
  });
}

/** Scores -> weights exp(score - largest), added to their total. */
function weigh(
  context: KernelContext,
  f: FunctionBuilder,
  scores: Local,
  sums: Local,
  { size }: Block,
): void {
  const at = f.local('i32', 'at');
  const end = f.let('end', i32.add(scores, i32.shl(size, 2)));
  const largest = f.let('largest', loads.v128(sums, SUMS_AT.largest));
  const total = f.let('total', loads.v128(sums, SUMS_AT.total));
  const weight = f.local('v128', 'weight');
  f.loop(at, scores, end, 16, () => {
    f.set(weight, context.math('exp', f32x4.sub(loads.v128(at), largest)));
    f.set(total, f32x4.add(total, weight));
    f.do(stores.v128(at, weight));
  });
  f.do(stores.v128(sums, total, SUMS_AT.total));
}
