// lib/jit/targets/wasm/attention.ts: CachedAttention and Attention: which query sees which keys. One unit of work is a
// block of tokens of a head (for one token a row see tokenAttention.ts), or a query of Attention.
// Source: Vaswani et al. 2017, section 3.2.1.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode, Value } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import { attend, divide } from './attend.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { addStrides, unravel } from './elementwise.js';
import { loads } from './memory.js';
import { constant, type Expr, type Operand } from './nodes.js';
import { leastOf, mostSeen, QUERY_BLOCK, type Queries, SCORE_BYTES, sumBytes } from './queries.js';
import { mapRow } from './rows.js';
import { i32, select } from './scalars.js';
import { emitTokenAttention } from './tokenAttention.js';
import { f32x4 } from './vectors.js';

export function emitCachedAttention(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'CachedAttention'>;
  const { scale, window } = node.attrs;
  const [batch, heads, query, keyDim] = node.inputs[0]!.shape as [number, number, number, number];
  if (query === 1) return emitTokenAttention(context, step);
  const [, kvHeads, capacity] = node.inputs[1]!.shape as [number, number, number, number];
  const { f, begin, end } = context.kernel('cachedAttention');
  const [q, keys, values, starts, counts] = step.inputs.map((place) =>
    f.let('base', context.addresses.place(place)),
  ) as [Local, Local, Local, Local, Local];
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const together = Math.min(query, QUERY_BLOCK);
  const scratch = scratchFor(context, f, together, keyDim);
  const blocks = Math.ceil(query / together);
  const unit = f.local('i32', 'unit');
  const smaller = (a: Expr, b: Operand) => select(a, b, i32.lt_s(a, b), 'i32');
  f.loop(unit, begin, end, 1, () => {
    const [row, head, block] = unravel(f, unit, [batch, heads, blocks]) as [Local, Local, Local];
    const token = f.let('token', i32.mul(block, together));
    const index = f.let('index', i32.add(i32.mul(i32.add(i32.mul(row, heads), head), query), token));
    const size = f.let('size', smaller(i32.sub(query, token), together));
    const given = loads.i32(i32.add(counts, i32.shl(row, 2)));
    const real = f.let('real', smaller(i32.sub(given, token), size));
    f.set(real, select(real, 0, i32.gt_s(real, 0), 'i32'));
    f.when(real, () => {
      // The first sees positions 0 to start + token, the last `mostSeen` of them; each next one starts and ends a
      // position later.
      const start = loads.i32(i32.add(starts, i32.shl(row, 2)));
      const seen = f.let('seen', i32.add(i32.add(start, token), 1));
      const own = (of: Expr) => leastOf(of, mostSeen(window, capacity));
      const first = f.let('first', i32.sub(seen, own(seen)));
      const last = f.let('last', i32.sub(i32.add(seen, real), 1));
      const kvRow = i32.add(i32.mul(row, kvHeads), i32.div_u(head, heads / kvHeads));
      const kvStart = f.let('kvStart', i32.mul(kvRow, capacity * keyDim * 4));
      const queries: Queries = {
        rows: real,
        query: f.let('query', i32.add(q, i32.mul(index, keyDim * 4))),
        keys: f.let('keys', i32.add(keys, kvStart)),
        values: f.let('values', i32.add(values, kvStart)),
        ...{ ...scratch, capacity, keyDim, valueDim: keyDim, scale, first },
        count: f.let('count', i32.sub(last, first)),
        unseen: (at) => {
          const end = f.let('end', i32.add(seen, at));
          return { before: i32.sub(i32.sub(end, own(end)), first), after: i32.sub(last, end) };
        },
      };
      attend(context, f, queries);
      divide(f, queries, f.let('result', i32.add(out, i32.mul(index, keyDim * 4))));
    });
    f.when(i32.lt_u(real, size), () => {
      const empty = f.let('empty', i32.add(out, i32.mul(i32.add(index, real), keyDim * 4)));
      mapRow(f, empty, i32.mul(i32.sub(size, real), keyDim), () => f32x4.splat(0));
    });
  });
  return context.finish(f, batch * heads * blocks, false);
}

/** Scratch for a few queries. */
function scratchFor(
  context: KernelContext,
  f: FunctionBuilder,
  rows: number,
  valueDim: number,
): Pick<Queries, 'scores' | 'sums'> {
  const scores = f.let('scores', context.scratch(rows * (SCORE_BYTES + sumBytes(valueDim))));
  return { scores, sums: f.let('sums', i32.add(scores, rows * SCORE_BYTES)) };
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
  const scratch = scratchFor(context, f, 1, valueDim);
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const indices = unravel(f, unit, [...leading, query]);
    const matrix = f.let('matrix', i32.div_u(unit, query));
    const maskStrides = mask?.strides ?? [];
    const maskRow =
      mask &&
      f.let('maskRow', addStrides(i32.add(maskBase, mask.offset * 4), indices, maskStrides.slice(0, -1)));
    const queries: Queries = {
      rows: 1,
      query: f.let('query', i32.add(qBase, i32.mul(unit, keyDim * 4))),
      keys: f.let('keys', i32.add(kBase, i32.mul(matrix, slots * keyDim * 4))),
      values: f.let('values', i32.add(vBase, i32.mul(matrix, slots * valueDim * 4))),
      ...scratch,
      capacity: slots,
      keyDim,
      valueDim,
      scale,
      first: f.let('first', constant('i32', 0)),
      count: f.let('count', constant('i32', slots)),
      ...(maskRow && { mask: (j: Expr) => loads.f32(i32.add(maskRow, i32.mul(j, maskStrides.at(-1)! * 4))) }),
    };
    attend(context, f, queries);
    divide(f, queries, f.let('result', i32.add(out, i32.mul(unit, valueDim * 4))));
  });
  const rows = sizeOf(leading) * query;
  return context.finish(f, rows, false);
}
