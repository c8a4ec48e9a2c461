// lib/jit/targets/webgpu/kernels/selectAttendMatrices.ts: attention of many queries over the cache on an adapter with
// matrix units -> one dispatch of attendMatrices.ts, which also puts a query's heads side by side if that comes next;
// before it, where the queries are many, one that copies keys and values as halves (attendHalves.ts).

import type { Value } from '../../../graph.js';
import { isMove } from '../../../passes/groupKernels.js';
import { reshapeThrough } from '../../../passes/views.js';
import type { KernelStep, Step } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import { foldWorkgroups } from '../dispatch.js';
import type { Selection } from '../select.js';
import type { DispatchWriter } from '../writer.js';
import type { AttendArrays } from './attend.js';
import { halvesBytes, halvesTasks, halvesThreads, writeHalves } from './attendHalves.js';
import { writeAttendMatrices } from './attendMatrices.js';
import type { AttendMatricesSpec } from './attendTile.js';
import { attendLayout, attendTile } from './attendTile.js';
import { membersFrom } from './group.js';
import { placesOf } from './selectAttend.js';

/** From so many queries on keys and values are copied as halves first. */
const manyQueries = 256;

/** Takes a CachedAttention of several queries, where numbers may be rounded to float16. */
export function selectAttendMatrices(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  const step = steps[at];
  const { features } = context;
  if (step?.kind !== 'kernel' || step.node.op !== 'CachedAttention') return undefined;
  if (!features.matrices || !features.subgroups || !context.takesHalves) return undefined;
  const [q, cache] = step.node.inputs as readonly [Value, Value, ...Value[]];
  const [batch, heads, queries, headDim] = q.shape as [number, number, number, number];
  const [, kvHeads, capacity] = cache.shape as [number, number, number, number];
  if (queries < 2 || headDim % 16 !== 0 || headDim === 0) return undefined;
  const { scale, window } = step.node.attrs;
  const spec = { batch, heads, kvHeads, queries, headDim, capacity, window, scale };
  const tile = attendTile(spec, features);
  if (!tile) return undefined;
  const { threads, workgroups } = attendLayout(spec, tile);
  if (foldWorkgroups(workgroups)[1] > 1) return undefined;
  const halves = queries >= manyQueries ? halvesDispatch(step, spec, context) : undefined;
  const writer = context.writer('attention of many', threads);
  const { k } = writer;
  const [, next] = membersFrom(steps, at);
  const isTurned = next !== undefined && turnsHeads(next, { batch, heads, queries, headDim });
  const arrays = {
    q: writer.bind('q', context.input(step, 0).use, 'f32x4'),
    ...cacheArrays(step, context, writer, halves),
    ...placesOf(step, context, writer),
  };
  const y = writer.bind('y', context.output(isTurned ? next : step).use, 'f32x4');
  writeAttendMatrices(k, spec, tile, arrays, (row, query, place, value) => {
    const apart = row.mul(queries).add(query);
    const together = row.div(heads).mul(queries).add(query).mul(heads).add(row.rem(heads)); // biome-ignore format: short
    k.store(y, (isTurned ? together : apart).mul(headDim / 4).add(place), value);
  });
  const dispatch = writer.in([workgroups, 1, 1], context.step);
  return { dispatches: halves ? [halves.dispatch, dispatch] : [dispatch], steps: isTurned ? 2 : 1 };
}

interface Halves {
  readonly dispatch: Dispatch;
  readonly keys: BufferUse;
  readonly values: BufferUse;
}

function halvesDispatch(step: KernelStep, spec: AttendMatricesSpec, context: LowerContext): Halves {
  const writer = context.writer('keys and values as halves', halvesThreads);
  const count = halvesTasks(spec);
  const index = writer.threadIndex(count);
  const [keys, values] = [context.scratch(halvesBytes(spec)), context.scratch(halvesBytes(spec))];
  const from = cacheArrays(step, context, writer);
  writeHalves(writer.k, spec, index, placesOf(step, context, writer), [
    { from: from.keys, to: writer.bind('keyHalves', keys, 'u32x4') },
    { from: from.values, to: writer.bind('valueHalves', values, 'u32x4') },
  ]);
  return { dispatch: writer.forThreads(count, context.step), keys, values };
}

/** Binds keys and values: as the cache has them, or their copies. */
function cacheArrays(
  step: KernelStep,
  context: LowerContext,
  writer: DispatchWriter,
  halves?: Halves,
): Pick<AttendArrays, 'keys' | 'values'> {
  return {
    keys: writer.bind('keys', halves?.keys ?? context.input(step, 1).use, halves ? 'u32x4' : 'f32x4'),
    values: writer.bind('values', halves?.values ?? context.input(step, 2).use, halves ? 'u32x4' : 'f32x4'),
  };
}

interface HeadShape {
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly headDim: number;
}

/** True for a step that makes [batch, queries, heads, headDim] of [batch, heads, queries, headDim]. */
function turnsHeads({ node }: KernelStep, { batch, heads, queries, headDim }: HeadShape): boolean {
  if (!isMove(node)) return false;
  const turned = [batch, queries, heads, headDim];
  const view = reshapeThrough(node.attrs.views[0]!, node.outputs[0]!.shape, turned);
  const strides = [heads * queries * headDim, headDim, queries * headDim, 1];
  return view?.offset === 0 && strides.every((stride, i) => turned[i] === 1 || view.strides[i] === stride);
}
