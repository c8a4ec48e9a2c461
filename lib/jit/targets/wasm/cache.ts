// lib/jit/targets/wasm/cache.ts: what attention over a cache needs before it: Rotary and CacheAppend.

import type { StructuredNode } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { loads, stores } from './memory.js';
import type { Expr } from './nodes.js';
import { mapRow } from './rows.js';
import { f32, i32, select } from './scalars.js';
import { f32x4 } from './vectors.js';

/** One unit: one token, whose cosines and sines all heads share. Source: Su et al. 2021, arXiv:2104.09864. */
export function emitRotary(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Rotary'>;
  const { inverseFrequencies, scale, layout } = node.attrs;
  const [batch, heads, query, headDim] = node.inputs[0]!.shape as [number, number, number, number];
  const half = headDim / 2;
  const tableBytes = Math.ceil(half / 4) * 16;
  const { f, begin, end } = context.kernel('rotary');
  const x = f.let('x', context.addresses.place(step.inputs[0]!));
  const positions = f.let('positions', context.addresses.place(step.inputs[1]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const frequencies = f.let('frequencies', context.data(Float32Array.from(inverseFrequencies)));
  const cosines = f.let('cosines', context.scratch(2 * tableBytes));
  const sines = f.let('sines', i32.add(cosines, tableBytes));
  const [unit, head] = [f.local('i32', 'unit'), f.local('i32', 'head')];
  f.loop(unit, begin, end, 1, () => {
    const position = f.let(
      'position',
      f32x4.splat(f32.convert_i32_s(loads.i32(i32.add(positions, i32.shl(unit, 2))))),
    );
    const angle = (at: Expr) => f32x4.mul(position, loads.v128(i32.add(frequencies, at)));
    mapRow(f, cosines, half, (at) => f32x4.mul(context.math('cos', angle(at)), scale));
    mapRow(f, sines, half, (at) => f32x4.mul(context.math('sin', angle(at)), scale));
    f.loop(head, 0, heads, 1, () => {
      const row = i32.add(
        i32.mul(i32.add(i32.mul(i32.div_u(unit, query), heads), head), query),
        i32.rem_u(unit, query),
      );
      const offset = f.let('offset', i32.mul(row, headDim * 4));
      const [from, to] = [f.let('from', i32.add(x, offset)), f.let('to', i32.add(out, offset))];
      (layout === 'halves' ? rotateHalves : rotatePairs)(f, { from, to, cosines, sines, half });
    });
  });
  return context.finish(f, batch * query);
}

interface Rotation {
  readonly from: Local;
  readonly to: Local;
  readonly cosines: Local;
  readonly sines: Local;
  readonly half: number;
}

/** Rotates (i, i + half). */
function rotateHalves(f: FunctionBuilder, { from, to, cosines, sines, half }: Rotation): void {
  const part = (base: Local, at: Expr, offset = 0) => loads.v128(i32.add(base, at), offset);
  mapRow(f, to, half, (at) =>
    f32x4.sub(
      f32x4.mul(part(from, at), part(cosines, at)),
      f32x4.mul(part(from, at, half * 4), part(sines, at)),
    ),
  );
  const second = f.let('second', i32.add(to, half * 4));
  mapRow(f, second, half, (at) =>
    f32x4.add(
      f32x4.mul(part(from, at, half * 4), part(cosines, at)),
      f32x4.mul(part(from, at), part(sines, at)),
    ),
  );
}

/** Rotates (2 i, 2 i + 1). */
function rotatePairs(f: FunctionBuilder, { from, to, cosines, sines, half }: Rotation): void {
  const at = f.local('i32', 'at');
  f.loop(at, 0, half * 4, 4, () => {
    const pair = f.let('pair', i32.add(from, i32.shl(at, 1)));
    const target = f.let('target', i32.add(to, i32.shl(at, 1)));
    const [a, b] = [f.let('a', loads.f32(pair)), f.let('b', loads.f32(pair, 4))];
    const [cosine, sine] = [loads.f32(i32.add(cosines, at)), loads.f32(i32.add(sines, at))];
    f.do(stores.f32(target, f32.sub(f32.mul(a, cosine), f32.mul(b, sine))));
    f.do(stores.f32(target, f32.add(f32.mul(b, cosine), f32.mul(a, sine)), 4));
  });
}

/** One unit: one head of one row. Padding, tokens at and after `count`, is not written: it would cover live slots. */
export function emitCacheAppend(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'CacheAppend'>;
  const [batch, kvHeads, capacity, headDim] = node.inputs[0]!.shape as [number, number, number, number];
  const query = node.inputs[1]!.shape[2]!;
  const { f, begin, end } = context.kernel('cacheAppend');
  const [update, starts, counts] = step.inputs
    .slice(1)
    .map((place) => f.let('base', context.addresses.place(place))) as [Local, Local, Local];
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const [unit, token] = [f.local('i32', 'unit'), f.local('i32', 'token')];
  f.loop(unit, begin, end, 1, () => {
    const row = f.let('row', i32.shl(i32.div_u(unit, kvHeads), 2));
    const start = f.let('start', loads.i32(i32.add(starts, row)));
    const given = f.let('given', loads.i32(i32.add(counts, row)));
    const count = f.let('count', select(given, query, i32.lt_s(given, query), 'i32'));
    f.set(count, select(count, 0, i32.gt_s(count, 0), 'i32'));
    const source = f.let('source', i32.add(update, i32.mul(unit, query * headDim * 4)));
    f.loop(token, 0, count, 1, () => {
      const slot = i32.rem_u(i32.add(start, token), capacity);
      const target = i32.add(out, i32.mul(i32.add(i32.mul(unit, capacity), slot), headDim * 4));
      const from = f.let('from', i32.add(source, i32.mul(token, headDim * 4)));
      mapRow(f, f.let('target', target), headDim, (at) => loads.v128(i32.add(from, at)));
    });
  });
  return context.finish(f, batch * kvHeads);
}
