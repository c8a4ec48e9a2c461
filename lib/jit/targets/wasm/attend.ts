// lib/jit/targets/wasm/attend.ts: the code of attention for a few queries that share keys and values, the tokens of one
// head or the heads of one group: scores into scratch memory, their softmax there, then the weighted sum of the values.
// Keys and values are each read from memory once: a few at a time, for all queries (scores.ts, mixing.ts).

import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import { mixRun } from './mixing.js';
import { constant } from './nodes.js';
import { atRow, eachRow, inverseAt, type Queries, scoreBytes } from './queries.js';
import { acrossLanes, mapRow } from './rows.js';
import { f32, i32, select } from './scalars.js';
import { scoreRun } from './scores.js';
import { f32x4 } from './vectors.js';

export function attend(context: KernelContext, f: FunctionBuilder, queries: Queries): void {
  forEachRun(f, queries, (slot, run, j) => scoreRun(context, f, queries, slot, run, j));
  eachRow(f, queries, (row) => {
    const scores = atRow(f, queries.scores, row, scoreBytes(queries.capacity));
    if (queries.unseen) hideUnseen(f, scores, queries, row);
    softmaxInPlace(context, f, scores, queries);
    mapRow(f, atRow(f, queries.out, row, queries.valueDim * 4), queries.valueDim, () => f32x4.splat(0));
  });
  forEachRun(f, queries, (slot, run, j) => mixRun(context, f, queries, slot, run, j));
  eachRow(f, queries, (row) => {
    const scores = atRow(f, queries.scores, row, scoreBytes(queries.capacity));
    const inverse = f.let('inverse', loads.splat32(scores, inverseAt(queries.capacity)));
    const out = atRow(f, queries.out, row, queries.valueDim * 4);
    mapRow(f, out, queries.valueDim, (at) => f32x4.mul(loads.v128(i32.add(out, at)), inverse));
  });
}

/** Calls body for each stretch of neighbouring slots: one, or two where a ring wraps. */
function forEachRun(
  f: FunctionBuilder,
  { capacity, first, count }: Queries,
  body: (slot: Local, run: Local, j: Local) => void,
): void {
  const [slot, run, j] = [f.local('i32', 'slot'), f.local('i32', 'run'), f.local('i32', 'j')];
  f.set(j, 0);
  f.when(i32.gt_u(count, 0), () =>
    f.repeat(() => {
      f.set(slot, i32.rem_u(i32.add(first, j), capacity));
      f.set(
        run,
        select(
          i32.sub(count, j),
          i32.sub(capacity, slot),
          i32.lt_u(i32.sub(count, j), i32.sub(capacity, slot)),
          'i32',
        ),
      );
      body(slot, run, j);
      f.increase(j, run);
      return i32.lt_u(j, count);
    }),
  );
}

// ------------------------------------------------------------------ softmax

const HIDDEN = Number.NEGATIVE_INFINITY; // its exponential is 0

function hideUnseen(
  f: FunctionBuilder,
  scores: Local,
  { count, unseen }: Queries,
  row: Local | undefined,
): void {
  const { before, after } = unseen!(row ?? constant('i32', 0));
  const j = f.local('i32', 'j');
  const hide = () => f.do(stores.f32(i32.add(scores, i32.shl(j, 2)), HIDDEN));
  f.loop(j, 0, before, 1, hide);
  f.loop(j, i32.sub(count, after), count, 1, hide);
}

/** scores = exp(scores - largest), and 1 / their sum at inverseAt. */
function softmaxInPlace(
  context: KernelContext,
  f: FunctionBuilder,
  scores: Local,
  { count, capacity }: Queries,
): void {
  const bytes = f.let('bytes', i32.shl(count, 2));
  const end = f.let('end', i32.add(scores, bytes)); // the last vector is filled up
  for (const lane of [0, 1, 2]) f.do(stores.f32(end, HIDDEN, lane * 4));
  const at = f.local('i32', 'at');
  const largest = f.let('largest', constant('f32x4', HIDDEN));
  const address = () => i32.add(scores, at);
  f.loop(at, 0, bytes, 16, () => f.set(largest, f32x4.max(largest, loads.v128(address()))));
  f.set(largest, f32x4.splat(acrossLanes(largest, f32x4.extractLane, f32.max)));
  const total = f.let('total', f32x4.splat(0));
  const weight = f.local('v128', 'weight');
  f.loop(at, 0, bytes, 16, () => {
    f.set(weight, context.math('exp', f32x4.sub(loads.v128(address()), largest)));
    f.set(total, f32x4.add(total, weight));
    f.do(stores.v128(address(), weight));
  });
  const sum = acrossLanes(total, f32x4.extractLane, f32.add);
  f.do(stores.f32(scores, f32.div(1, sum), inverseAt(capacity)));
}
