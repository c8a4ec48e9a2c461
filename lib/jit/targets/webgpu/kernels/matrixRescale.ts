// lib/jit/targets/webgpu/kernels/matrixRescale.ts: sums of signed bytes on the matrix units that go through a row's pieces,
// each with a scale of its own: between two pieces a sum is taken to the next one's unit, in int32, and goes on. So
// pieces take no memory and no dispatch that adds them up (o of Mistral-7B, a prompt of 2,048, H200: 184 us for 256).
// Scales of a row are within a factor that keeps sums in range: mostScaleRatio.

import type { KernelBuilder, Matrix } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { splat } from '../../../kernels/expression.js';
import { matrixSide } from '../../../kernels/kernel.js';
import { ownVectors, type StageSlot, stage, unstage } from './matrixStage.js';
import type { MatrixMatmulSpec, MatrixTile } from './matrixTile.js';

/** A row's small pieces gain little by finer scales than this: the error is the large ones'. */
const wantedScaleRatio = 8;

/**
 * The largest scale of a row, divided by the smallest, at most: with it even a row of 127 times weights of -128 stays
 * in int32. A power of two; below 2 the depth is too long for one sum.
 */
export function mostScaleRatio(inDim: number): number {
  const room = 2 ** 31 / (127 * 128 * inDim);
  return Math.min(wantedScaleRatio, 2 ** Math.floor(Math.log2(room)));
}

/**
 * Takes a subgroup's sums from the unit of piece `depthPiece` to the next one's; all threads arrive.
 * @param slots where nothing is read any more
 * @param firstRow of the subgroup's
 */
export function rescaleSums(
  k: KernelBuilder,
  { left, rows }: Pick<MatrixMatmulSpec, 'left' | 'rows'>,
  tile: MatrixTile,
  sums: readonly (readonly Matrix[])[],
  slots: readonly StageSlot[],
  firstRow: Expr,
  depthPiece: Expr,
): void {
  const own = ownVectors(k);
  /** What a row's sums are multiplied by; 0 for a row of zeros. */
  const ratioOf = (row: Expr): Expr => {
    const safe = rows % tile.rows === 0 ? row : row.min(rows - 1);
    const at = k.let('scaleAt', safe.mul(left.pieces).add(depthPiece));
    return k.let('ratio', left.scales.at(at).div(left.scales.at(at.add(1)).max(1e-30)));
  };
  const ratios = sums.map((_, i) => own.map(({ row }) => ratioOf(firstRow.add(i * matrixSide).add(row))));
  const matrices = sums.flatMap((byColumn, i) => byColumn.map((sum) => ({ sum, i })));
  for (let begin = 0; begin < matrices.length; begin += slots.length) {
    const staged = matrices.slice(begin, begin + slots.length);
    for (const [s, { sum }] of staged.entries()) stage(k, sum, slots[s]!);
    k.barrier();
    for (const [s, { i }] of staged.entries()) {
      for (const [v, { offset }] of own.entries()) {
        const { array, at } = slots[s]!;
        const place = k.let('place', at.add(offset));
        // Rounded toward zero: less than one, where sums are thousands.
        const value = array.at(place).bits('i32x4').to('f32').mul(splat(ratios[i]![v]!, 4));
        k.store(array, place, value.to('i32').bits('u32x4'));
      }
    }
    k.barrier();
    for (const [s, { sum }] of staged.entries()) unstage(k, sum, slots[s]!);
    k.barrier();
  }
}
