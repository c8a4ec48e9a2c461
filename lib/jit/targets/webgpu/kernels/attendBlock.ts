// lib/jit/targets/webgpu/kernels/attendBlock.ts: what a workgroup of attention of many queries has to do: which queries,
// and which keys some of them see.

import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import type { AttendArrays } from './attend.js';
import type { AttendKernel } from './attendTile.js';

/** Some queries of neighbouring heads; the same for the whole workgroup. */
export interface Block {
  readonly row: Expr; // first of its rows of [batch, heads]
  readonly kvRow: Expr; // of [batch, kvHeads]
  readonly query: Expr; // first of each of its heads
  readonly position: Expr; // i32, of that query
  readonly start: Expr; // i32
  readonly count: Expr; // i32
}

/** Positions, i32. */
export interface KeyRange {
  readonly begin: Expr;
  readonly end: Expr;
}

export function blockOf(
  { k, spec, layout }: AttendKernel,
  arrays: Pick<AttendArrays, 'start' | 'count'>,
): Block {
  const { heads, queries } = layout;
  const blocks = Math.ceil(spec.queries / queries);
  const bundles = (spec.batch * spec.heads) / heads;
  const workgroup = k.let('workgroup', k.builtin('workgroupX'));
  const row = k.let('row', workgroup.rem(bundles).mul(heads));
  // The last queries come first: they see the most keys.
  const block = literal('u32', blocks - 1).sub(workgroup.div(bundles));
  const query = k.let('firstQuery', block.mul(queries));
  const batch = k.let('batch', row.div(spec.heads));
  const start = k.let('start', arrays.start.at(batch));
  return {
    ...{ row, query, start, count: k.let('count', arrays.count.at(batch)) },
    kvRow: k.let('kvRow', row.div(spec.heads / spec.kvHeads)),
    position: k.let('first', start.add(query.bits('i32'))),
  };
}

/** Keys that some query of the block sees; a block of padding sees none. */
export function keysSeen(
  { k, spec, layout }: AttendKernel,
  { query, start, count, position }: Block,
): KeyRange {
  const past = query.add(layout.queries).min(spec.queries).bits('i32').min(count);
  const isPadding = query.bits('i32').ge(count);
  const end = k.uniform('end', isPadding.select(literal('i32', 0), start.add(past)));
  const begin = spec.window === null ? literal('i32', 0) : position.add(1 - spec.window).max(0);
  return { begin: k.uniform('begin', begin), end };
}
