// lib/jit/targets/wasm/attention.ts: attention of one query over keys and values, which are each read once: scores into
// scratch memory, their softmax there, then the weighted sum of the values. One unit of work is one query of one head.
// Source: Vaswani et al. 2017, section 3.2.1.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode, Value } from '../../graph.js';
import type { KernelStep } from '../../plan.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { addStrides, unravel } from './elementwise.js';
import { loads, stores } from './memory.js';
import { constant, type Expr, type Operand } from './nodes.js';
import { acrossLanes, mapRow, maskTail } from './rows.js';
import { f32, i32, select } from './scalars.js';
import { storeLanes } from './strips.js';
import { f32x4, i8x16 } from './vectors.js';

/** Keys and values of one head: row-major [capacity, dim], position p in slot p % capacity. */
interface Head {
  readonly query: Local;
  readonly keys: Local;
  readonly values: Local;
  readonly out: Local;
  readonly scores: Local; // scratch of `capacity` floats and 12 bytes
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

const scoreBytes = (capacity: number) => capacity * 4 + 16;

export function emitCachedAttention(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'CachedAttention'>;
  const { scale, window } = node.attrs;
  const [batch, heads, query, keyDim] = node.inputs[0]!.shape as [number, number, number, number];
  const [, kvHeads, capacity] = node.inputs[1]!.shape as [number, number, number, number];
  const { f, begin, end } = context.kernel('cachedAttention');
  const [q, keys, values, starts, counts] = step.inputs.map((place) =>
    f.let('base', context.addresses.place(place)),
  ) as [Local, Local, Local, Local, Local];
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const scores = f.let('scores', context.scratch(scoreBytes(capacity)));
  const [unit, first, count] = [f.local('i32', 'unit'), f.local('i32', 'first'), f.local('i32', 'count')];
  const mostSeen = Math.min(window ?? capacity, capacity);
  f.loop(unit, begin, end, 1, () => {
    const [row, head, token] = unravel(f, unit, [batch, heads, query]) as [Local, Local, Local];
    const result = f.let('result', i32.add(out, i32.mul(unit, keyDim * 4)));
    const attend = () => {
      // Positions 0 to start + token, the last `mostSeen` of them.
      const seen = f.let('seen', i32.add(i32.add(loads.i32(i32.add(starts, i32.shl(row, 2))), token), 1));
      f.set(count, select(seen, mostSeen, i32.lt_u(seen, mostSeen), 'i32'));
      f.set(first, i32.sub(seen, count));
      const kvRow = i32.add(i32.mul(row, kvHeads), i32.div_u(head, heads / kvHeads));
      const start = f.let('start', i32.mul(kvRow, capacity * keyDim * 4));
      attendHead(context, f, {
        query: f.let('query', i32.add(q, i32.mul(unit, keyDim * 4))),
        keys: f.let('keys', i32.add(keys, start)),
        values: f.let('values', i32.add(values, start)),
        out: result,
        scores,
        capacity,
        keyDim,
        valueDim: keyDim,
        scale,
        first,
        count,
      });
    };
    const isReal = i32.lt_s(token, loads.i32(i32.add(counts, i32.shl(row, 2))));
    f.when(isReal, attend, () => mapRow(f, result, keyDim, () => f32x4.splat(0)));
  });
  return context.finish(f, batch * heads * query);
}

export function emitAttention(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Attention'>;
  const { scale, mask } = node.attrs;
  const [q, _k, v] = node.inputs as [Value, Value, Value];
  const leading = q.shape.slice(0, -2);
  const [query, keyDim] = q.shape.slice(-2) as [number, number];
  const [slots, valueDim] = v.shape.slice(-2) as [number, number];
  const { f, begin, end } = context.kernel('attention');
  const [qBase, kBase, vBase, maskBase] = step.inputs.map((place) =>
    f.let('base', context.addresses.place(place)),
  ) as [Local, Local, Local, Local];
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const scores = f.let('scores', context.scratch(scoreBytes(slots)));
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const indices = unravel(f, unit, [...leading, query]);
    const matrix = f.let('matrix', i32.div_u(unit, query));
    const maskStrides = mask?.strides ?? [];
    const maskRow =
      mask &&
      f.let('maskRow', addStrides(i32.add(maskBase, mask.offset * 4), indices, maskStrides.slice(0, -1)));
    attendHead(context, f, {
      query: f.let('query', i32.add(qBase, i32.mul(unit, keyDim * 4))),
      keys: f.let('keys', i32.add(kBase, i32.mul(matrix, slots * keyDim * 4))),
      values: f.let('values', i32.add(vBase, i32.mul(matrix, slots * valueDim * 4))),
      out: f.let('result', i32.add(out, i32.mul(unit, valueDim * 4))),
      scores,
      capacity: slots,
      keyDim,
      valueDim,
      scale,
      first: f.let('first', constant('i32', 0)),
      count: f.let('count', constant('i32', slots)),
      ...(maskRow && { mask: (j: Expr) => loads.f32(i32.add(maskRow, i32.mul(j, maskStrides.at(-1)! * 4))) }),
    });
  });
  const rows = sizeOf(leading) * query;
  return context.finish(f, rows);
}

function attendHead(context: KernelContext, f: FunctionBuilder, head: Head): void {
  forEachRun(f, head, (slot, run, j) => scoreRun(f, head, slot, run, j));
  const inverse = softmaxInPlace(context, f, head);
  for (let first = 0; first < head.valueDim; first += MIXED * 4) mixValues(f, head, first, inverse);
}

/** Calls body for each stretch of neighbouring slots: one, or two where a ring wraps. */
function forEachRun(
  f: FunctionBuilder,
  { capacity, first, count }: Head,
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
function scoreRun(f: FunctionBuilder, head: Head, slot: Local, run: Local, j: Local): void {
  const rowBytes = head.keyDim * 4;
  const key = f.let('key', i32.add(head.keys, i32.mul(slot, rowBytes)));
  const score = f.let('score', i32.add(head.scores, i32.shl(j, 2)));
  const left = f.let('left', run);
  const sums = f.vectors('dot', 4);
  f.when(i32.ge_u(left, 4), () =>
    f.repeat(() => {
      dotProducts(f, head, key, sums);
      f.do(stores.v128(score, f32x4.mul(sumsOfFour(f, sums), head.scale)));
      f.increase(key, 4 * rowBytes);
      f.increase(score, 16);
      f.increase(left, -4);
      return i32.ge_u(left, 4);
    }),
  );
  f.when(left, () =>
    f.repeat(() => {
      dotProducts(f, head, key, sums.slice(0, 1));
      const [sum] = sums as [Local];
      const lane = (i: number) => f32x4.extractLane(sum, i);
      // The order of sumsOfFour, so that a key's score does not depend on where it lies.
      const total = f32.add(f32.add(lane(0), lane(2)), f32.add(lane(1), lane(3)));
      f.do(stores.f32(score, f32.mul(total, head.scale)));
      f.increase(key, rowBytes);
      f.increase(score, 4);
      f.increase(left, -1);
      return left;
    }),
  );
  if (head.mask) addMask(f, head, run, j);
}

function addMask(f: FunctionBuilder, { scores, mask }: Head, run: Local, j: Local): void {
  const i = f.local('i32', 'i');
  f.loop(i, j, i32.add(j, run), 1, () => {
    const address = i32.add(scores, i32.shl(i, 2));
    f.do(stores.f32(address, f32.add(loads.f32(address), mask!(i))));
  });
}

/** sums[i] = partial sums, by lane, of query . key[i]. */
function dotProducts(f: FunctionBuilder, { query, keyDim }: Head, key: Local, sums: readonly Local[]): void {
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

/** scores = exp(scores - largest); returns 1 / their sum in all lanes. */
function softmaxInPlace(context: KernelContext, f: FunctionBuilder, { scores, count }: Head): Local {
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
  return f.let('inverse', f32x4.splat(f32.div(1, sum)));
}

/** Vectors of the output that are summed up at a time. */
const MIXED = 8;

/** out[first..first + 32] = sum of scores[j] * value[j] / total. */
function mixValues(f: FunctionBuilder, head: Head, first: number, inverse: Local): void {
  const vectors = Math.min(MIXED, Math.ceil((head.valueDim - first) / 4));
  const sums = f.vectors('mixed', vectors);
  const rowBytes = head.valueDim * 4;
  const weight = f.local('v128', 'weight');
  const [value, score, last] = [f.local('i32', 'value'), f.local('i32', 'score'), f.local('i32', 'last')];
  for (const sum of sums) f.set(sum, f32x4.splat(0));
  forEachRun(f, head, (slot, run, j) => {
    f.set(value, i32.add(head.values, i32.add(i32.mul(slot, rowBytes), first * 4)));
    f.set(last, i32.add(head.scores, i32.shl(i32.add(j, run), 2)));
    f.loop(score, i32.add(head.scores, i32.shl(j, 2)), last, 4, () => {
      f.set(weight, loads.splat32(score));
      sums.forEach((sum, i) => {
        f.set(sum, f32x4.add(sum, f32x4.mul(weight, loads.v128(value, i * 16))));
      });
      f.increase(value, rowBytes);
    });
  });
  sums.forEach((sum, i) => {
    const lanes: Operand = Math.min(4, head.valueDim - first - i * 4);
    f.set(sum, f32x4.mul(sum, inverse));
    const to = i32.add(head.out, first * 4 + i * 16);
    if (lanes === 4) f.do(stores.v128(to, sum));
    else storeLanes(f, to, sum, constant('i32', lanes * 4));
  });
}
