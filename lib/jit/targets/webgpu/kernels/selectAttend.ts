// lib/jit/targets/webgpu/kernels/selectAttend.ts: attention of one query a row over the cache -> one dispatch, or for a
// long cache two: chunks, then what they found put together.

import type { Value } from '../../../graph.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import { exp } from '../../../kernels/math.js';
import type { KernelStep, Step } from '../../../steps.js';
import type { LastingUse, LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { Selection } from '../select.js';
import { blockSize } from './activations.js';
import type { AttendArrays, AttendSpec } from './attend.js';
import { attendSharedBytes, attendThreads, writeAttend } from './attend.js';
import type { Side, SideRequest } from './sides.js';
import { keepSide, newSide, sideWanted, storeSide } from './sides.js';

/** A cache of so many slots is read by one workgroup a head; a longer one by several. */
const longestChunk = 512;
const chunkOfLong = 256;

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
  const [, heads, query, headDim] = q.shape as [number, number, number, number];
  const [, kvHeads, capacity] = cache.shape as [number, number, number, number];
  const { scale, window } = step.node.attrs;
  const { features } = context;
  if (query !== 1 || headDim % 4 !== 0 || headDim / 4 > features.maxThreads) return undefined;
  const isLong = capacity > longestChunk;
  const spec: AttendSpec = {
    ...{ heads, kvHeads, headDim, capacity, window, scale },
    together: isLong ? largestDivisor(heads / kvHeads, 4) : 1,
    chunk: isLong ? chunkOfLong : capacity,
    chunks: isLong ? Math.ceil(capacity / chunkOfLong) : 1,
  };
  const fits = attendSharedBytes(features, spec) <= features.maxSharedBytes;
  if (fits) return spec;
  const lean = { ...spec, together: 1 };
  return attendSharedBytes(features, lean) <= features.maxSharedBytes ? lean : undefined;
}

function largestDivisor(n: number, most: number): number {
  for (let divisor = Math.min(n, most); divisor > 1; divisor--) if (n % divisor === 0) return divisor;
  return 1;
}

function arraysOf(
  step: KernelStep,
  context: LowerContext,
  writer: ReturnType<LowerContext['writer']>,
): AttendArrays {
  const bind = (name: string, index: number, element: 'f32x4' | 'i32') =>
    writer.bind(name, context.input(step, index).use, element);
  return {
    ...{ q: bind('q', 0, 'f32x4'), keys: bind('keys', 1, 'f32x4'), values: bind('values', 2, 'f32x4') },
    ...{ start: bind('start', 3, 'i32'), count: bind('count', 4, 'i32') },
  };
}

function rowsOf(step: KernelStep): number {
  const [batch, heads] = step.node.inputs[0]!.shape as [number, number];
  return batch * heads;
}

function attendWhole(
  step: KernelStep,
  spec: AttendSpec,
  context: LowerContext,
  want: Wanted | undefined,
): Dispatch {
  const writer = context.writer('attention', attendThreads(context.features, spec.headDim));
  const { k } = writer;
  const arrays = arraysOf(step, context, writer);
  const y = writer.bind('y', context.output(step).use, 'f32');
  const { headDim, together } = spec;
  const own = want && k.shared('own', 'f32', together * headDim);
  writeAttend(k, context.features, spec, arrays, ({ row, element, value, total }) => {
    // A query that is padding sees nothing and gives 0.
    const result = k.let('result', total.gt(0).select(value.div(total), 0));
    k.store(y, row.mul(headDim).add(element), result);
    if (own) k.store(own, row.rem(together).mul(headDim).add(element), result);
  });
  if (want && own) {
    const first = k.builtin('workgroupX').mul(together);
    const place = (row: Expr): Expr => first.add(row).mul(headDim);
    storeSide(writer, want.request, want.side, own, together, headDim, place);
  }
  return writer.in([rowsOf(step) / spec.together, 1, 1], context.step);
}

function attendInChunks(
  step: KernelStep,
  spec: AttendSpec,
  context: LowerContext,
  want: Wanted | undefined,
): Dispatch[] {
  const rows = rowsOf(step);
  const { headDim, chunks, together } = spec;
  const mixtures = context.scratch(4 * rows * chunks * headDim);
  const facts = context.scratch(8 * rows * chunks);
  const writer = context.writer('attention in chunks', attendThreads(context.features, headDim));
  const { k } = writer;
  const arrays = arraysOf(step, context, writer);
  const [mixed, found] = [writer.bind('mixed', mixtures, 'f32'), writer.bind('found', facts, 'f32')];
  writeAttend(k, context.features, spec, arrays, ({ row, chunk, element, value, largest, total }) => {
    const at = k.let('at', row.mul(chunks).add(chunk));
    k.store(mixed, at.mul(headDim).add(element), value);
    k.if(element.eq(0), () => {
      k.store(found, at.mul(2), largest);
      k.store(found, at.mul(2).add(1), total);
    });
  });
  const first = writer.in([(rows / together) * chunks, 1, 1], context.step);
  return [first, joinChunks(step, spec, mixtures, facts, context, want)];
}

/** Weighs each chunk's mixture by how its largest score compares with the largest of all. */
function joinChunks(
  step: KernelStep,
  { headDim, chunks, chunk, window }: AttendSpec,
  mixtures: BufferUse,
  facts: BufferUse,
  context: LowerContext,
  want: Wanted | undefined,
): Dispatch {
  const rows = rowsOf(step);
  const heads = step.node.inputs[0]!.shape[1]!;
  // A workgroup a row, so that its threads can meet.
  const writer = context.writer('attention of chunks', Math.min(headDim, context.features.maxThreads));
  const { k } = writer;
  const [mixed, found] = [writer.bind('mixed', mixtures, 'f32'), writer.bind('found', facts, 'f32')];
  const start = writer.bind('start', context.input(step, 3).use, 'i32');
  const count = writer.bind('count', context.input(step, 4).use, 'i32');
  const y = writer.bind('y', context.output(step).use, 'f32');
  const row = k.let('row', k.builtin('workgroupX'));
  const batch = k.let('batch', row.div(heads));
  const held = k.let('held', start.at(batch).add(1));
  const seen = window === null ? held : held.min(window);
  const real = k.let(
    'real',
    count
      .at(batch)
      .gt(0)
      .select(
        seen
          .add(chunk - 1)
          .div(chunk)
          .bits('u32'),
        0,
      ),
  );
  const fact = (at: Expr, which: 0 | 1): Expr => found.at(row.mul(chunks).add(at).mul(2).add(which));
  const largest = k.variable('largest', literal('f32', Number.NEGATIVE_INFINITY));
  k.for('at', 0, real, (at) => k.set(largest, largest.value.max(fact(at, 0))));
  const own = k.shared('own', 'f32', headDim);
  const element = (at: Expr): void => {
    const [sum, total] = [k.variable('sum', literal('f32', 0)), k.variable('total', literal('f32', 0))];
    k.for('at', 0, real, (chunkAt) => {
      const weight = k.let('weight', exp(fact(chunkAt, 0).sub(largest.value)));
      const value = mixed.at(row.mul(chunks).add(chunkAt).mul(headDim).add(at));
      k.set(sum, sum.value.add(weight.mul(value)));
      k.set(total, total.value.add(weight.mul(fact(chunkAt, 1))));
    });
    const result = k.let('result', total.value.gt(0).select(sum.value.div(total.value), 0));
    k.store(y, row.mul(headDim).add(at), result);
    if (want) k.store(own, at, result);
  };
  k.for('element', k.localIndex, literal('u32', headDim), element, k.threads);
  if (want) storeSide(writer, want.request, want.side, own, 1, headDim, () => row.mul(headDim));
  return writer.in([rows, 1, 1], context.step);
}
