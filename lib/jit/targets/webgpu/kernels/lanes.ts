// lib/jit/targets/webgpu/kernels/lanes.ts: a workgroup as groups of threads that work on one row together and then add
// up what each has: subgroups where their size is known, else threads that meet in shared memory.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';

/** Threads in a group where subgroups cannot serve. */
const plainLanes = 32;

/** How many threads work on a row together. */
export function lanesOfGroup(features: Features): number {
  const { subgroups, minSubgroupSize, maxSubgroupSize } = features;
  return subgroups && minSubgroupSize === maxSubgroupSize ? minSubgroupSize : plainLanes;
}

/** A thread's place. */
export interface Lanes {
  readonly size: number;
  readonly lane: Expr;
  readonly group: Expr;
  /** Sums over the group's threads, in all of them; every thread of the workgroup has to arrive. */
  sum(values: readonly Expr[]): Expr[];
}

export function lanesOf(k: KernelBuilder, features: Features): Lanes {
  const size = lanesOfGroup(features);
  if (features.subgroups && features.minSubgroupSize === features.maxSubgroupSize) {
    return {
      size,
      lane: k.let('lane', k.builtin('subgroupLane')),
      group: k.let('group', k.builtin('subgroupIndex')),
      sum: (values) => values.map((value, i) => k.let(`sum${i}`, value.subgroup('subgroupAdd'))),
    };
  }
  const lane = k.let('lane', k.localIndex.rem(size));
  const group = k.let('group', k.localIndex.div(size));
  let meeting: ArrayRef | undefined;
  const sum = (values: readonly Expr[]): Expr[] => {
    meeting ??= k.shared('meeting', 'f32', k.threads);
    const place = meeting;
    return values.map((value, i) => {
      k.store(place, k.localIndex, value);
      k.barrier();
      for (let half = size / 2; half >= 1; half /= 2) {
        k.if(lane.lt(half), () =>
          k.store(place, k.localIndex, place.at(k.localIndex).add(place.at(k.localIndex.add(half)))),
        );
        k.barrier();
      }
      const total = k.let(`sum${i}`, place.at(group.mul(size)));
      k.barrier();
      return total;
    });
  };
  return { size, lane, group, sum };
}
