// lib/jit/targets/webgpu/kernels/largest.ts: the place of the largest element of each row of a product, without writing the
// product: each workgroup leaves the largest of its tile, a second small kernel looks through those.

import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import type { LowerContext, Operand } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { DispatchWriter } from '../writer.js';
import type { MatvecPart } from './matvecFinish.js';

/** Where the workgroups leave what they found: a value and a place a row and tile. */
export interface LargestUses {
  readonly tiles: number;
  readonly values: BufferUse;
  readonly indices: BufferUse;
}

/** What a workgroup does with its results instead of just writing them. */
export interface Held {
  readonly store: (row: Expr, column: Expr, value: Expr) => void;
  readonly around?: MatvecPart['around'];
}

export function largestUses(context: LowerContext, rows: number, tiles: number): LargestUses {
  const bytes = 4 * rows * tiles;
  return { tiles, values: context.scratch(bytes), indices: context.scratch(bytes) };
}

/** Keeps a tile's results [rows, columns] in shared memory, then leaves each row's largest; the first of equal ones. */
export function holdLargest(
  writer: DispatchWriter,
  { tiles, values, indices }: LargestUses,
  { rows, columns, width }: { readonly rows: number; readonly columns: number; readonly width: number },
): Held {
  const { k } = writer;
  const own = k.shared('own', 'f32', rows * columns);
  const [best, places] = [writer.bind('best', values, 'f32'), writer.bind('places', indices, 'u32')];
  return {
    store: (row, column, value) => k.store(own, row.mul(columns).add(column.rem(columns)), value),
    around: (first) => () => {
      k.barrier();
      k.if(k.localIndex.lt(rows), () => {
        const row = k.let('ownRow', k.localIndex.mul(columns));
        const value = k.variable('largest', own.at(row));
        const place = k.variable('largestPlace', literal('u32', 0));
        k.for('other', 1, literal('u32', width).sub(first).min(columns), (other) => {
          k.if(own.at(row.add(other)).gt(value.value), () => {
            k.set(value, own.at(row.add(other)));
            k.set(place, other);
          });
        });
        const at = k.let('tileAt', k.localIndex.mul(tiles).add(first.div(columns)));
        k.store(best, at, value.value);
        k.store(places, at, first.add(place.value));
      });
    },
  };
}

/** One workgroup a row looks through what the tiles left. */
export function largestDispatch(
  context: LowerContext,
  { tiles, values, indices }: LargestUses,
  rows: number,
  result: Operand,
): Dispatch {
  const writer = context.writer('largest of tiles', 1024);
  const { k } = writer;
  const [best, places] = [writer.bind('best', values, 'f32'), writer.bind('places', indices, 'u32')];
  const y = writer.bind('y', result.use, 'i32');
  const row = k.let('row', k.builtin('workgroupX'));
  const begin = k.let('begin', row.mul(tiles));
  const own = Array.from({ length: Math.ceil(tiles / k.threads) }, (_, i) => {
    const tile = k.let('tile', k.localIndex.add(i * k.threads).min(tiles - 1));
    return { tile, value: k.let('value', best.at(begin.add(tile))) };
  });
  const value = k.variable('largest', literal('f32', Number.NEGATIVE_INFINITY));
  const place = k.variable('place', literal('u32', 0xffffffff));
  for (const each of own) {
    // A thread meets its tiles in order: of equal ones the first stays.
    const isMore = k.let('isMore', each.value.gt(value.value));
    k.set(value, isMore.select(each.value, value.value));
    k.set(place, isMore.select(each.tile, place.value));
  }
  const [most] = reduceWorkgroup(k, context.features, 'max', value.value) as [Expr];
  const mine = value.value.eq(most).select(place.value, 0xffffffff);
  const [first] = reduceWorkgroup(k, context.features, 'min', mine) as [Expr];
  k.if(k.localIndex.eq(0), () => {
    const found = places.at(begin.add(first.min(tiles - 1))).bits('i32');
    k.store(y, row, first.eq(0xffffffff).select(literal('i32', 0), found)); // only NaN
  });
  return writer.in([rows, 1, 1], context.step);
}
