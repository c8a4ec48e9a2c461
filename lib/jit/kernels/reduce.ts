// lib/jit/kernels/reduce.ts: one value a thread -> one value for the workgroup, by subgroups where the adapter has them,
// else through shared memory. Every thread has to arrive, and every thread gets the result.

import type { ArrayRef, KernelBuilder } from './builder.js';
import type { Expr } from './expression.js';
import type { Features } from './kernel.js';

export type Combine = 'add' | 'max' | 'min';

const combiners: Readonly<Record<Combine, (a: Expr, b: Expr) => Expr>> = {
  add: (a, b) => a.add(b),
  max: (a, b) => a.max(b),
  min: (a, b) => a.min(b),
};
const subgroupOps = { add: 'subgroupAdd', max: 'subgroupMax', min: 'subgroupMin' } as const;

/**
 * Reduces values over the workgroup's threads.
 * @param values one or several, reduced side by side with the same barriers
 * @returns one a value, the same in all threads
 */
export function reduceWorkgroup(
  k: KernelBuilder,
  features: Pick<Features, 'subgroups' | 'minSubgroupSize'>,
  combine: Combine,
  ...values: readonly Expr[]
): Expr[] {
  return features.subgroups
    ? reduceBySubgroups(k, features.minSubgroupSize, combine, values)
    : reduceByTree(k, combiners[combine], values);
}

function reduceBySubgroups(
  k: KernelBuilder,
  minSubgroupSize: number,
  combine: Combine,
  values: readonly Expr[],
): Expr[] {
  const join = combiners[combine];
  const most = Math.ceil(k.threads / Math.max(1, minSubgroupSize));
  const sums = values.map((value, i) => k.let(`subgroup${i}`, value.subgroup(subgroupOps[combine])));
  if (most === 1) return sums;
  const parts = values.map((value, i) => k.shared(`parts${i}`, value.type, most));
  const size = k.builtin('subgroupSize');
  k.barrier(); // the arrays may still be read from the time before, in a loop
  k.if(k.builtin('subgroupLane').eq(0), () => {
    for (const [i, sum] of sums.entries()) k.store(parts[i]!, k.builtin('subgroupIndex'), sum);
  });
  k.barrier();
  const count = k.let('subgroups', size.add(k.threads - 1).div(size));
  return parts.map((part, i) => {
    const total = k.variable(`total${i}`, part.at(0));
    k.for('part', 1, count, (at) => k.set(total, join(total.value, part.at(at))));
    return total.value;
  });
}

/** Reduces over `count` neighbours of a subgroup, a power of two; all of them have to arrive, and each gets the result. */
export function reduceNeighbours(k: KernelBuilder, combine: Combine, count: number, value: Expr): Expr {
  const join = combiners[combine];
  let held = k.let('held', value);
  for (let step = 1; step < count; step *= 2)
    held = k.let('held', join(held, held.subgroup('subgroupShuffleXor', step)));
  return held;
}

/** Halves the number of threads that hold a part, until one is left. */
export function reduceByTree(
  k: KernelBuilder,
  join: (a: Expr, b: Expr) => Expr,
  values: readonly Expr[],
): Expr[] {
  const parts = values.map((value, i) => k.shared(`parts${i}`, value.type, k.threads));
  k.barrier();
  for (const [i, value] of values.entries()) k.store(parts[i]!, k.localIndex, value);
  k.barrier();
  let held = k.threads;
  while (held > 1) {
    const half = Math.ceil(held / 2);
    const pairs = Math.floor(held / 2);
    k.if(k.localIndex.lt(pairs), () => {
      for (const part of parts) addPart(k, part, half, join);
    });
    k.barrier();
    held = half;
  }
  return parts.map((part, i) => k.let(`total${i}`, part.at(0)));
}

function addPart(k: KernelBuilder, part: ArrayRef, half: number, join: (a: Expr, b: Expr) => Expr): void {
  const own = part.at(k.localIndex);
  k.store(part, k.localIndex, join(own, part.at(k.localIndex.add(half))));
}
