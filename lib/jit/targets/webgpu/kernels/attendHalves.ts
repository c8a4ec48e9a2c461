// lib/jit/targets/webgpu/kernels/attendHalves.ts: keys or values of a cache, float32 -> the same as float16, at the slots
// that attention reads: many workgroups read them, and would round them each anew.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import { packed } from './attendRows.js';
import type { AttendMatricesSpec } from './attendTile.js';

export const halvesThreads = 256;

/** Bytes of the copy of keys or of values: [batch, kvHeads, capacity, headDim]. */
export function halvesBytes({ batch, kvHeads, capacity, headDim }: AttendMatricesSpec): number {
  return 2 * batch * kvHeads * capacity * headDim;
}

/** Threads that copy keys or values: eight numbers each. */
export function halvesTasks(spec: AttendMatricesSpec): number {
  return halvesBytes(spec) / 16;
}

/**
 * Copies eight numbers of each array.
 * @param index which eight: below halvesTasks
 * @param pairs arrays in f32x4, and their copies in u32x4
 */
export function writeHalves(
  k: KernelBuilder,
  { kvHeads, capacity, headDim, window }: AttendMatricesSpec,
  index: Expr,
  places: { readonly start: ArrayRef; readonly count: ArrayRef }, // i32 [batch]
  pairs: readonly { readonly from: ArrayRef; readonly to: ArrayRef }[],
): void {
  const slot = k.let('slot', index.div(headDim / 8));
  const batch = k.let('batch', slot.div(kvHeads * capacity));
  const start = k.let('start', places.start.at(batch));
  const last = k.let('last', start.add(places.count.at(batch)).sub(1));
  const inRow = slot.rem(capacity).bits('i32');
  // The slot holds the newest position of those that belong into it.
  const back = last.sub(inRow).rem(capacity);
  const position = k.let('position', last.sub(back.lt(0).select(back.add(capacity), back)));
  const oldest = window === null ? literal('i32', 0) : start.add(1 - window).max(0);
  k.if(position.ge(oldest), () => {
    for (const { from, to } of pairs) {
      const fours = [0, 1].map((i) => k.let('four', from.at(index.mul(2).add(i))));
      k.store(to, index, packed(fours));
    }
  });
}
