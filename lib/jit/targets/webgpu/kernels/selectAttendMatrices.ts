// lib/jit/targets/webgpu/kernels/selectAttendMatrices.ts: attention of many queries over the cache on an adapter with
// matrix units -> one dispatch of attendMatrices.ts, which also puts a query's heads side by side if that comes next.

import type { Value } from '../../../graph.js';
import { vector } from '../../../kernels/expression.js';
import { isMove } from '../../../passes/groupKernels.js';
import { reshapeThrough } from '../../../passes/views.js';
import type { KernelStep, Step } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import { foldWorkgroups } from '../dispatch.js';
import type { Selection } from '../select.js';
import {
  attendMatricesSharedBytes,
  attendMatricesThreads,
  attendMatricesWorkgroups,
  writeAttendMatrices,
} from './attendMatrices.js';
import { membersFrom } from './group.js';
import { arraysOf } from './selectAttend.js';

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
  const fits =
    attendMatricesSharedBytes(headDim) <= features.maxSharedBytes &&
    attendMatricesThreads <= features.maxThreads;
  if (queries < 2 || headDim % 16 !== 0 || headDim === 0 || !fits) return undefined;
  const count = attendMatricesWorkgroups(batch * heads, queries);
  if (foldWorkgroups(count)[1] > 1) return undefined;
  const writer = context.writer('attention of many', attendMatricesThreads);
  const { k } = writer;
  const [, next] = membersFrom(steps, at);
  const isTurned = next !== undefined && turnsHeads(next, { batch, heads, queries, headDim });
  const y = writer.bind('y', context.output(isTurned ? next : step).use, 'f32x2');
  const { scale, window } = step.node.attrs;
  const spec = { heads, kvHeads, queries, headDim, capacity, window, scale };
  writeAttendMatrices(k, spec, arraysOf(step, context, writer), (row, query, element, values) => {
    const apart = row.mul(queries).add(query);
    const together = row.div(heads).mul(queries).add(query).mul(heads).add(row.rem(heads)); // biome-ignore format: short
    const first = (isTurned ? together : apart).mul(headDim / 2);
    k.store(y, first.add(element.div(2)), vector(...values));
  });
  return { dispatches: [writer.in([count, 1, 1], context.step)], steps: isTurned ? 2 : 1 };
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
