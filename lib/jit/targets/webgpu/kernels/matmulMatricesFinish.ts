// lib/jit/targets/webgpu/kernels/matmulMatricesFinish.ts: a tile's sums on the matrix units -> their rows' and weights' scales
// are applied, and four columns at a time go to the part that writes them.

import type { KernelBuilder, Matrix } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import { matrixSide } from '../../../kernels/kernel.js';
import type { OwnVector, StageSlot } from './matrixStage.js';
import { ownVectors, stage } from './matrixStage.js';
import type { MatrixMatmulSpec, MatrixPart, MatrixTile } from './matrixTile.js';
import { columnsOf, isRescaled } from './matrixTile.js';
import { groupFactor } from './matrixWeights.js';

/** What finishing needs to know of a tile. */
interface FinishedTile {
  readonly k: KernelBuilder;
  readonly spec: MatrixMatmulSpec;
  readonly tile: MatrixTile;
  readonly part: MatrixPart;
  /** Which piece of the depth its sums are of. */
  readonly split: Expr;
}

/** One column of sums of each product, staged. */
interface StagedColumn {
  readonly slots: readonly StageSlot[];
  readonly firstColumn: Expr;
}

/** Sums go through shared memory, so that threads write neighbouring columns. */
export function finishSums(
  finished: FinishedTile,
  sums: readonly (readonly Matrix[])[],
  slots: readonly StageSlot[],
  firstRow: Expr,
  firstColumn: Expr,
): void {
  const { k, part } = finished;
  const turns = part.products.length;
  const atOnce = Math.floor(slots.length / turns) * turns;
  const own = ownVectors(k);
  sums.forEach((byColumn, i) => {
    for (let begin = 0; begin < byColumn.length; begin += atOnce) {
      const staged = byColumn.slice(begin, begin + atOnce);
      for (const [s, sum] of staged.entries()) stage(k, sum, slots[s]!);
      k.barrier();
      const columns = Array.from({ length: staged.length / turns }, (_, column) => ({
        slots: slots.slice(column * turns, (column + 1) * turns),
        firstColumn: firstColumn.add((begin / turns + column) * matrixSide),
      }));
      writeStaged(finished, own, columns, firstRow.add(i * matrixSide));
      k.barrier();
    }
  });
}

/** Finishes what is staged: a thread takes four columns of two rows of each sum. */
function writeStaged(
  finished: FinishedTile,
  own: readonly OwnVector[],
  columns: readonly StagedColumn[],
  firstRow: Expr,
): void {
  const { k, spec, tile, part } = finished;
  const rowsAreWhole = spec.rows % tile.rows === 0;
  const columnsAreWhole = part.width % columnsOf(part, tile) === 0;
  const count = part.width % 4 === 0 ? 4 : 1;
  // All is read before anything is stored: the compiler takes no read past a store that might be to the same place.
  const stores: (() => void)[] = [];
  for (const each of own) {
    const row = k.let('outRow', firstRow.add(each.row));
    for (const staged of columns) {
      const column = k.let('outColumn', staged.firstColumn.add(each.four.mul(4)));
      for (let i = 0; i < 4; i += count) {
        const first = i === 0 ? column : column.add(i);
        const finish = (): (() => void) => finishRow(finished, staged.slots, each, row, first, i, count);
        const conditions = [
          ...(rowsAreWhole ? [] : [row.lt(spec.rows)]),
          ...(columnsAreWhole ? [] : [first.lt(part.width)]),
        ];
        if (conditions.length === 0) stores.push(finish());
        else k.if(conditions.reduce((both, one) => both.and(one)), () => finish()()); // biome-ignore format: short
      }
    }
  }
  for (const store of stores) store();
}

/** @param first of the staged vector's columns: with a count of 1 it alone */
function finishRow(
  { k, spec, part, split }: FinishedTile,
  slots: readonly StageSlot[],
  { offset }: OwnVector,
  row: Expr,
  column: Expr,
  first: number,
  count: 1 | 4,
): () => void {
  const { scales, pieces } = spec.left;
  const piece = isRescaled(spec) ? literal('u32', pieces - 1) : split;
  const rowScale = k.let('rowScale', scales.at(pieces === 1 ? row : row.mul(pieces).add(piece)));
  const columns = Array.from({ length: count }, (_, i) => i);
  const values = part.products.map(({ scales, firstRow }, p) => {
    const { array, at } = slots[p]!;
    const bits = array.at(at.add(offset));
    const sums = spec.kind === 'halves' ? bits.bits('f32x4') : bits.bits('i32x4').to('f32');
    const staged = k.let('sums', sums.mul(splat(rowScale, 4)));
    const own = count === 4 ? staged : splat(staged.lane(first), 4);
    if (spec.scales === 'none' || !scales) return own;
    if (spec.scales !== 'row') return k.let('value', own.mul(1 / groupFactor));
    const each = columns.map((i) => scales.at(column.add(firstRow + i)));
    return k.let('value', own.mul(count === 4 ? vector(...each) : splat(each[0]!, 4)));
  });
  return part.finish(row, column, values, count, split);
}
