// lib/jit/targets/wasm/moves.ts: kernels that only move values: Concat, Gather, GatherNd, ScatterNd, Embed, copies.

import { sizeOf } from '../../../tensor.js';
import type { ElementType, StructuredNode, Value } from '../../graph.js';
import { stridesOf } from '../../graph.js';
import type { CopyStep, KernelStep, Plan } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { copyMemory, loads, stores } from './memory.js';
import { constant, type Expr, type Operand } from './nodes.js';
import { layoutOf, PANEL, type PackedLayout } from './pack.js';
import { mapRow } from './rows.js';
import { f32, i32, select } from './scalars.js';

/** Bytes of a unit of a copy. */
const COPY_BYTES = 1 << 15;

export function emitCopy(context: KernelContext, step: CopyStep): Kernel {
  const { f, begin, end } = context.kernel('copy');
  const from = f.let('from', context.addresses.place(step.from));
  const to = f.let('to', context.addresses.place(step.to));
  copyUnits(f, from, to, step.bytes, begin, end);
  return context.finish(f, Math.ceil(step.bytes / COPY_BYTES));
}

/** Copies units begin..end of `bytes` bytes. */
function copyUnits(f: FunctionBuilder, from: Expr, to: Expr, bytes: number, begin: Expr, end: Expr): void {
  const first = f.let('first', i32.mul(begin, COPY_BYTES));
  const last = f.let('last', i32.mul(end, COPY_BYTES));
  f.set(last, select(last, bytes, i32.lt_u(last, bytes), 'i32'));
  f.when(i32.lt_u(first, last), () => {
    f.do(copyMemory(i32.add(to, first), i32.add(from, first), i32.sub(last, first)));
  });
}

/** One unit: one row of the output, which takes a piece from each input. */
export function emitConcat(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Concat'>;
  const { axis } = node.attrs;
  const { shape } = node.outputs[0]!;
  const outer = sizeOf(shape.slice(0, axis));
  const inner = sizeOf(shape.slice(axis + 1));
  const rowBytes = shape[axis]! * inner * 4;
  const { f, begin, end } = context.kernel('concat');
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    let at = 0;
    step.inputs.forEach((place, i) => {
      const bytes = node.inputs[i]!.shape[axis]! * inner * 4;
      const from = i32.add(context.addresses.place(place), i32.mul(unit, bytes));
      const to = i32.add(out, i32.add(i32.mul(unit, rowBytes), at));
      if (bytes > 0) f.do(copyMemory(to, from, bytes));
      at += bytes;
    });
  });
  return context.finish(f, rowBytes === 0 ? 0 : outer);
}

// ------------------------------------------------------------------ gather

/** Copies `count` elements, or fills them with what stands for an index outside. */
function copyOrFill(
  f: FunctionBuilder,
  isInside: Expr,
  from: Expr,
  to: Expr,
  count: number,
  dtype: ElementType,
): void {
  const target = f.let('target', to);
  const outside = dtype === 'f32' ? constant('f32x4', Number.NaN) : constant('i32x4', 0);
  const single = dtype === 'f32' ? stores.f32(target, Number.NaN) : stores.i32(target, 0);
  const copy = () =>
    f.do(count === 1 ? stores.i32(target, loads.i32(from)) : copyMemory(target, from, count * 4));
  const fill = () => (count === 1 ? f.do(single) : mapRow(f, target, count, () => outside));
  f.when(isInside, copy, fill);
}

/** One unit: one looked-up row. */
export function emitGather(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'Gather'>;
  const { axis, batchAxes } = node.attrs;
  const [x, indices] = node.inputs as [Value, Value];
  const outer = sizeOf(x.shape.slice(batchAxes, axis));
  const n = x.shape[axis]!;
  const inner = sizeOf(x.shape.slice(axis + 1));
  const count = sizeOf(indices.shape.slice(batchAxes));
  const rows = sizeOf(x.shape.slice(0, axis)) * count;
  const { f, begin, end } = context.kernel('gather');
  const source = f.let('x', context.addresses.place(step.inputs[0]!));
  const list = f.let('indices', context.addresses.place(step.inputs[1]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const unit = f.local('i32', 'unit');
  const index = f.local('i32', 'index');
  f.loop(unit, begin, end, 1, () => {
    const row = f.let('row', i32.div_u(unit, count)); // batch and outer
    const place = i32.add(i32.mul(i32.div_u(row, outer), count), i32.rem_u(unit, count));
    f.set(index, loads.i32(i32.add(list, i32.shl(place, 2))));
    const from = i32.add(source, i32.mul(i32.add(i32.mul(row, n), index), inner * 4));
    copyOrFill(f, i32.lt_u(index, n), from, i32.add(out, i32.mul(unit, inner * 4)), inner, x.dtype);
  });
  return context.finish(f, inner === 0 ? 0 : rows);
}

/** Offset in bytes of an index tuple into the leading axes, and whether it lies inside them. */
function tupleOffset(f: FunctionBuilder, tuple: Expr, depth: number, shape: readonly number[]) {
  const strides = stridesOf(shape);
  const offset = f.local('i32', 'offset');
  const isInside = f.local('i32', 'isInside');
  f.set(offset, 0);
  f.set(isInside, 1);
  for (let axis = 0; axis < depth; axis++) {
    const index = f.let('index', loads.i32(tuple, axis * 4));
    f.set(isInside, i32.and(isInside, i32.lt_u(index, shape[axis]!)));
    f.set(offset, i32.add(offset, i32.mul(index, strides[axis]! * 4)));
  }
  return { offset, isInside };
}

export function emitGatherNd(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'GatherNd'>;
  const [x, indices] = node.inputs as [Value, Value];
  const depth = indices.shape.at(-1)!;
  const inner = sizeOf(x.shape.slice(depth));
  const rows = sizeOf(indices.shape.slice(0, -1));
  const { f, begin, end } = context.kernel('gatherNd');
  const source = f.let('x', context.addresses.place(step.inputs[0]!));
  const list = f.let('indices', context.addresses.place(step.inputs[1]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const tuple = f.let('tuple', i32.add(list, i32.mul(unit, depth * 4)));
    const { offset, isInside } = tupleOffset(f, tuple, depth, x.shape);
    copyOrFill(f, isInside, i32.add(source, offset), i32.add(out, i32.mul(unit, inner * 4)), inner, x.dtype);
  });
  return context.finish(f, inner === 0 ? 0 : rows);
}

/** One unit only: updates of one place come in order. The output is the base, in place. */
export function emitScatterNd(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'ScatterNd'>;
  const [base, indices] = node.inputs as [Value, Value, Value];
  const depth = indices.shape.at(-1)!;
  const inner = sizeOf(base.shape.slice(depth));
  const rows = sizeOf(indices.shape.slice(0, -1));
  const isFloat = base.dtype === 'f32';
  const { f, begin, end } = context.kernel('scatterNd');
  const list = f.let('indices', context.addresses.place(step.inputs[1]!));
  const updates = f.let('updates', context.addresses.place(step.inputs[2]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const [row, k] = [f.local('i32', 'row'), f.local('i32', 'k')];
  const update = (to: Expr, from: Expr) => {
    if (node.attrs.mode === 'set') return stores.i32(to, loads.i32(from));
    return isFloat
      ? stores.f32(to, f32.add(loads.f32(to), loads.f32(from)))
      : stores.i32(to, i32.add(loads.i32(to), loads.i32(from)));
  };
  f.when(i32.lt_u(begin, end), () => {
    f.loop(row, 0, rows, 1, () => {
      const tuple = f.let('tuple', i32.add(list, i32.mul(row, depth * 4)));
      const { offset, isInside } = tupleOffset(f, tuple, depth, base.shape);
      const from = f.let('from', i32.add(updates, i32.mul(row, inner * 4)));
      const to = f.let('to', i32.add(out, offset));
      f.when(isInside, () => {
        f.loop(k, 0, inner * 4, 4, () => f.do(update(i32.add(to, k), i32.add(from, k))));
      });
    });
  });
  return context.finish(f, 1, false);
}

// ------------------------------------------------------------------ embedding

/** One unit: one row, collected from its lane of a panel: the same memory that a tied head multiplies by. */
export function emitEmbed(context: KernelContext, step: KernelStep, weights: Plan['weights']): Kernel {
  const node = step.node as StructuredNode<'Embed'>;
  const layout = layoutOf(weights[node.attrs.weight]!.format, true);
  const { inDim: dim, outDim: vocab } = layout;
  const rows = sizeOf(node.inputs[0]!.shape);
  const { f, begin, end } = context.kernel('embed');
  const list = f.let('indices', context.addresses.place(step.inputs[0]!));
  const out = f.let('out', context.addresses.place(step.outputs[0]!));
  const table = f.let('table', context.addresses.weight(node.attrs.weight, 'transposed'));
  const unit = f.local('i32', 'unit');
  f.loop(unit, begin, end, 1, () => {
    const index = f.let('index', loads.i32(i32.add(list, i32.shl(unit, 2))));
    const target = f.let('target', i32.add(out, i32.mul(unit, dim * 4)));
    const found = () => {
      const panel = i32.add(table, i32.mul(i32.shr_u(index, 4), layout.panelBytes));
      const lane = f.let('lane', i32.and(index, PANEL - 1));
      collectLane(f, layout, f.let('panel', panel), lane, target);
    };
    const missing = () => mapRow(f, target, dim, () => constant('f32x4', Number.NaN));
    f.when(i32.lt_u(index, vocab), found, missing);
  });
  return context.finish(f, rows);
}

/** target[k] = value of lane `lane` at input k. */
function collectLane(
  f: FunctionBuilder,
  layout: PackedLayout,
  panel: Local,
  lane: Local,
  target: Local,
): void {
  const { groups, groupSize, groupBytes, scaleBytes, inDim } = layout;
  const to = f.let('to', target);
  const [group, k] = [f.local('i32', 'group'), f.local('i32', 'k')];
  const scale = f.local('f32', 'scale');
  const count = (groupIndex: Local): Operand => {
    if (groups === 1) return inDim;
    const left = i32.sub(inDim, i32.mul(groupIndex, groupSize));
    return f.let('count', select(left, groupSize, i32.lt_u(left, groupSize), 'i32'));
  };
  f.loop(group, 0, groups, 1, () => {
    const start = f.let('start', i32.add(panel, i32.mul(group, groupBytes)));
    if (scaleBytes > 0) f.set(scale, loads.f32(i32.add(start, i32.shl(lane, 2))));
    f.loop(k, 0, count(group), 1, () => {
      f.do(stores.f32(to, decodeOne(layout, start, lane, k, scale)));
      f.increase(to, 4);
    });
  });
}

/** One value as float32. */
function decodeOne(layout: PackedLayout, start: Local, lane: Local, k: Local, scale: Local): Expr {
  const cell = (bytes: number) => i32.add(start, i32.mul(i32.add(i32.shl(k, 4), lane), bytes));
  switch (layout.kind) {
    case 'f32':
      return loads.f32(cell(4));
    case 'bf16':
      return f32.reinterpret_i32(i32.shl(loads.u16(cell(2)), 16));
    case 'f16': {
      const bits = i32.and(i32.shl(loads.i16(cell(2), layout.scaleBytes), 13), 0x8fffe000 | 0);
      // The scale holds 2^-60 for inputs that were multiplied by 2^60.
      return f32.mul(f32.mul(f32.reinterpret_i32(bits), 2 ** 60), scale);
    }
    case 'int8': {
      const pair = i32.add(i32.shl(i32.shr_u(k, 1), 5), i32.add(i32.shl(lane, 1), i32.and(k, 1)));
      return f32.mul(f32.convert_i32_s(loads.i8(i32.add(start, pair), layout.scaleBytes)), scale);
    }
    case 'int4': {
      const word = i32.add(i32.shl(i32.shr_u(k, 3), 6), i32.shl(lane, 2));
      const shift = i32.add(i32.shl(i32.and(k, 1), 4), i32.shl(i32.and(i32.shr_u(k, 1), 3), 2));
      const nibble = i32.and(i32.shr_u(loads.i32(i32.add(start, word), layout.scaleBytes), shift), 15);
      return f32.mul(f32.convert_i32_s(i32.sub(nibble, 8)), scale);
    }
  }
}
