// lib/jit/targets/wasm/attention.ts: CachedAttention and Attention: which query sees which keys. One unit of work is one
// query of one head, or of the heads that share keys. Source: Vaswani et al. 2017, section 3.2.1.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode, Value } from '../../graph.js';
import type { KernelStep } from '../../plan.js';
import { attend, scoreBytes } from './attend.js';
import type { Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { addStrides, unravel } from './elementwise.js';
import { loads } from './memory.js';
import { constant, type Expr } from './nodes.js';
import { mapRow } from './rows.js';
import { i32, select } from './scalars.js';
import { f32x4 } from './vectors.js';

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
  // One query a row: the heads of a group go together, and each key is read from memory once.
  const group = query === 1 ? heads / kvHeads : 1;
  const scores = f.let('scores', context.scratch(group * scoreBytes(capacity)));
  const [unit, first, count] = [f.local('i32', 'unit'), f.local('i32', 'first'), f.local('i32', 'count')];
  const mostSeen = Math.min(window ?? capacity, capacity);
  f.loop(unit, begin, end, 1, () => {
    const [row, head, token] = unravel(f, unit, [batch, heads / group, query]) as [Local, Local, Local];
    const result = f.let('result', i32.add(out, i32.mul(unit, group * keyDim * 4)));
    const attendAll = () => {
      // Positions 0 to start + token, the last `mostSeen` of them.
      const seen = f.let('seen', i32.add(i32.add(loads.i32(i32.add(starts, i32.shl(row, 2))), token), 1));
      f.set(count, select(seen, mostSeen, i32.lt_u(seen, mostSeen), 'i32'));
      f.set(first, i32.sub(seen, count));
      const kvRow = i32.add(i32.mul(row, kvHeads), i32.div_u(head, heads / group / kvHeads));
      const start = f.let('start', i32.mul(kvRow, capacity * keyDim * 4));
      attend(context, f, {
        group,
        query: f.let('query', i32.add(q, i32.mul(unit, group * keyDim * 4))),
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
    f.when(isReal, attendAll, () => mapRow(f, result, group * keyDim, () => f32x4.splat(0)));
  });
  return context.finish(f, (batch * heads * query) / group, false);
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
    attend(context, f, {
      group: 1,
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
  return context.finish(f, rows, false);
}
