// lib/jit/targets/webgpu/kernels/selectAttendMatrices.ts: attention of many queries over the cache on an adapter with
// matrix units -> one dispatch of attendMatrices.ts.

import type { Value } from '../../../graph.js';
import { vector } from '../../../kernels/expression.js';
import type { Step } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import { foldWorkgroups } from '../dispatch.js';
import type { Selection } from '../select.js';
import {
  attendMatricesSharedBytes,
  attendMatricesThreads,
  attendMatricesWorkgroups,
  writeAttendMatrices,
} from './attendMatrices.js';

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
  const bind = (name: string, index: number, element: 'f32x4' | 'i32') =>
    writer.bind(name, context.input(step, index).use, element);
  const arrays = {
    ...{ q: bind('q', 0, 'f32x4'), keys: bind('keys', 1, 'f32x4'), values: bind('values', 2, 'f32x4') },
    ...{ start: bind('start', 3, 'i32'), count: bind('count', 4, 'i32') },
  };
  const y = writer.bind('y', context.output(step).use, 'f32x2');
  const { scale, window } = step.node.attrs;
  const spec = { heads, kvHeads, queries, headDim, capacity, window, scale };
  writeAttendMatrices(k, spec, arrays, (row, query, element, values) => {
    const place = row.mul(queries).add(query).mul(headDim / 2).add(element.div(2)); // biome-ignore format: short
    k.store(y, place, vector(...values));
  });
  return { dispatches: [writer.in([count, 1, 1], context.step)], steps: 1 };
}
