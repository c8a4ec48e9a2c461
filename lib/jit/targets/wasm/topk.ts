// lib/jit/targets/wasm/topk.ts: TopK: values and places of the k largest of each row, the earlier first among equals.
// A small k is kept sorted while the row goes by; a large one is cut from the whole row sorted.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { fillMemory, loads, stores } from './memory.js';
import { constant, type Expr } from './nodes.js';
import { f32, i32, select } from './scalars.js';

/** Up to here insertion is faster than sorting: most elements fail against the last of the k. */
const INSERTED = 128;

/** Where one row lies and where its results go. */
interface Row {
  readonly n: number;
  readonly k: number;
  readonly isFloat: boolean;
  readonly row: Local;
  readonly best: Local;
  readonly places: Local;
}

export function emitTopK(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'TopK'>;
  const { k } = node.attrs;
  const { shape, dtype } = node.inputs[0]!;
  const n = shape.at(-1)!;
  const rows = sizeOf(shape.slice(0, -1));
  const { f, begin, end } = context.kernel('topk');
  const x = f.let('x', context.addresses.place(step.inputs[0]!));
  const values = f.let('values', context.addresses.place(step.outputs[0]!));
  const indices = f.let('indices', context.addresses.place(step.outputs[1]!));
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const parts: Row = {
      n,
      k,
      isFloat: dtype === 'f32',
      row: f.let('row', i32.add(x, i32.mul(unit, n * 4))),
      best: f.let('best', i32.add(values, i32.mul(unit, k * 4))),
      places: f.let('places', i32.add(indices, i32.mul(unit, k * 4))),
    };
    if (k <= INSERTED) insert(f, parts);
    else sort(f, parts, f.let('scratch', context.scratch(16 * n + COUNTS_BYTES)));
  });
  return context.finish(f, k === 0 ? 0 : rows, false);
}

/** The k best so far, sorted in the output: a better one moves the smaller ones on; equal ones came first and stay. */
function insert(f: FunctionBuilder, { n, k, isFloat, row, best, places }: Row): void {
  const load = isFloat ? loads.f32 : loads.i32;
  const store = isFloat ? stores.f32 : stores.i32;
  const isMore = isFloat ? f32.gt : i32.gt_s;
  const value = f.local(isFloat ? 'f32' : 'i32', 'value');
  const [i, held, slot] = [f.local('i32', 'i'), f.local('i32', 'held'), f.local('i32', 'slot')];
  f.set(held, 0);
  f.loop(i, 0, n, 1, () => {
    f.set(value, load(i32.add(row, i32.shl(i, 2))));
    const last = i32.add(best, (k - 1) * 4);
    f.when(i32.or(i32.lt_u(held, k), isMore(value, load(last))), () => {
      f.set(slot, select(held, k - 1, i32.lt_u(held, k), 'i32'));
      f.when(i32.lt_u(held, k), () => f.increase(held, 1));
      f.block(() => {
        f.repeat(() => {
          f.leaveIf(i32.eqz(slot), 1);
          const above = i32.shl(i32.sub(slot, 1), 2);
          f.leaveIf(i32.eqz(isMore(value, load(i32.add(best, above)))), 1);
          f.do(
            store(i32.add(best, above), load(i32.add(best, above)), 4),
            stores.i32(i32.add(places, above), loads.i32(i32.add(places, above)), 4),
          );
          f.increase(slot, -1);
          return constant('i32', 1);
        });
      });
      f.do(store(i32.add(best, i32.shl(slot, 2)), value), stores.i32(i32.add(places, i32.shl(slot, 2)), i));
    });
  });
}

const DIGITS = 256;
const COUNTS_BYTES = DIGITS * 4;

/**
 * Sorts the row by four passes over bytes of a key, each keeping the order of equals, and takes the first k.
 * Scratch: two lists of n pairs (key, place), then the counts of a pass. Source: Knuth, volume 3, algorithm 5.2.5R.
 */
function sort(f: FunctionBuilder, { n, k, isFloat, row, best, places }: Row, scratch: Local): void {
  const [i, at] = [f.local('i32', 'i'), f.local('i32', 'at')];
  const other = f.let('other', i32.add(scratch, 8 * n));
  const counts = f.let('counts', i32.add(scratch, 16 * n));
  f.loop(i, 0, n, 1, () => {
    const pair = f.let('pair', i32.add(scratch, i32.shl(i, 3)));
    const bits = f.let('bits', loads.i32(i32.add(row, i32.shl(i, 2))));
    f.do(stores.i32(pair, descendingKey(bits, isFloat)), stores.i32(pair, i, 4));
  });
  let [from, to] = [scratch, other];
  for (const shift of [0, 8, 16, 24]) {
    const digitOf = (pair: Expr) => i32.and(i32.shr_u(loads.i32(pair), shift), DIGITS - 1);
    f.do(fillMemory(counts, 0, COUNTS_BYTES));
    f.loop(at, from, i32.add(from, 8 * n), 8, () => {
      const count = f.let('count', i32.add(counts, i32.shl(digitOf(at), 2)));
      f.do(stores.i32(count, i32.add(loads.i32(count), 8)));
    });
    countsToPlaces(f, counts);
    const target = to;
    f.loop(at, from, i32.add(from, 8 * n), 8, () => {
      const count = f.let('count', i32.add(counts, i32.shl(digitOf(at), 2)));
      const place = f.let('place', loads.i32(count));
      f.do(stores.i64(i32.add(target, place), loads.i64(at)), stores.i32(count, i32.add(place, 8)));
    });
    [from, to] = [to, from];
  }
  f.loop(i, 0, k, 1, () => {
    const offset = i32.shl(i, 2);
    const index = f.let('index', loads.i32(i32.add(from, i32.shl(i, 3)), 4));
    f.do(
      stores.i32(i32.add(places, offset), index),
      stores.i32(i32.add(best, offset), loads.i32(i32.add(row, i32.shl(index, 2)))),
    );
  });
}

/** Unsigned keys whose rising order is the falling order of the values. */
function descendingKey(bits: Local, isFloat: boolean): Expr {
  const zeroed = select(0, bits, i32.eq(bits, 0x80000000 | 0), 'i32'); // -0 equals 0
  // float32: a negative number's bits already fall as it rises; a positive one's are turned round.
  return isFloat
    ? i32.xor(zeroed, i32.and(i32.xor(i32.shr_s(zeroed, 31), -1), 0x7fffffff))
    : i32.xor(bits, 0x7fffffff);
}

/** Each count becomes the sum of those before it. */
function countsToPlaces(f: FunctionBuilder, counts: Local): void {
  const [digit, sum] = [f.local('i32', 'digit'), f.local('i32', 'sum')];
  f.set(sum, 0);
  f.loop(digit, 0, COUNTS_BYTES, 4, () => {
    const count = f.let('held', i32.add(counts, digit));
    const own = f.let('own', loads.i32(count));
    f.do(stores.i32(count, sum));
    f.increase(sum, own);
  });
}
