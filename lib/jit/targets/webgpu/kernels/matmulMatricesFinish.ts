// lib/jit/targets/webgpu/kernels/matmulMatricesFinish.ts: a tile's sums on the matrix units -> their rows' and weights' scales
// are applied, and four columns at a time go to the part that writes them.

import type { ArrayRef, KernelBuilder, Matrix } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import { matrixSide, matrixThreads } from '../../../kernels/kernel.js';
import type { MatrixMatmulSpec, MatrixPart, MatrixTile } from './matrixTile.js';
import { columnsOf, stageStride, stageVectors } from './matrixTile.js';
import { groupFactor } from './matrixWeights.js';

/** What finishing needs to know of a tile. */
interface FinishedTile {
  readonly k: KernelBuilder;
  readonly spec: MatrixMatmulSpec;
  readonly tile: MatrixTile;
  readonly part: MatrixPart;
  /** Where sums lie on their way out. */
  readonly stage: ArrayRef;
  /** Which piece of the depth they are of. */
  readonly split: Expr;
}

/** Sums go through shared memory, one of each product at a time, so that threads write neighbouring columns. */
export function finishSums(
  finished: FinishedTile,
  sums: readonly (readonly Matrix[])[],
  subgroup: Expr,
  firstRow: Expr,
  firstColumn: Expr,
): void {
  const { k, part, stage } = finished;
  const turns = part.products.length;
  const base = k.let('base', subgroup.mul(stageVectors(turns)));
  sums.forEach((byColumn, i) => {
    for (let j = 0; j < byColumn.length; j += turns) {
      for (const [p, sum] of byColumn.slice(j, j + turns).entries())
        k.matrixStore(sum, stage, base.add(p * stageVectors(1)), stageStride);
      k.barrier();
      writeStaged(finished, base, firstRow.add(i * matrixSide), firstColumn.add((j / turns) * matrixSide));
      k.barrier();
    }
  });
}

/** Finishes what the subgroup has in the stage: a thread takes four columns of two rows. */
function writeStaged(finished: FinishedTile, base: Expr, firstRow: Expr, firstColumn: Expr): void {
  const { k, spec, tile, part } = finished;
  const lane = k.let('lane', k.localIndex.rem(matrixThreads));
  const four = k.let('four', lane.rem(4));
  const column = k.let('outColumn', firstColumn.add(four.mul(4)));
  const isWhole = part.width % 4 === 0;
  const count = isWhole ? 4 : 1;
  const run = (inRow: Expr): void => {
    const row = k.let('outRow', firstRow.add(inRow));
    const at = k.let('staged', base.add(inRow.mul(stageStride)).add(four));
    const rowInside = spec.rows % tile.rows === 0 ? null : row.lt(spec.rows);
    for (let i = 0; i < 4; i += count) {
      const own = column.add(i);
      const columnInside = part.width % columnsOf(part, tile) === 0 ? null : own.lt(part.width);
      const both = rowInside && columnInside ? rowInside.and(columnInside) : (rowInside ?? columnInside);
      const finish = (): void => finishRow(finished, at, row, own, i, count);
      if (both) k.if(both, finish);
      else finish();
    }
  };
  k.for('half', 0, literal('u32', 2), (half) => run(half.mul(8).add(lane.div(4))));
}

/** @param first of the staged vector's columns: with a count of 1 it alone */
function finishRow(
  { k, spec, part, stage, split }: FinishedTile,
  at: Expr,
  row: Expr,
  column: Expr,
  first: number,
  count: 1 | 4,
): void {
  const { scales, pieces } = spec.left;
  const rowScale = k.let('rowScale', scales.at(pieces === 1 ? row : row.mul(pieces).add(split)));
  const columns = Array.from({ length: count }, (_, i) => i);
  const values = part.products.map(({ scales, firstRow }, p) => {
    const bits = stage.at(at.add(p * stageVectors(1)));
    const sums = spec.kind === 'halves' ? bits.bits('f32x4') : bits.bits('i32x4').to('f32');
    const staged = k.let('sums', sums.mul(splat(rowScale, 4)));
    const own = count === 4 ? staged : splat(staged.lane(first), 4);
    if (spec.scales === 'none' || !scales) return own;
    if (spec.scales !== 'row') return k.let('value', own.mul(1 / groupFactor));
    const each = columns.map((i) => scales.at(column.add(firstRow + i)));
    return k.let('value', own.mul(count === 4 ? vector(...each) : splat(each[0]!, 4)));
  });
  part.finish(row, column, values, count, split);
}
