// lib/jit/targets/webgpu/kernels/attendRows.ts: rows of queries, keys and values -> halves in shared memory, for
// attention of many queries. Threads share out a tile's vectors: they read them first and store them later.

import type { ArrayRef } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { vector } from '../../../kernels/expression.js';
import type { AttendKernel } from './attendTile.js';

/**
 * A row's vectors of eight halves.
 * @param array rows of headDim: f32x4, or halves in u32x4, to which no factor applies
 */
export function rowOf(
  { k, spec }: AttendKernel,
  array: ArrayRef,
  row: Expr,
  factor = 1,
): (part: Expr) => Expr {
  const first = k.let('at', row.mul(spec.headDim / (array.element === 'u32x4' ? 8 : 4)));
  return (part) => {
    if (array.element === 'u32x4') return array.at(first.add(part));
    const fours = [0, 1].map((i) => {
      const four = array.at(first.add(part.mul(2)).add(i));
      return k.let('four', factor === 1 ? four : four.mul(factor));
    });
    return packed(fours);
  };
}

/** Reads this thread's vectors of some rows; of those past the last one, some others. */
export function readRows(
  kernel: AttendKernel,
  rows: number,
  rowAt: (place: Expr) => (part: Expr) => Expr,
): Expr[] {
  const { k, spec } = kernel;
  return Array.from({ length: Math.ceil((rows * spec.headDim) / 8 / k.threads) }, (_, i) => {
    const { place, part } = taskOf(kernel, i);
    return k.let('ahead', rowAt(place)(part));
  });
}

/** Puts into shared memory, from vector `first` on, what `readRows` gave. */
export function storeRows(kernel: AttendKernel, first: number, rows: number, vectors: readonly Expr[]): void {
  const { k, spec, layout, memory } = kernel;
  const all = (rows * spec.headDim) / 8;
  for (const [i, value] of vectors.entries()) {
    const { place, part } = taskOf(kernel, i);
    const store = (): void => k.store(memory, place.mul(layout.strides.tile).add(part).add(first), value);
    if ((i + 1) * k.threads <= all) store();
    else k.if(k.localIndex.lt(all - i * k.threads), store);
  }
}

/** Number of the thread's task `i` of a tile of rows: the row, and the vector in it. */
function taskOf({ k, spec }: AttendKernel, i: number): { readonly place: Expr; readonly part: Expr } {
  const along = spec.headDim / 8;
  if (k.threads % along !== 0) {
    const index = k.localIndex.add(i * k.threads);
    return { place: index.div(along), part: index.rem(along) };
  }
  return { place: k.localIndex.div(along).add((i * k.threads) / along), part: k.localIndex.rem(along) };
}

/** Two f32x4 as eight halves. @param isSwapped whether the second comes first */
export function packed(fours: readonly Expr[], isSwapped: Expr | null = null): Expr {
  const pair = (four: Expr, lane: number): Expr => vector(four.lane(lane), four.lane(lane + 1)).packHalves();
  const words = fours.flatMap((four) => [pair(four, 0), pair(four, 2)]);
  return vector(...words.map((word, i) => isSwapped?.select(words[(i + 2) % 4]!, word) ?? word));
}
