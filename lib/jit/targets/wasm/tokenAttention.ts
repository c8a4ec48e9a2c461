// lib/jit/targets/wasm/tokenAttention.ts: CachedAttention of one token a row: reading the cache is its limit. The positions
// that a token sees are split into parts, so that any number of threads has its share even of few heads; how they are
// split depends on their number alone, never on the threads. One unit of work is a part of the positions for all heads
// that share keys and values; then the parts of each head are joined.
// Source: Dao et al. 2023, Flash-Decoding (pytorch.org/blog/flash-decoding).

import type { StructuredNode } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import { attend, inverseOf } from './attend.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { unravel } from './elementwise.js';
import { loads, stores } from './memory.js';
import { leastOf, mostSeen, SCORE_BYTES, SUMS_AT, sumBytes } from './queries.js';
import { mapRow } from './rows.js';
import { i32, select } from './scalars.js';
import { f32x4 } from './vectors.js';

/**
 * Units that a token should have at least, so that threads have about the same to do. Of 3 heads and 1,000 positions 4
 * parts cost one thread 2 %, 8 parts 5 %.
 */
const UNITS = 12;
/** Positions of a part: at least so many, and a multiple of what scores.ts takes at a time. */
const LEAST_POSITIONS = 16;
const MULTIPLE = 4;

interface Token {
  readonly context: KernelContext;
  readonly step: KernelStep;
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly keyDim: number;
  readonly capacity: number;
  readonly parts: number;
  /** Sums of all parts: [batch, kvHeads, parts, heads of a group], sumBytes each. */
  readonly sums: Float32Array;
}

export function emitTokenAttention(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'CachedAttention'>;
  const [batch, heads, , keyDim] = node.inputs[0]!.shape as [number, number, number, number];
  const [, kvHeads, capacity] = node.inputs[1]!.shape as [number, number, number, number];
  const parts = Math.ceil(UNITS / (batch * kvHeads));
  const sums = new Float32Array((batch * heads * parts * sumBytes(keyDim)) / 4);
  const token: Token = { context, step, batch, heads, kvHeads, keyDim, capacity, parts, sums };
  const join = { code: joinFunction(token), units: batch * heads, work: 2 * batch * heads * parts * keyDim };
  return { ...attendParts(token), join };
}

/** What a row sees: so many positions from the first on, in parts of so many. */
function seenBy({ context, step, parts, capacity }: Token, f: FunctionBuilder, row: Local) {
  const node = step.node as StructuredNode<'CachedAttention'>;
  const ofRow = (input: number) =>
    loads.i32(i32.add(context.addresses.place(step.inputs[input]!), i32.shl(row, 2)));
  const seen = f.let('seen', i32.add(ofRow(3), 1));
  const most = f.let('most', leastOf(seen, mostSeen(node.attrs.window, capacity)));
  const first = f.let('first', i32.sub(seen, most));
  const count = f.let('count', select(most, 0, i32.gt_s(ofRow(4), 0), 'i32'));
  const share = f.let('share', i32.div_u(i32.add(count, parts - 1), parts));
  f.set(share, i32.and(i32.add(share, MULTIPLE - 1), -MULTIPLE));
  f.set(share, select(share, LEAST_POSITIONS, i32.gt_u(share, LEAST_POSITIONS), 'i32'));
  return { first, count, share };
}

function attendParts(token: Token): Kernel {
  const { context, step, batch, heads, kvHeads, keyDim, capacity, parts, sums } = token;
  const { scale } = (step.node as StructuredNode<'CachedAttention'>).attrs;
  const { f, begin, end } = context.kernel('cachedAttention');
  const [q, keys, values] = step.inputs
    .slice(0, 3)
    .map((place) => f.let('base', context.addresses.place(place))) as [Local, Local, Local];
  const group = heads / kvHeads;
  const base = f.let('sums', context.data(sums));
  const scores = f.let('scores', context.scratch(group * SCORE_BYTES));
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const [row, kvHead, part] = unravel(f, unit, [batch, kvHeads, parts]) as [Local, Local, Local];
    const { first, count, share } = seenBy(token, f, row);
    const before = f.let('before', i32.mul(part, share));
    f.when(i32.lt_u(before, count), () => {
      const kv = f.let('kv', i32.add(i32.mul(row, kvHeads), kvHead));
      const at = (from: Local, index: Local, bytes: number) =>
        f.let('at', i32.add(from, i32.mul(index, bytes)));
      attend(context, f, {
        rows: group,
        query: at(q, kv, group * keyDim * 4),
        keys: at(keys, kv, capacity * keyDim * 4),
        values: at(values, kv, capacity * keyDim * 4),
        sums: at(base, unit, group * sumBytes(keyDim)),
        ...{ scores, capacity, keyDim, valueDim: keyDim, scale },
        first: f.let('first', i32.add(first, before)),
        count: f.let('count', leastOf(i32.sub(count, before), share)),
      });
    });
  });
  return context.finish(f, batch * kvHeads * parts, false);
}

/** A unit is a head of a row. Without positions it gets zeros. */
function joinFunction(token: Token) {
  const { context, step, batch, heads, kvHeads, keyDim, parts, sums } = token;
  const { f, begin, end } = context.kernel('joinParts');
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const base = f.let('sums', context.data(sums));
  const group = heads / kvHeads;
  const partBytes = group * sumBytes(keyDim);
  const factors = f.let('factors', context.scratch(parts * 16));
  const unit = f.local('i32', 'unit');
  const part = f.local('i32', 'part');
  f.loop(unit, begin, end, 1, () => {
    const [row, kvHead, head] = unravel(f, unit, [batch, kvHeads, group]) as [Local, Local, Local];
    const { count, share } = seenBy(token, f, row);
    const kv = i32.add(i32.mul(row, kvHeads), kvHead);
    const own = i32.add(i32.mul(kv, parts * partBytes), i32.mul(head, sumBytes(keyDim)));
    const start = f.let('start', i32.add(base, own));
    const used = i32.div_u(i32.sub(i32.add(count, share), 1), share);
    const last = f.let('last', i32.add(start, i32.mul(used, partBytes)));
    const largest = f.let('largest', loads.v128(start, SUMS_AT.largest));
    f.loop(part, start, last, partBytes, () =>
      f.set(largest, f32x4.pmax(largest, loads.v128(part, SUMS_AT.largest))),
    );
    const total = f.let('total', f32x4.splat(0));
    const factor = f.let('factor', factors);
    f.loop(part, start, last, partBytes, () => {
      const value = f.let(
        'value',
        context.math('exp', f32x4.sub(loads.v128(part, SUMS_AT.largest), largest)),
      );
      f.set(total, f32x4.add(total, f32x4.mul(loads.v128(part, SUMS_AT.total), value)));
      f.do(stores.v128(factor, value));
      f.increase(factor, 16);
    });
    const inverse = f.let('inverse', f32x4.splat(0));
    f.when(count, () => f.set(inverse, inverseOf(total)));
    // Each element is written once: another thread may do the same.
    mapRow(f, f.let('result', i32.add(out, i32.mul(unit, keyDim * 4))), keyDim, (at) => {
      const mixed = f.let('mixed', f32x4.splat(0));
      f.set(factor, factors);
      f.loop(part, start, last, partBytes, () => {
        f.set(
          mixed,
          context.multiplyAdd(loads.v128(i32.add(part, at), SUMS_AT.mixed), loads.v128(factor), mixed),
        );
        f.increase(factor, 16);
      });
      return f32x4.mul(mixed, inverse);
    });
  });
  return context.finish(f, batch * heads).code;
}
