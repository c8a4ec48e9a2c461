// lib/jit/targets/wasm/mixing.ts: the weighted sum of a stretch of values for all queries: one query by 6 vectors of the
// output at a time, or two queries by 4: with their values and weights they fill the registers.

import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import { constant } from './nodes.js';
import { atRow, eachPair, type Queries, scoreBytes } from './queries.js';
import { i32, select } from './scalars.js';
import { storeLanes } from './strips.js';

/** Vectors of the output that are summed up at a time, by rows; 8 of one row were 20 % slower. */
const MIXED = { 1: 6, 2: 4 } as const;
/** Values that all queries take before the next ones are read: they stay in the first-level cache. */
const BLOCK = 32;

/** out[row] += scores[row][j..j + run] times values. */
export function mixRun(
  context: KernelContext,
  f: FunctionBuilder,
  queries: Queries,
  slot: Local,
  run: Local,
  j: Local,
): void {
  const { rows: all, capacity, valueDim } = queries;
  const rowBytes = valueDim * 4;
  const block = all === 1 ? capacity : BLOCK;
  const done = f.local('i32', 'done');
  f.loop(done, 0, run, block, () => {
    const left = i32.sub(run, done);
    const size = f.let('size', select(left, block, i32.lt_u(left, block), 'i32'));
    const start = f.let('start', i32.add(queries.values, i32.mul(i32.add(slot, done), rowBytes)));
    const weights = f.let('weights', i32.add(queries.scores, i32.shl(i32.add(j, done), 2)));
    eachPair(f, queries, (row, rows) => {
      const scores = atRow(f, weights, row, scoreBytes(capacity));
      const out = atRow(f, queries.out, row, rowBytes);
      const last = f.let('last', i32.add(scores, i32.shl(size, 2)));
      for (let first = 0; first < valueDim; first += MIXED[rows] * 4)
        mixBlock(context, f, { start, scores, last, out, first, rows, valueDim, capacity });
    });
  });
}

interface Mix {
  readonly start: Local;
  readonly scores: Local;
  readonly last: Local;
  readonly out: Local;
  readonly first: number;
  readonly rows: 1 | 2;
  readonly valueDim: number;
  readonly capacity: number;
}

/** out[row][first..first + 4 * MIXED] += sum of scores[row][i] * value[i]. */
function mixBlock(context: KernelContext, f: FunctionBuilder, mix: Mix): void {
  const { start, scores, last, out, first, rows, valueDim, capacity } = mix;
  const vectors = Math.min(MIXED[rows], Math.ceil((valueDim - first) / 4));
  const sums = f.vectors('mixed', rows * vectors);
  const held = f.vectors('held', vectors);
  const weight = f.local('v128', 'weight');
  const value = f.let('value', i32.add(start, first * 4));
  const score = f.local('i32', 'score');
  const place = (i: number) => (Math.floor(i / vectors) * valueDim + first + (i % vectors) * 4) * 4;
  sums.forEach((sum, i) => {
    f.set(sum, loads.v128(out, place(i)));
  });
  f.loop(score, scores, last, 4, () => {
    held.forEach((each, i) => {
      f.set(each, loads.v128(value, i * 16));
    });
    for (let row = 0; row < rows; row++) {
      f.set(weight, loads.splat32(score, row * scoreBytes(capacity)));
      held.forEach((each, i) => {
        const sum = sums[row * vectors + i]!;
        f.set(sum, context.multiplyAdd(weight, each, sum));
      });
    }
    f.increase(value, valueDim * 4);
  });
  sums.forEach((sum, i) => {
    const lanes = Math.min(4, valueDim - first - (i % vectors) * 4);
    const to = i32.add(out, place(i));
    if (lanes === 4) f.do(stores.v128(to, sum));
    else storeLanes(f, to, sum, constant('i32', lanes * 4));
  });
}
