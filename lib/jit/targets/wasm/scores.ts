// lib/jit/targets/wasm/scores.ts: scores of attention: queries times a block of keys, four keys by two queries at a time.
// 8 sums, 4 keys and 2 queries fit into registers, and a load serves more than one multiplication.

import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import type { Expr } from './nodes.js';
import { atRow, type Block, eachPair, type Queries, SCORE_BYTES, touches } from './queries.js';
import { maskTail } from './rows.js';
import { f32, i32 } from './scalars.js';
import { touch } from './touch.js';
import { f32x4, i8x16 } from './vectors.js';

const KEYS = 4;

/**
 * scores[row] = scale * query . key (+ mask) of a block: four keys at a time, then one by one. May touch the block's
 * values, as mixing.ts does the next keys: memory then has something to do in either half of the work.
 */
export function scoreBlock(context: KernelContext, f: FunctionBuilder, queries: Queries, block: Block): void {
  const rowBytes = queries.keyDim * 4;
  const key = f.let('key', i32.add(queries.keys, i32.mul(block.slot, rowBytes)));
  const value = f.let('value', i32.add(queries.values, i32.mul(block.slot, queries.valueDim * 4)));
  const score = f.let('score', queries.scores);
  const left = f.let('left', block.size);
  const sums = f.vectors('dot', 2 * KEYS);
  /** The next `keys` keys, for all queries, while there are so many. */
  const take = (keys: 1 | 4) => {
    const goesOn = () => i32.ge_u(left, keys);
    const round = () => {
      if (touches(queries)) touch(f, value, keys * queries.valueDim * 4);
      f.increase(value, keys * queries.valueDim * 4);
      eachPair(f, queries, (row, rows) => {
        const query = atRow(f, queries.query, row, rowBytes);
        const to = atRow(f, score, row, SCORE_BYTES);
        dotProducts(context, f, { query, key, rows, keys, keyDim: queries.keyDim }, sums);
        for (let own = 0; own < rows; own++) {
          const dots = sums.slice(own * keys, (own + 1) * keys);
          const total = keys === KEYS ? sumsOfFour(f, dots) : f32x4.splat(sumOfLanes(dots[0]!));
          const scaled = f32x4.mul(total, queries.scale);
          const store = keys === KEYS ? stores.v128 : stores.f32;
          f.do(store(to, keys === KEYS ? scaled : f32x4.extractLane(scaled, 0), own * SCORE_BYTES));
        }
      });
      f.increase(key, keys * rowBytes);
      f.increase(score, keys * 4);
      f.increase(left, -keys);
      return goesOn();
    };
    f.when(goesOn(), () => f.repeat(round));
  };
  take(KEYS);
  take(1);
  if (queries.mask) addMask(f, queries, block);
}

/** In the order of sumsOfFour, so that a key's score does not depend on where it lies. */
function sumOfLanes(sum: Local): Expr {
  const lane = (i: number) => f32x4.extractLane(sum, i);
  return f32.add(f32.add(lane(0), lane(2)), f32.add(lane(1), lane(3)));
}

/** Masks come with one row only. */
function addMask(f: FunctionBuilder, { scores, mask }: Queries, { j, size }: Block): void {
  const i = f.local('i32', 'i');
  f.loop(i, 0, size, 1, () => {
    const address = i32.add(scores, i32.shl(i, 2));
    f.do(stores.f32(address, f32.add(loads.f32(address), mask!(i32.add(j, i)))));
  });
}

interface Tile {
  readonly query: Local;
  readonly key: Local;
  readonly rows: number;
  readonly keys: number;
  readonly keyDim: number;
}

/** sums[row][key] = partial sums, by lane, of query[row] . key[key]. */
function dotProducts(
  context: KernelContext,
  f: FunctionBuilder,
  { query, key, rows, keys, keyDim }: Tile,
  sums: readonly Local[],
): void {
  const at = f.local('i32', 'at');
  const value = f.local('v128', 'value');
  const held = f.vectors('held', keys);
  for (let i = 0; i < rows * keys; i++) f.set(sums[i]!, f32x4.splat(0));
  const add = (address: (base: Local, row: number) => Expr, lanes: number) => {
    held.forEach((each, i) => {
      f.set(each, maskTail(address(key, i * keyDim * 4), f32x4.splat(0), lanes));
    });
    for (let row = 0; row < rows; row++) {
      f.set(value, maskTail(address(query, row * keyDim * 4), f32x4.splat(0), lanes));
      held.forEach((each, i) => {
        const sum = sums[row * keys + i]!;
        f.set(sum, context.multiplyAdd(value, each, sum));
      });
    }
  };
  const whole = Math.floor(keyDim / 4) * 16;
  const vectors = rows === 1 && whole % 32 === 0 ? 2 : 1; // of two rows, two would not fit the registers
  f.loop(at, 0, whole, vectors * 16, () => {
    for (let i = 0; i < vectors; i++)
      add((base, offset) => loads.v128(i32.add(base, at), offset + i * 16), 4);
  });
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
  const second = first.map((lane) => lane + 8);
  return f32x4.add(i8x16.shuffle(ab, cd, first), i8x16.shuffle(ab, cd, second));
}
