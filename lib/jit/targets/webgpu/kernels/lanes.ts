// lib/jit/targets/webgpu/kernels/lanes.ts: a workgroup as groups of threads that work on one row together and then add
// up what each has: subgroups or parts of them where their size is known, else threads that meet in shared memory.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';

/** Threads in a group where subgroups cannot serve. */
const plainLanes = 32;

/** How many threads can work on a row together; any smaller power of two can too. */
export function mostLanes(features: Features): number {
  return hasKnownSubgroups(features) ? features.minSubgroupSize : plainLanes;
}

/** A number of the thread in its workgroup by which neighbours in a subgroup follow each other. */
export function threadInOrder(k: KernelBuilder): Expr {
  return k.builtin('subgroupIndex').mul(k.builtin('subgroupSize')).add(k.builtin('subgroupLane'));
}

/** True if all subgroups have one size, so that kernels can be written for it. */
export function hasKnownSubgroups({ subgroups, minSubgroupSize, maxSubgroupSize }: Features): boolean {
  return subgroups && minSubgroupSize === maxSubgroupSize;
}

/** A thread's place. */
export interface Lanes {
  readonly size: number;
  readonly lane: Expr;
  readonly group: Expr;
  /** Sums over the group's threads; every thread of the workgroup has to arrive. */
  sum(values: readonly Expr[]): Sums;
}

/** Sums of a list of values, spread over the group's threads: each is held by a thread that `isHolder` is true for. */
export interface Sums {
  readonly isHolder: Expr;
  /** What this thread holds: a value's place in the list, and its sum. */
  readonly held: readonly { readonly index: Expr; readonly sum: Expr }[];
}

export function lanesOf(k: KernelBuilder, features: Features, size: number): Lanes {
  if (!hasKnownSubgroups(features)) return plainLanesOf(k, size);
  const perSubgroup = features.minSubgroupSize / size;
  const [inSubgroup, subgroup] = [k.builtin('subgroupLane'), k.builtin('subgroupIndex')];
  const isWhole = perSubgroup === 1;
  const lane = k.let('lane', isWhole ? inSubgroup : inSubgroup.rem(size));
  const group = k.let('group', isWhole ? subgroup : subgroup.mul(perSubgroup).add(inSubgroup.div(size)));
  const sum = (values: readonly Expr[]): Sums => {
    if (!isWhole || values.length >= size) return spreadSums(k, lane, size, values);
    const held = values.map((value, i) => ({
      index: literal('u32', i),
      sum: k.let(`sum${i}`, value.subgroup('subgroupAdd')),
    }));
    return { isHolder: lane.eq(0), held };
  };
  return { size, lane, group, sum };
}

/**
 * Sums by exchanges between threads that each time keep one half of the values and give the other away: 28 shuffles for
 * 32 values of 8 threads, where adding up each value in all threads takes 96. H100s do one a clock and multiprocessor.
 */
function spreadSums(k: KernelBuilder, lane: Expr, size: number, values: readonly Expr[]): Sums {
  let parts = [...values];
  let first: Expr = literal('u32', 0);
  let isHolder: Expr = literal('bool', 1);
  for (let step = size / 2; step >= 1; step /= 2) {
    const isUpper = k.let('isUpper', lane.and(step).ne(0));
    const half = parts.length / 2;
    if (Number.isInteger(half)) {
      const [lower, upper] = [parts.slice(0, half), parts.slice(half)];
      first = k.let('firstHeld', first.add(isUpper.select(literal('u32', half), 0)));
      parts = lower.map((low, i) => {
        const given = isUpper.select(low, upper[i]!).subgroup('subgroupShuffleXor', step);
        return k.let('sum', isUpper.select(upper[i]!, low).add(given));
      });
    } else {
      isHolder = isHolder.and(isUpper.not());
      parts = parts.map((part) => k.let('sum', part.add(part.subgroup('subgroupShuffleXor', step))));
    }
  }
  return { isHolder, held: parts.map((sum, i) => ({ index: first.add(i), sum })) };
}

function plainLanesOf(k: KernelBuilder, size: number): Lanes {
  const lane = k.let('lane', k.localIndex.rem(size));
  const group = k.let('group', k.localIndex.div(size));
  let meeting: ArrayRef | undefined;
  const sum = (values: readonly Expr[]): Sums => {
    meeting ??= k.shared('meeting', 'f32', k.threads);
    const place = meeting;
    const held = values.map((value, i) => {
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
      return { index: literal('u32', i), sum: total };
    });
    return { isHolder: lane.eq(0), held };
  };
  return { size, lane, group, sum };
}
