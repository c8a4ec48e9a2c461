// lib/jit/targets/webgpu/generic/attention.ts: attention: a workgroup a query, which goes through the
// keys in pieces of one a thread and keeps a running softmax. Source: Milakov and Gimelshein 2018, arXiv:1805.02867.

import { sizeOf } from '../../../../tensor.js';
import type { StructuredNode } from '../../../graph.js';
import { type Expr, literal } from '../../../kernels/expression.js';
import * as math from '../../../kernels/math.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext, Operand } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import type { DispatchWriter } from '../writer.js';
import { bindOperand, coordinates, loadOperand, viewElements } from './indexing.js';

const threads = 64;

/** What one query attends to. */
interface Attended {
  /** Number of keys, the same in the whole workgroup. */
  readonly length: Expr;
  readonly valueDim: number;
  /** The score of key `p`, which is below length. */
  readonly score: (p: Expr) => Expr;
  /** Element `d` of the value of key `p`. */
  readonly value: (p: Expr, d: Expr) => Expr;
  /** Writes element `d` of the result. */
  readonly write: (d: Expr, value: Expr) => void;
}

function attend(w: DispatchWriter, { length, valueDim, score, value, write }: Attended): void {
  const { k } = w;
  const size = k.threads;
  const shares = Array.from({ length: Math.ceil(valueDim / size) }, (_, i) => i * size);
  const sums = shares.map((_, i) => k.variable(`sum${i}`, literal('f32', 0)));
  const max = k.variable('max', literal('f32', Number.NEGATIVE_INFINITY));
  const total = k.variable('total', literal('f32', 0));
  const weights = k.shared('weights', 'f32', size);
  const lowest = literal('f32', Number.NEGATIVE_INFINITY);
  const own = k.let('own', k.localIndex.to('i32'));
  k.for(
    'piece',
    literal('i32', 0),
    length,
    (piece) => {
      const p = k.let('p', piece.add(own));
      const isKey = k.let('isKey', p.lt(length));
      const held = k.variable('score', lowest);
      k.if(isKey, () => k.set(held, score(p)));
      const [largest] = reduceWorkgroup(k, w.features, 'max', held.value) as [Expr];
      const next = k.let('next', max.value.max(largest));
      const isNothing = k.let('isNothing', next.eq(lowest)); // so far all keys were masked out
      const weight = k.let('weight', isKey.and(isNothing.not()).select(math.exp(held.value.sub(next)), 0));
      const keep = k.let(
        'keep',
        max.value.eq(lowest).select(literal('f32', 0), math.exp(max.value.sub(next))),
      );
      k.store(weights, k.localIndex, weight);
      const [sum] = reduceWorkgroup(k, w.features, 'add', weight) as [Expr];
      k.barrier();
      k.set(total, total.value.mul(keep).add(sum));
      k.set(max, next);
      const count = k.let('count', length.sub(piece).min(size));
      for (const [i, share] of shares.entries()) {
        k.if(own.add(share).lt(valueDim), () => {
          const mixed = k.variable('mixed', sums[i]!.value.mul(keep));
          k.for('j', literal('i32', 0), count, (j) => {
            k.set(mixed, mixed.value.add(weights.at(j).mul(value(piece.add(j), own.add(share)))));
          });
          k.set(sums[i]!, mixed.value);
        });
      }
      k.barrier();
    },
    size,
  );
  for (const [i, share] of shares.entries())
    k.if(own.add(share).lt(valueDim), () => write(own.add(share), sums[i]!.value.div(total.value)));
}

function bindSides(w: DispatchWriter, q: Operand, keys: Operand, values: Operand) {
  return [bindOperand(w, 'q', q), bindOperand(w, 'keys', keys), bindOperand(w, 'values', values)] as const;
}

export function cachedAttention(
  step: KernelStep,
  { attrs: { scale, window } }: StructuredNode<'CachedAttention'>,
  context: LowerContext,
): Dispatch[] {
  const [q, keys, values] = [context.input(step, 0), context.input(step, 1), context.input(step, 2)];
  const [start, count] = [context.input(step, 3), context.input(step, 4)];
  const output = context.output(step);
  const [batch, heads, query, headDim] = q.shape as [number, number, number, number];
  const [, kvHeads, capacity] = keys.shape as [number, number, number];
  const rows = batch * heads * query;
  if (rows === 0 || headDim === 0) return [];
  const w = context.writer('cachedAttention', threads);
  const { k } = w;
  const row = k.let('row', w.workgroupIndex(rows).to('i32'));
  const [qs, ks, vs] = bindSides(w, q, keys, values);
  const [starts, counts] = [bindOperand(w, 'start', start), bindOperand(w, 'count', count)];
  const y = bindOperand(w, 'y', output);
  const [b, head, i] = coordinates(k, row, [batch, heads, query]) as [Expr, Expr, Expr];
  const last = k.let('last', starts.at(b).add(i));
  const first = window === null ? literal('i32', 0) : k.let('first', last.add(1 - window).max(0));
  const isGiven = k.let('isGiven', i.lt(counts.at(b)));
  const length = k.uniform('length', isGiven.select(last.add(1).sub(first), literal('i32', 0)));
  const kvRow = k.let(
    'kvRow',
    b
      .mul(kvHeads)
      .add(head.div(heads / kvHeads))
      .mul(capacity),
  );
  const slot = (p: Expr): Expr => kvRow.add(first.add(p).rem(capacity)).mul(headDim);
  const base = k.let('base', row.mul(headDim));
  const score = (p: Expr): Expr => {
    const at = k.let('at', slot(p));
    return dotOf(w, headDim, (d) => qs.at(base.add(d)), (d) => ks.at(at.add(d))).mul(scale); // biome-ignore format: short
  };
  attend(w, {
    length,
    valueDim: headDim,
    score,
    value: (p, d) => vs.at(slot(p).add(d)),
    write: (d, value) => k.store(y, base.add(d), isGiven.select(value, 0)),
  });
  return [w.forWorkgroups(rows, context.step)];
}

/** Sum of products, in four parts. */
function dotOf(w: DispatchWriter, size: number, a: (d: Expr) => Expr, b: (d: Expr) => Expr): Expr {
  const { k } = w;
  const parts = Math.min(4, Math.max(1, size));
  const sums = Array.from({ length: parts }, (_, i) => k.variable(`dot${i}`, literal('f32', 0)));
  const add = (part: number, d: Expr): void => {
    k.set(sums[part]!, sums[part]!.value.add(a(d).mul(b(d))));
  };
  const whole = size - (size % parts);
  k.for(
    'd',
    literal('i32', 0),
    whole,
    (d) => {
      for (let part = 0; part < parts; part++) add(part, part === 0 ? d : d.add(part));
    },
    parts,
  );
  for (let d = whole; d < size; d++) add(d - whole, literal('i32', d));
  return sums.map(({ value }) => value).reduce((sum, each) => sum.add(each));
}

export function attention(
  step: KernelStep,
  { attrs: { scale, mask } }: StructuredNode<'Attention'>,
  context: LowerContext,
): Dispatch[] {
  const [q, keys, values] = [context.input(step, 0), context.input(step, 1), context.input(step, 2)];
  const output = context.output(step);
  const [query, headDim] = q.shape.slice(-2) as [number, number];
  const length = keys.shape.at(-2)!;
  const valueDim = values.shape.at(-1)!;
  const rows = sizeOf(q.shape.slice(0, -1));
  if (rows === 0 || valueDim === 0) return [];
  const w = context.writer('attention', threads);
  const { k } = w;
  const row = k.let('row', w.workgroupIndex(rows).to('i32'));
  const [qs, ks, vs] = bindSides(w, q, keys, values);
  const masks = mask ? context.input(step, 3) : undefined;
  const maskArray = masks ? bindOperand(w, 'mask', masks) : undefined;
  const y = bindOperand(w, 'y', output);
  const base = k.let('base', row.mul(headDim));
  const group = k.let('keyRow', row.div(query).mul(length));
  const scores = [...q.shape.slice(0, -1), length];
  const score = (p: Expr): Expr => {
    const at = k.let('at', group.add(p).mul(headDim));
    const dot = dotOf(w, headDim, (d) => qs.at(base.add(d)), (d) => ks.at(at.add(d))); // biome-ignore format: short
    const scaled = k.let('scaled', dot.mul(scale));
    if (!maskArray) return scaled;
    const [element] = viewElements(k, row.mul(length).add(p), scores, [mask!]) as [Expr];
    return scaled.add(loadOperand(maskArray, masks!, element));
  };
  attend(w, {
    length: literal('i32', length),
    valueDim,
    score,
    value: (p, d) => vs.at(group.add(p).mul(valueDim).add(d)),
    write: (d, value) => k.store(y, row.mul(valueDim).add(d), value),
  });
  return [w.forWorkgroups(rows, context.step)];
}
