// lib/jit/targets/wasm/mixing.ts: the weighted sum of a block of values for all queries: one query by 6 vectors of the
// output at a time, or two queries by 4: with their values and weights they fill the registers.

import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import {
  atRow,
  type Block,
  eachPair,
  leastOf,
  type Queries,
  SCORE_BYTES,
  SUMS_AT,
  sumBytes,
  touches,
} from './queries.js';
import { i32 } from './scalars.js';
import { touch } from './touch.js';

/** Vectors of the output that are summed up at a time, by rows; 8 of one row were 20 % slower. */
const MIXED = { 1: 6, 2: 4 } as const;

/** mixed[row] += the weights of a block, where its scores were, times its values. */
export function mixBlock(context: KernelContext, f: FunctionBuilder, queries: Queries, block: Block): void {
  const { valueDim } = queries;
  const rowBytes = valueDim * 4;
  const start = f.let('start', i32.add(queries.values, i32.mul(block.slot, rowBytes)));
  // The next keys, or others where so many do not come.
  const next = leastOf(i32.add(block.slot, block.size), i32.sub(queries.capacity, block.size));
  const keyBytes = queries.keyDim * 4;
  const nextKeys = f.let('nextKeys', i32.add(queries.keys, i32.mul(next, keyBytes)));
  eachPair(f, queries, (row, rows) => {
    const scores = atRow(f, queries.scores, row, SCORE_BYTES);
    const sums = atRow(f, queries.sums, row, sumBytes(valueDim));
    const last = f.let('last', i32.add(scores, i32.shl(block.size, 2)));
    for (let first = 0; first < valueDim; first += MIXED[rows] * 4) {
      const touched = first === 0 && touches(queries) ? { keys: nextKeys, keyBytes } : undefined;
      mixColumns(context, f, { start, scores, last, sums, first, rows, valueDim, touched });
    }
  });
}

interface Mix {
  readonly start: Local;
  readonly scores: Local;
  readonly last: Local;
  readonly sums: Local;
  readonly first: number;
  readonly rows: 1 | 2;
  readonly valueDim: number;
  /** A key is touched for each value. */
  readonly touched: { readonly keys: Local; readonly keyBytes: number } | undefined;
}

/** mixed[row][first..first + 4 * MIXED] += sum of scores[row][i] * value[i]. */
function mixColumns(context: KernelContext, f: FunctionBuilder, mix: Mix): void {
  const { start, scores, last, sums, first, rows, valueDim, touched } = mix;
  const vectors = Math.min(MIXED[rows], Math.ceil((valueDim - first) / 4));
  const mixed = f.vectors('mixed', rows * vectors);
  const held = f.vectors('held', vectors);
  const weight = f.local('v128', 'weight');
  const value = f.let('value', i32.add(start, first * 4));
  const score = f.local('i32', 'score');
  const place = (i: number) =>
    Math.floor(i / vectors) * sumBytes(valueDim) + SUMS_AT.mixed + first * 4 + (i % vectors) * 16;
  mixed.forEach((each, i) => {
    f.set(each, loads.v128(sums, place(i)));
  });
  const key = touched && f.let('key', touched.keys);
  f.loop(score, scores, last, 4, () => {
    if (touched && key) {
      touch(f, key, touched.keyBytes);
      f.increase(key, touched.keyBytes);
    }
    held.forEach((each, i) => {
      f.set(each, loads.v128(value, i * 16));
    });
    for (let row = 0; row < rows; row++) {
      f.set(weight, loads.splat32(score, row * SCORE_BYTES));
      held.forEach((each, i) => {
        const to = mixed[row * vectors + i]!;
        f.set(to, context.multiplyAdd(weight, each, to));
      });
    }
    f.increase(value, valueDim * 4);
  });
  mixed.forEach((each, i) => {
    f.do(stores.v128(sums, each, place(i)));
  });
}
