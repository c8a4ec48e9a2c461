// lib/jit/targets/webgpu/kernels/matrixStage.ts: where a subgroup's sums, which only matrix units can read, go on their way
// through threads: the shared memory of a product's sides, while nobody multiplies them. As many at once as fit: between
// two barriers a thread waits for memory once.

import type { ArrayRef, KernelBuilder, Matrix } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { matrixSide, matrixThreads } from '../../../kernels/kernel.js';

/** Rows of a staged sum are four vectors, and one to spare against bank conflicts. */
const stride = matrixSide / 4 + 1;
/** Vectors that a sum takes. */
export const stageVectors = matrixSide * stride;

/** Both sides of a product. */
export interface Sides {
  readonly left: ArrayRef;
  readonly right: ArrayRef;
}

/** A place for one sum of a subgroup. */
export interface StageSlot {
  readonly array: ArrayRef; // u32x4
  readonly at: Expr;
}

/** The places that each of `subgroups` has; their memory has so many vectors a side. */
export function stageSlots(
  k: KernelBuilder,
  { left, right }: Sides,
  vectors: { readonly left: number; readonly right: number },
  subgroups: number,
  subgroup: Expr,
): StageSlot[] {
  const sides = [
    { array: right, count: Math.floor(vectors.right / subgroups / stageVectors) },
    { array: left, count: Math.floor(vectors.left / subgroups / stageVectors) },
  ];
  return sides.flatMap(({ array, count }) => {
    const first = k.let('slots', subgroup.mul(count * stageVectors));
    return Array.from({ length: count }, (_, i) => ({ array, at: first.add(i * stageVectors) }));
  });
}

export function stage(k: KernelBuilder, sum: Matrix, { array, at }: StageSlot): void {
  k.matrixStore(sum, array, at, stride);
}

export function unstage(k: KernelBuilder, sum: Matrix, { array, at }: StageSlot): void {
  k.matrixReload(sum, array, at, stride);
}

/** One of the two vectors that a thread has of each staged sum. */
export interface OwnVector {
  readonly row: Expr; // of 16
  readonly four: Expr; // which four columns
  /** Its place from a slot's first vector. */
  readonly offset: Expr;
}

/** Neighbouring threads have neighbouring columns. */
export function ownVectors(k: KernelBuilder): OwnVector[] {
  const lane = k.let('lane', k.localIndex.rem(matrixThreads));
  const four = k.let('four', lane.rem(matrixSide / 4));
  const rows = matrixThreads / (matrixSide / 4);
  return Array.from({ length: matrixSide / rows }, (_, i) => {
    const row = k.let('inRow', lane.div(matrixSide / 4).add(i * rows));
    return { row, four, offset: k.let('offset', row.mul(stride).add(four)) };
  });
}
