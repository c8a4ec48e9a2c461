// lib/jit/targets/wasm/attention.ts: CachedAttention and Attention: which query sees which keys. One unit of work is one
// head of a token, or a block of tokens of a head; how many go together changes speed alone.
// Source: Vaswani et al. 2017, section 3.2.1.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode, Value } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import { attend } from './attend.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { addStrides, unravel } from './elementwise.js';
import { loads } from './memory.js';
import { constant, type Expr, type Operand } from './nodes.js';
import { QUERY_BLOCK, scoreBytes } from './queries.js';
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
  const group = heads / kvHeads;
  const together = query === 1 ? group : Math.min(query, QUERY_BLOCK);
  const scores = f.let('scores', context.scratch(together * scoreBytes(capacity)));
  const mostSeen = Math.min(window ?? capacity, capacity);
  const [first, count] = [f.local('i32', 'first'), f.local('i32', 'count')];

  /** `rows` queries of a head and those after it; the first is `token` of its row, the next ones `step` tokens on. */
  const attendRows = (place: QueryPlace, rows: Operand, step: 0 | 1) => {
    const { row, head, token, index } = place;
    // The first sees positions 0 to start + token, the last `mostSeen` of them.
    const start = loads.i32(i32.add(starts, i32.shl(row, 2)));
    const seen = f.let('seen', i32.add(i32.add(start, token), 1));
    const own = (of: Expr) => select(of, mostSeen, i32.lt_u(of, mostSeen), 'i32');
    f.set(first, i32.sub(seen, own(seen)));
    const last = f.let('last', step === 0 ? seen : i32.sub(i32.add(seen, rows), 1));
    f.set(count, i32.sub(last, first));
    const unseen = (at: Expr) => {
      const end = f.let('end', i32.add(seen, at));
      return { before: i32.sub(i32.sub(end, own(end)), first), after: i32.sub(last, end) };
    };
    const kvRow = i32.add(i32.mul(row, kvHeads), i32.div_u(head, group));
    const kvStart = f.let('kvStart', i32.mul(kvRow, capacity * keyDim * 4));
    attend(context, f, {
      rows,
      query: f.let('query', i32.add(q, i32.mul(index, keyDim * 4))),
      keys: f.let('keys', i32.add(keys, kvStart)),
      values: f.let('values', i32.add(values, kvStart)),
      out: f.let('result', i32.add(out, i32.mul(index, keyDim * 4))),
      ...{ scores, capacity, keyDim, valueDim: keyDim, scale, first, count },
      ...(step === 1 && { unseen }),
    });
  };
  const clear = (index: Expr, rows: Expr) => {
    const empty = f.let('empty', i32.add(out, i32.mul(index, keyDim * 4)));
    mapRow(f, empty, i32.mul(rows, keyDim), () => f32x4.splat(0));
  };
  const given = (row: Local) => loads.i32(i32.add(counts, i32.shl(row, 2)));
  const walk = { f, begin, end, batch, heads, query, together };
  if (query === 1) eachGroup(walk, { given, attendRows, clear });
  else eachBlock(walk, { given, attendRows, clear });
  const units = query === 1 ? batch * heads : batch * heads * Math.ceil(query / together);
  return context.finish(f, units, false);
}

/** A query: row of the batch, head, token, and its place among all queries. */
interface QueryPlace {
  readonly row: Local;
  readonly head: Local;
  readonly token: Local;
  readonly index: Local;
}

interface Walk {
  readonly f: FunctionBuilder;
  readonly begin: Local;
  readonly end: Local;
  readonly batch: number;
  readonly heads: number;
  readonly query: number;
  readonly together: number;
}

interface Work {
  /** Real tokens of a row; the others get zeros. */
  readonly given: (row: Local) => Expr;
  readonly attendRows: (place: QueryPlace, rows: Operand, step: 0 | 1) => void;
  readonly clear: (index: Expr, rows: Expr) => void;
}

/** One token a row. A unit is a head; those of a group that one thread has go together. */
function eachGroup({ f, begin, end, batch, heads, together }: Walk, work: Work): void {
  const unit = f.local('i32', 'unit');
  const rows = f.local('i32', 'rows');
  const token = f.let('token', constant('i32', 0));
  f.set(unit, begin);
  f.when(i32.lt_u(unit, end), () =>
    f.repeat(() => {
      const [row, head] = unravel(f, unit, [batch, heads]) as [Local, Local];
      const [ofGroup, ofThread] = [i32.sub(together, i32.rem_u(head, together)), i32.sub(end, unit)];
      f.set(rows, ofGroup);
      f.set(rows, select(ofThread, rows, i32.lt_u(ofThread, rows), 'i32'));
      f.when(
        i32.gt_s(work.given(row), 0),
        () => work.attendRows({ row, head, token, index: unit }, together === 1 ? 1 : rows, 0),
        () => work.clear(unit, rows),
      );
      f.increase(unit, rows);
      return i32.lt_u(unit, end);
    }),
  );
}

/** A unit is a block of tokens of one head. */
function eachBlock({ f, begin, end, batch, heads, query, together }: Walk, work: Work): void {
  const unit = f.local('i32', 'unit');
  const smaller = (a: Expr, b: Operand) => select(a, b, i32.lt_s(a, b), 'i32');
  f.loop(unit, begin, end, 1, () => {
    const [row, head, block] = unravel(f, unit, [batch, heads, Math.ceil(query / together)]) as [
      Local,
      Local,
      Local,
    ];
    const token = f.let('token', i32.mul(block, together));
    const index = f.let('index', i32.add(i32.mul(i32.add(i32.mul(row, heads), head), query), token));
    const size = f.let('size', smaller(i32.sub(query, token), together));
    const real = f.let('real', smaller(i32.sub(work.given(row), token), size));
    f.set(real, select(real, 0, i32.gt_s(real, 0), 'i32'));
    f.when(real, () => work.attendRows({ row, head, token, index }, real, 1));
    f.when(i32.lt_u(real, size), () => work.clear(i32.add(index, real), i32.sub(size, real)));
  });
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
      rows: 1,
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
