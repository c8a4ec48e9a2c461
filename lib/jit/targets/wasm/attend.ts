// lib/jit/targets/wasm/attend.ts: the code of attention of one query, for heads that share keys and values: scores into
// scratch memory, their softmax there, then the weighted sum of the values. Keys and values are each read once: for
// several heads a few keys at a time, so that memory is read while all heads compute.

import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import { constant, type Expr, type Operand } from './nodes.js';
import { acrossLanes, mapRow, maskTail } from './rows.js';
import { f32, i32, select } from './scalars.js';
import { storeLanes } from './strips.js';
import { f32x4, i8x16 } from './vectors.js';

/** Heads that share keys and values: row-major [capacity, dim], position p in slot p % capacity. */
export interface Heads {
  readonly group: number;
  /** Of the first head; those of the next follow at once: [group, keyDim] and [group, valueDim]. */
  readonly query: Local;
  readonly out: Local;
  readonly keys: Local;
  readonly values: Local;
  readonly scores: Local; // scratch of scoreBytes a head
  readonly capacity: number;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly scale: number;
  /** First position and number of positions. */
  readonly first: Local;
  readonly count: Local;
  /** Added to the score of position first + j. */
  readonly mask?: (j: Expr) => Expr;
}

/** Scratch of one head: scores, up to three fillers, and at inverseAt 1 / sum. */
export const scoreBytes = (capacity: number): number => inverseAt(capacity) + 16;
const inverseAt = (capacity: number) => Math.ceil(capacity / 4) * 16 + 16;

export function attend(context: KernelContext, f: FunctionBuilder, heads: Heads): void {
  forEachRun(f, heads, (slot, run, j) => scoreRun(f, heads, slot, run, j));
  eachHead(f, heads, (head) => {
    const scores = atHead(f, heads.scores, head, scoreBytes(heads.capacity));
    softmaxInPlace(context, f, scores, heads);
    mapRow(f, atHead(f, heads.out, head, heads.valueDim * 4), heads.valueDim, () => f32x4.splat(0));
  });
  forEachRun(f, heads, (slot, run, j) => mixRun(f, heads, slot, run, j));
  eachHead(f, heads, (head) => {
    const scores = atHead(f, heads.scores, head, scoreBytes(heads.capacity));
    const inverse = f.let('inverse', loads.splat32(scores, inverseAt(heads.capacity)));
    const out = atHead(f, heads.out, head, heads.valueDim * 4);
    mapRow(f, out, heads.valueDim, (at) => f32x4.mul(loads.v128(i32.add(out, at)), inverse));
  });
}

/** body for each head; no loop for one. */
function eachHead(f: FunctionBuilder, { group }: Heads, body: (head: Local | undefined) => void): void {
  if (group === 1) {
    body(undefined);
    return;
  }
  const head = f.local('i32', 'head');
  f.loop(head, 0, group, 1, () => body(head));
}

const atHead = (f: FunctionBuilder, base: Local, head: Local | undefined, step: number): Local =>
  head ? f.let('own', i32.add(base, i32.mul(head, step))) : base;

/** Calls body for each stretch of neighbouring slots: one, or two where a ring wraps. */
function forEachRun(
  f: FunctionBuilder,
  { capacity, first, count }: Heads,
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

// ------------------------------------------------------------------ scores

/** scores[j..j + run] = scale * query . key (+ mask): four keys at a time, then one by one. */
function scoreRun(f: FunctionBuilder, heads: Heads, slot: Local, run: Local, j: Local): void {
  const rowBytes = heads.keyDim * 4;
  const key = f.let('key', i32.add(heads.keys, i32.mul(slot, rowBytes)));
  const score = f.let('score', i32.add(heads.scores, i32.shl(j, 2)));
  const left = f.let('left', run);
  const sums = f.vectors('dot', 4);
  /** The next `keys` keys, for all heads, while there are so many. */
  const take = (keys: 1 | 4) => {
    const goesOn = () => i32.ge_u(left, keys);
    const round = () => {
      eachHead(f, heads, (head) => {
        const query = atHead(f, heads.query, head, rowBytes);
        const to = atHead(f, score, head, scoreBytes(heads.capacity));
        dotProducts(f, query, heads.keyDim, key, sums.slice(0, keys));
        const total = keys === 4 ? sumsOfFour(f, sums) : f32x4.splat(sumOfLanes(sums[0]!));
        const scaled = f32x4.mul(total, heads.scale);
        f.do(keys === 4 ? stores.v128(to, scaled) : stores.f32(to, f32x4.extractLane(scaled, 0)));
      });
      f.increase(key, keys * rowBytes);
      f.increase(score, keys * 4);
      f.increase(left, -keys);
      return goesOn();
    };
    f.when(goesOn(), () => f.repeat(round));
  };
  take(4);
  take(1);
  if (heads.mask) addMask(f, heads, run, j);
}

/** In the order of sumsOfFour, so that a key's score does not depend on where it lies. */
function sumOfLanes(sum: Local): Expr {
  const lane = (i: number) => f32x4.extractLane(sum, i);
  return f32.add(f32.add(lane(0), lane(2)), f32.add(lane(1), lane(3)));
}

/** Masks come with one head a unit only. */
function addMask(f: FunctionBuilder, { scores, mask }: Heads, run: Local, j: Local): void {
  const i = f.local('i32', 'i');
  f.loop(i, j, i32.add(j, run), 1, () => {
    const address = i32.add(scores, i32.shl(i, 2));
    f.do(stores.f32(address, f32.add(loads.f32(address), mask!(i))));
  });
}

/** sums[i] = partial sums, by lane, of query . key[i]. */
function dotProducts(
  f: FunctionBuilder,
  query: Local,
  keyDim: number,
  key: Local,
  sums: readonly Local[],
): void {
  const at = f.local('i32', 'at');
  const value = f.local('v128', 'value');
  for (const sum of sums) f.set(sum, f32x4.splat(0));
  const add = (address: (base: Local, row: number) => Expr, lanes: number) => {
    f.set(value, address(query, 0));
    sums.forEach((sum, row) => {
      const product = f32x4.mul(value, address(key, row * keyDim * 4));
      f.set(sum, f32x4.add(sum, maskTail(product, f32x4.splat(0), lanes)));
    });
  };
  const whole = Math.floor(keyDim / 4) * 16;
  f.loop(at, 0, whole, 16, () => add((base, offset) => loads.v128(i32.add(base, at), offset), 4));
  if (keyDim % 4 > 0) add((base, offset) => loads.v128(base, offset + whole), keyDim % 4);
}

/** Four vectors -> the sum of each one's lanes, (0 + 2) + (1 + 3). */
function sumsOfFour(f: FunctionBuilder, vectors: readonly Local[]): Expr {
  const [a, b, c, d] = vectors as [Local, Local, Local, Local];
  const low = [0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23];
  const high = low.map((lane) => lane + 8);
  const halves = (x: Local, y: Local) => f32x4.add(i8x16.shuffle(x, y, low), i8x16.shuffle(x, y, high));
  const ab = f.let('ab', halves(a, b)); // a0 + a2, b0 + b2, a1 + a3, b1 + b3
  const cd = f.let('cd', halves(c, d));
  const first = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];
  return f32x4.add(
    i8x16.shuffle(ab, cd, first),
    i8x16.shuffle(
      ab,
      cd,
      first.map((lane) => lane + 8),
    ),
  );
}

// ------------------------------------------------------------------ softmax and values

/** scores = exp(scores - largest), and 1 / their sum at inverseAt. */
function softmaxInPlace(
  context: KernelContext,
  f: FunctionBuilder,
  scores: Local,
  { count, capacity }: Heads,
): void {
  const bytes = f.let('bytes', i32.shl(count, 2));
  // -Infinity fills the last vector: its exponential is 0.
  const end = f.let('end', i32.add(scores, bytes));
  for (const lane of [0, 1, 2]) f.do(stores.f32(end, Number.NEGATIVE_INFINITY, lane * 4));
  const at = f.local('i32', 'at');
  const largest = f.let('largest', constant('f32x4', Number.NEGATIVE_INFINITY));
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

/** Vectors of the output that are summed up at a time: with their values they fill the registers; 8 were 20 % slower. */
const MIXED = 6;
/** Values that all heads take before the next ones are read: they stay in the first-level cache. */
const BLOCK = 32;

/** out += scores[j..j + run] times values, for all heads. */
function mixRun(f: FunctionBuilder, heads: Heads, slot: Local, run: Local, j: Local): void {
  const rowBytes = heads.valueDim * 4;
  const block = heads.group === 1 ? heads.capacity : BLOCK;
  const done = f.local('i32', 'done');
  f.loop(done, 0, run, block, () => {
    const left = i32.sub(run, done);
    const size = f.let('size', select(left, block, i32.lt_u(left, block), 'i32'));
    const start = f.let('start', i32.add(heads.values, i32.mul(i32.add(slot, done), rowBytes)));
    const weights = f.let('weights', i32.add(heads.scores, i32.shl(i32.add(j, done), 2)));
    eachHead(f, heads, (head) => {
      const scores = atHead(f, weights, head, scoreBytes(heads.capacity));
      const out = atHead(f, heads.out, head, rowBytes);
      for (let first = 0; first < heads.valueDim; first += MIXED * 4)
        mixBlock(f, { start, scores, out, size, first, valueDim: heads.valueDim });
    });
  });
}

interface Mix {
  readonly start: Local;
  readonly scores: Local;
  readonly out: Local;
  readonly size: Local;
  readonly first: number;
  readonly valueDim: number;
}

/** out[first..first + 4 * MIXED] += sum of scores[i] * value[i]. */
function mixBlock(f: FunctionBuilder, { start, scores, out, size, first, valueDim }: Mix): void {
  const vectors = Math.min(MIXED, Math.ceil((valueDim - first) / 4));
  const sums = f.vectors('mixed', vectors);
  const weight = f.local('v128', 'weight');
  const value = f.let('value', i32.add(start, first * 4));
  const score = f.local('i32', 'score');
  sums.forEach((sum, i) => {
    f.set(sum, loads.v128(out, first * 4 + i * 16));
  });
  f.loop(score, scores, f.let('last', i32.add(scores, i32.shl(size, 2))), 4, () => {
    f.set(weight, loads.splat32(score));
    sums.forEach((sum, i) => {
      f.set(sum, f32x4.add(sum, f32x4.mul(weight, loads.v128(value, i * 16))));
    });
    f.increase(value, valueDim * 4);
  });
  sums.forEach((sum, i) => {
    const lanes: Operand = Math.min(4, valueDim - first - i * 4);
    const to = i32.add(out, first * 4 + i * 16);
    if (lanes === 4) f.do(stores.v128(to, sum));
    else storeLanes(f, to, sum, constant('i32', lanes * 4));
  });
}
