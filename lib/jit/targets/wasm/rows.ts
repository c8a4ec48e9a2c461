// lib/jit/targets/wasm/rows.ts: kernels over rows of consecutive float32: Norm and Softmax, and the loops that they and
// others walk a row with. One unit of work is one row.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import { constant, type Expr, lanesOf, type Operand } from './nodes.js';
import { f32, i32 } from './scalars.js';
import { storeLanes } from './strips.js';
import { f32x4, v128 } from './vectors.js';

type Combine = (held: Expr, value: Expr) => Expr;

/**
 * Folds a row into one vector; four partial vectors, so that additions need not wait for each other.
 * @param count elements; known when the code is made
 * @param start what every lane holds at first, and what stands for elements past the end
 */
export function foldRow(
  f: FunctionBuilder,
  row: Local,
  count: number,
  start: Expr,
  combine: Combine,
  add: Combine = combine,
): Local {
  const [a, b, c, d] = f.vectors('held', 4) as [Local, Local, Local, Local];
  const held = [a, b, c, d];
  for (const each of held) f.set(each, start);
  const at = f.local('i32', 'at');
  const byFour = Math.floor(count / 16) * 64;
  f.loop(at, 0, byFour, 64, () => {
    held.forEach((each, i) => {
      f.set(each, combine(each, loads.v128(i32.add(row, at), i * 16)));
    });
  });
  for (let offset = byFour; offset < count * 4; offset += 16) {
    const each = held[(offset / 16) % 4]!;
    const next = combine(each, loads.v128(row, offset));
    f.set(each, maskTail(next, each, count - offset / 4));
  }
  f.set(a, add(add(a, b), add(c, d)));
  return a;
}

/** Elements past `left` replaced. */
export function maskTail(value: Expr, replacement: Expr, left: number): Expr {
  if (left >= 4) return value;
  const mask = lanesOf(Int32Array.from({ length: 4 }, (_, i) => (i < left ? -1 : 0)));
  return v128.bitselect(value, replacement, mask);
}

/** Combines the lanes of a vector. */
export function acrossLanes(vector: Local, lane: (v: Expr, i: number) => Expr, combine: Combine): Expr {
  return combine(combine(lane(vector, 0), lane(vector, 1)), combine(lane(vector, 2), lane(vector, 3)));
}

/** out[i] = value(i), four at a time; `value` is given the byte offset of its first element. */
export function mapRow(f: FunctionBuilder, out: Local, count: Operand, value: (at: Local) => Expr): void {
  const at = f.local('i32', 'at');
  const bytes = typeof count === 'number' ? count * 4 : f.let('bytes', i32.shl(count, 2));
  f.loop(at, 0, bytes, 16, () => {
    const result = f.let('result', value(at));
    const address = i32.add(out, at);
    if (typeof count === 'number' && count % 4 === 0) f.do(stores.v128(address, result));
    else storeLanes(f, address, result, i32.sub(bytes, at));
  });
}

// ------------------------------------------------------------------ kernels

const addFloats: Combine = (a, b) => f32x4.add(a, b);
const sumOfLanes = (vector: Local) => acrossLanes(vector, f32x4.extractLane, f32.add);

export function emitNorm(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Norm'>;
  const { kind, epsilon, scaled, biased } = node.attrs;
  const { shape } = node.inputs[0]!;
  const dim = shape.at(-1)!;
  const rows = sizeOf(shape.slice(0, -1));
  const { f, begin, end } = context.kernel('norm');
  const [x, ...rest] = step.inputs.map((place) => f.let('base', context.addresses.place(place))) as [
    Local,
    ...Local[],
  ];
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const scale = scaled ? rest[0] : undefined;
  const bias = biased ? rest[scaled ? 1 : 0] : undefined;
  const unit = f.local('i32', 'unit');
  const mean = f.local('v128', 'mean');
  const inverse = f.local('v128', 'inverse');
  f.loop(unit, begin, end, 1, () => {
    const row = f.let('row', i32.add(x, i32.mul(unit, dim * 4)));
    const target = f.let('target', i32.add(out, i32.mul(unit, dim * 4)));
    if (kind === 'layer') {
      const total = foldRow(f, row, dim, f32x4.splat(0), addFloats);
      f.set(mean, f32x4.splat(f32.div(sumOfLanes(total), dim)));
    }
    const centred = (value: Expr) => (kind === 'layer' ? f32x4.sub(value, mean) : value);
    const square = f.local('v128', 'square');
    const squares = foldRow(
      f,
      row,
      dim,
      f32x4.splat(0),
      (held, value) => {
        f.set(square, centred(value));
        return f32x4.add(held, f32x4.mul(square, square));
      },
      addFloats,
    );
    const variance = f32.div(sumOfLanes(squares), dim);
    f.set(inverse, f32x4.splat(f32.div(1, f32.sqrt(f32.add(variance, epsilon)))));
    mapRow(f, target, dim, (at) => {
      let value = f32x4.mul(centred(loads.v128(i32.add(row, at))), inverse);
      if (scale) value = f32x4.mul(value, loads.v128(i32.add(scale, at)));
      return bias ? f32x4.add(value, loads.v128(i32.add(bias, at))) : value;
    });
  });
  return context.finish(f, rows);
}

export function emitSoftmax(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Softmax'>;
  const { log, scale } = node.attrs;
  const { shape } = node.inputs[0]!;
  const n = shape.at(-1)!;
  const rows = sizeOf(shape.slice(0, -1));
  const { f, begin, end } = context.kernel('softmax');
  const x = f.let('x', context.addresses.place(step.inputs[0]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const unit = f.local('i32', 'unit');
  const scaled = (value: Expr) => (scale === 1 ? value : f32x4.mul(value, scale));
  f.loop(unit, begin, end, 1, () => {
    const row = f.let('row', i32.add(x, i32.mul(unit, n * 4)));
    const target = f.let('target', i32.add(out, i32.mul(unit, n * 4)));
    const lowest = constant('f32x4', Number.NEGATIVE_INFINITY);
    const larger: Combine = (a, b) => f32x4.max(a, b);
    const max = foldRow(f, row, n, lowest, (held, value) => larger(held, scaled(value)), larger);
    f.set(max, f32x4.splat(acrossLanes(max, f32x4.extractLane, f32.max)));
    const shifted = (value: Expr) => f32x4.sub(scaled(value), max);
    if (!log) mapRow(f, target, n, (at) => context.math('exp', shifted(loads.v128(i32.add(row, at)))));
    const exponential: Combine = (held, value) =>
      f32x4.add(held, log ? context.math('exp', shifted(value)) : value);
    const total = foldRow(f, log ? row : target, n, f32x4.splat(0), exponential, addFloats);
    f.set(total, f32x4.splat(sumOfLanes(total)));
    f.set(total, log ? context.math('log', total) : f32x4.div(1, total));
    mapRow(f, target, n, (at) =>
      log
        ? f32x4.sub(shifted(loads.v128(i32.add(row, at))), total)
        : f32x4.mul(loads.v128(i32.add(target, at)), total),
    );
  });
  return context.finish(f, rows, false);
}
