// lib/jit/targets/webgpu/kernels/selectAttend.ts: attention of one query a row over the cache -> one dispatch, or for a
// long cache two: chunks, then what they found put together.

import type { Value } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import type { KernelStep, Step } from '../../../steps.js';
import type { LastingUse, LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { Selection } from '../select.js';
import type { DispatchWriter } from '../writer.js';
import { blockSize } from './activations.js';
import type { AttendArrays } from './attend.js';
import { attendWorkgroups, divided, writeAttend } from './attend.js';
import { leaveForJoin, writeJoin } from './attendJoin.js';
import type { AttendSpec } from './attendShape.js';
import { attendSpec } from './attendShape.js';
import type { Side, SideRequest } from './sides.js';
import { beginSide, keepSide, newSide, sideWanted } from './sides.js';

/** Takes a CachedAttention of one query a row. */
export function selectAttend(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  const step = steps[at];
  if (step?.kind !== 'kernel' || step.node.op !== 'CachedAttention') return undefined;
  const spec = specOf(step, context);
  if (!spec) return undefined;
  const value = { ...context.output(step), place: step.outputs[0]! };
  const asked = spec.headDim % blockSize === 0 ? sideWanted(steps, at + 1, value, context) : undefined;
  const want = asked && { request: asked, side: newSide(asked, context) };
  const dispatches =
    spec.chunks === 1 ? [attendWhole(step, spec, context, want)] : attendInChunks(step, spec, context, want);
  if (want) keepSide(want.request, want.side, context);
  return { dispatches, steps: 1 };
}

/** Signed bytes that a later product asks for. */
interface Wanted {
  readonly request: SideRequest;
  readonly side: Side<LastingUse>;
}

function specOf(step: KernelStep, context: LowerContext): AttendSpec | undefined {
  if (step.node.op !== 'CachedAttention') return undefined;
  const [q, cache] = step.node.inputs as readonly [Value, Value, ...Value[]];
  const [batch, heads, query, headDim] = q.shape as [number, number, number, number];
  const [, kvHeads, capacity] = cache.shape as [number, number, number, number];
  const { scale, window } = step.node.attrs;
  if (query !== 1) return undefined;
  const roughExp = context.mode === 'fast';
  return attendSpec(context.features, { batch, heads, kvHeads, headDim, capacity, window, scale, roughExp });
}

function attendWhole(
  step: KernelStep,
  spec: AttendSpec,
  context: LowerContext,
  want: Wanted | undefined,
): Dispatch {
  const writer = context.writer('attention', spec.threads);
  const arrays = arraysOf(step, context, writer);
  const result = resultOf(step, spec, context, writer, want, spec.together);
  writeAttend(writer.k, context.features, spec, arrays, ({ row, head, vector, value, total }) =>
    result.store(row, head, vector, divided(value, total)),
  );
  result.end();
  return writer.in([attendWorkgroups(spec), 1, 1], context.step);
}

function attendInChunks(
  step: KernelStep,
  spec: AttendSpec,
  context: LowerContext,
  want: Wanted | undefined,
): Dispatch[] {
  const { batch, heads, headDim, chunks } = spec;
  const mixtures = context.scratch(4 * batch * heads * chunks * headDim);
  const facts = context.scratch(8 * batch * heads * chunks);
  const writer = context.writer('attention in chunks', spec.threads);
  const { k } = writer;
  const arrays = arraysOf(step, context, writer);
  const left = {
    mixed: writer.bind('mixed', mixtures, 'f32x4'),
    found: writer.bind('found', facts, 'f32x2'),
  };
  writeAttend(k, context.features, spec, arrays, (mixture) => leaveForJoin(k, spec, left, mixture));
  const first = writer.in([attendWorkgroups(spec), 1, 1], context.step);
  return [first, joinChunks(step, spec, mixtures, facts, context, want)];
}

function joinChunks(
  step: KernelStep,
  spec: AttendSpec,
  mixtures: BufferUse,
  facts: BufferUse,
  context: LowerContext,
  want: Wanted | undefined,
): Dispatch {
  const writer = context.writer('attention of chunks', spec.threads);
  const arrays = {
    ...{ mixed: writer.bind('mixed', mixtures, 'f32x4'), found: writer.bind('found', facts, 'f32x2') },
    ...placesOf(step, context, writer),
  };
  const result = resultOf(step, spec, context, writer, want, 1);
  writeJoin(writer.k, context.features, spec, arrays, (row, vector, value) =>
    result.store(row, literal('u32', 0), vector, value),
  );
  result.end();
  return writer.in([spec.batch * spec.heads, 1, 1], context.step);
}

/** Binds what attention reads. */
function arraysOf(step: KernelStep, context: LowerContext, writer: DispatchWriter): AttendArrays {
  const bind = (name: string, index: number): ArrayRef =>
    writer.bindRead(name, context.input(step, index).use, 'f32x4');
  const arrays = { q: bind('q', 0), keys: bind('keys', 1), values: bind('values', 2) };
  return { ...arrays, ...placesOf(step, context, writer) };
}

export function placesOf(
  step: KernelStep,
  context: LowerContext,
  writer: DispatchWriter,
): Pick<AttendArrays, 'start' | 'count'> {
  const bind = (name: string, index: number): ArrayRef =>
    writer.bind(name, context.input(step, index).use, 'i32');
  return { start: bind('start', 3), count: bind('count', 4) };
}

/** Where a workgroup leaves its `rows` neighbouring rows, and their signed bytes where a later product asks for them. */
function resultOf(
  step: KernelStep,
  { headDim }: AttendSpec,
  context: LowerContext,
  writer: DispatchWriter,
  want: Wanted | undefined,
  rows: number,
): { store: (row: Expr, own: Expr, vector: Expr, value: Expr) => void; end: () => void } {
  const { k } = writer;
  const y = writer.bind('y', context.output(step).use, 'f32x4');
  const held = want && k.shared('held', 'f32', rows * headDim);
  return {
    store: (row, own, vector, value) => {
      const result = k.let('result', value);
      k.store(y, row.mul(headDim / 4).add(vector), result);
      if (!held) return;
      const begin = k.let('heldBegin', own.mul(headDim).add(vector.mul(4)));
      for (let i = 0; i < 4; i++) k.store(held, begin.add(i), result.lane(i));
    },
    end: () => {
      if (!want || !held) return;
      const first = k.builtin('workgroupX').mul(rows);
      beginSide(writer, want.request, want.side, held, rows, headDim, (row) => first.add(row).mul(headDim))();
    },
  };
}
