// lib/jit/targets/webgpu/kernels/attendStage.ts: the stage of attention of many queries: the part of shared memory where
// sums, which only matrix units can read, become rows of float32, which threads share out, and the other way round.

import type { Matrix } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import { matrixSide } from '../../../kernels/kernel.js';
import type { Block } from './attendBlock.js';
import type { AttendKernel } from './attendTile.js';

/** A subgroup's sums by rows and columns of 16. */
export type Sums = readonly (readonly Matrix[])[];

/** Where a subgroup's matrices are. */
interface OwnMatrices {
  readonly row: Expr; // first of its queries
  readonly share: Expr; // of keys, and of the result's columns
}

/** Threads share out a row of the stage; this thread's share. */
export interface OwnRow {
  readonly row: Expr; // of the workgroup's
  readonly query: Expr; // its number
  /** Vectors of four columns, by the thread's number for them. */
  readonly places: readonly Expr[];
  /** Whether vectors 0 and 1, 2 and 3 and so on have changed places; null: they have not. */
  readonly isSwapped: Expr | null;
  readonly threads: number; // neighbours that have the same row
}

interface StagedColumn {
  readonly place: Expr; // vector of the result's row
  /** Whether the result has it; null: it does. */
  readonly isInside: Expr | null;
}

export function ownMatrices({ k, tile }: AttendKernel): OwnMatrices {
  const subgroup = k.builtin('matrixGroup');
  return {
    row: subgroup.div(tile.columnGroups).mul(tile.matrixRows * matrixSide),
    share: subgroup.rem(tile.columnGroups),
  };
}

export function ownRow({ k, tile, layout }: AttendKernel, block: Block): OwnRow {
  const threads = k.threads / layout.rows;
  const share = k.localIndex.rem(threads);
  const each = tile.keys / 4 / threads;
  const row = k.let('ownRow', k.localIndex.div(threads));
  // Eight neighbouring threads read from different banks.
  const isEven = layout.strides.stage % 2 === 0;
  const odd = each * threads <= 8 ? k.localIndex.div(4).rem(2) : share.rem(2);
  const turn = isEven ? odd : share.div(Math.max(1, 8 / each)).mul(8 / threads);
  return {
    ...{ row, threads, isSwapped: isEven ? k.let('isSwapped', odd.ne(0)) : null },
    query: k.let('query', block.query.add(row.rem(layout.queries))),
    places: Array.from({ length: each }, (_, i) => {
      const own = !isEven && each * threads <= 8 ? literal('u32', i) : turn.xor(i);
      return share.mul(each).add(own);
    }),
  };
}

/** First vector of the thread's row in shared memory. */
export function ownStageAt({ k, layout }: AttendKernel, { row }: OwnRow): Expr {
  const { strides, begins } = layout;
  return k.let('ownAt', row.mul(strides.stage).add(begins.stage));
}

/** Puts sums into the stage side by side; threads may read them behind a barrier. */
export function stageSums(kernel: AttendKernel, sums: Sums): void {
  const { k, layout, memory } = kernel;
  eachStaged(kernel, sums, (sum, offset) => k.matrixStore(sum, memory, offset, layout.strides.stage));
}

function eachStaged(kernel: AttendKernel, sums: Sums, run: (sum: Matrix, offset: Expr) => void): void {
  const { k, tile, layout } = kernel;
  const { strides, begins } = layout;
  const { row, share } = ownMatrices(kernel);
  const width = tile.keys / tile.columnGroups / 4;
  const first = k.let('stageAt', row.mul(strides.stage).add(share.mul(width)).add(begins.stage));
  for (const [i, columns] of sums.entries())
    for (const [j, sum] of columns.entries()) run(sum, first.add((i * strides.stage + j / 4) * matrixSide));
}

/**
 * Sends the results through the stage, some columns at a time; all threads have to arrive.
 * @param results a whole row's: headDim columns
 * @param visit one vector of the thread's row: its place in the result's row, and what it is. What it returns becomes
 *   the result.
 */
export function passResults(
  kernel: AttendKernel,
  results: Sums,
  own: OwnRow,
  visit: (column: StagedColumn, value: Expr) => Expr | undefined,
): void {
  const { k, spec, tile, layout, memory } = kernel;
  const width = tile.keys / tile.columnGroups; // of a subgroup's part of the stage
  const whole = spec.headDim / tile.columnGroups;
  for (let begin = 0; begin < whole; begin += width) {
    const end = Math.min(begin + width, whole);
    const sums = results.map((columns) => columns.slice(begin / matrixSide, end / matrixSide));
    stageSums(kernel, sums);
    k.barrier();
    const from = ownStageAt(kernel, own);
    let isChanged = false;
    for (const staged of own.places) {
      const inShare = staged.rem(width / 4);
      const place = staged.div(width / 4).mul(whole / 4).add(inShare).add(begin / 4); // biome-ignore format: short
      const isInside = end - begin === width ? null : inShare.lt((end - begin) / 4);
      const value = k.let('passed', memory.at(from.add(staged)).bits('f32x4'));
      const changed = visit({ place, isInside }, value);
      if (!changed) continue;
      k.store(memory, from.add(staged), changed.bits('u32x4'));
      isChanged = true;
    }
    k.barrier();
    if (!isChanged) continue;
    eachStaged(kernel, sums, (sum, offset) => k.matrixReload(sum, memory, offset, layout.strides.stage));
    k.barrier();
  }
}
