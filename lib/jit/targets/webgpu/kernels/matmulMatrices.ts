// lib/jit/targets/webgpu/kernels/matmulMatrices.ts: many rows x [rows, in] times weight rows [out, in] on the adapter's
// matrix units: a workgroup stages a tile of each side in shared memory, its subgroups multiply squares of 16. The next
// tile is read into registers while the last one is multiplied. What x is read as: matrixInput.ts.
// Tuned on an H200: tiles of 128 x 128 with 64 x 64 a subgroup; an odd number of vectors a row, against bank conflicts.

import type { ArrayRef, KernelBuilder, Matrix, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import { matrixSide, matrixThreads } from '../../../kernels/kernel.js';
import type { Packing } from '../../../kernels/unpack.js';
import { perVector } from './dots.js';
import { depthPiece } from './matmul.js';
import { groupFactor, unpackedVectors, vectorsOf } from './matrixWeights.js';
import type { WeightRows } from './matvecFinish.js';

/** Sizes of a workgroup's tile and of a subgroup's share of it; multiples of 16. `columns` are of all products. */
export interface MatrixTile {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly subgroupRows: number;
  readonly subgroupColumns: number;
}

/** One output: its columns, and what is done with them. */
export interface MatrixPart {
  readonly width: number;
  readonly products: readonly WeightRows[];
  /**
   * Writes neighbouring elements of a row.
   * @param column of the first one; `count` follow, all of them inside
   * @param values f32x4: four columns of each product
   * @param split which piece of the depth they are of
   */
  finish(row: Expr, column: Expr, values: readonly Expr[], count: 1 | 4, split: Expr): void;
}

export interface MatrixMatmulSpec {
  readonly kind: MatrixKind;
  readonly rows: number;
  readonly inDim: number; // a multiple of 16
  /**
   * u32x4 [rows, inDim / perElement], in the order that the packing's weights come out in (matrixWeights.ts); and
   * f32 [rows], or [rows, splits]: what the numbers of a row, or of each of its pieces, were divided by.
   */
  readonly left: { readonly words: ArrayRef; readonly scales: ArrayRef; readonly pieces: number };
  readonly packing: Packing;
  readonly rowVectors: number; // 16 bytes each, of a weight row
  readonly scales: 'none' | 'row' | { readonly groupSize: number };
  /** Pieces that the depth is cut into, a workgroup each. */
  readonly splits: number;
  /** The adapter computes with float16. */
  readonly f16: boolean;
  readonly parts: readonly MatrixPart[];
}

/** Numbers in an element of a u32x4 array. */
export const perElement: Readonly<Record<MatrixKind, number>> = { halves: 8, bytes: 16 };

export function matrixTileThreads({ rows, columns, subgroupRows, subgroupColumns }: MatrixTile): number {
  return (rows / subgroupRows) * (columns / subgroupColumns) * matrixThreads;
}

/** A sum on its way out lies in u32x4: rows of four vectors, and one to spare against bank conflicts. */
const stageStride = matrixSide / 4 + 1;
/** Vectors that a subgroup needs for a sum of each product. */
const stageVectors = (products: number): number => products * matrixSide * stageStride;

/** Vectors from one staged row to the next. */
const tileStride = (kind: MatrixKind, { depth }: MatrixTile): number => depth / perElement[kind] + 1;

export function matrixSharedBytes(kind: MatrixKind, tile: MatrixTile, products: number): number {
  return 16 * (tile.rows * tileStride(kind, tile) + rightVectors(kind, tile, products));
}

/** The right side's memory is also where sums go on their way out: what more there was would cost the main loop. */
function rightVectors(kind: MatrixKind, tile: MatrixTile, products: number): number {
  const subgroups = matrixTileThreads(tile) / matrixThreads;
  return Math.max(tile.columns * tileStride(kind, tile), subgroups * stageVectors(products));
}

/** Columns of one product in a tile. */
function columnsOf({ products }: Pick<MatrixPart, 'products'>, tile: MatrixTile): number {
  return tile.columns / products.length;
}

function tilesOf(part: Pick<MatrixPart, 'products' | 'width'>, rows: number, tile: MatrixTile): number {
  return Math.ceil(rows / tile.rows) * Math.ceil(part.width / columnsOf(part, tile));
}

/** Tiles of all parts, before the depth is cut. */
export function matrixTiles(
  parts: readonly Pick<MatrixPart, 'products' | 'width'>[],
  rows: number,
  tile: MatrixTile,
): number {
  return parts.reduce((sum, part) => sum + tilesOf(part, rows, tile), 0);
}

/** Writes the kernel's body; the builder has matrixTileThreads threads. */
export function writeMatrixMatmul(k: KernelBuilder, spec: MatrixMatmulSpec, tile: MatrixTile): void {
  const { kind } = spec;
  const stride = tileStride(kind, tile);
  const products = Math.max(...spec.parts.map((part) => part.products.length));
  const shared = {
    left: k.shared('left', 'u32x4', tile.rows * stride),
    right: k.shared('right', 'u32x4', rightVectors(kind, tile, products)),
  };
  const { place, ...piece } = depthPiece(k, spec, tile);
  const write = (at: number, first: number): void => {
    const part = spec.parts[at]!;
    const count = tilesOf(part, spec.rows, tile);
    const body = (): void => new Writer(k, spec, tile, part, shared, piece).write(place.sub(first));
    if (at === spec.parts.length - 1) body();
    else k.if(place.lt(first + count), body, () => write(at + 1, first + count));
  };
  write(0, 0);
}

interface Shared {
  readonly left: ArrayRef;
  readonly right: ArrayRef;
}

/** A vector that a thread reads ahead, and what its numbers are multiplied by. */
interface Ahead {
  readonly vector: Variable;
  readonly factor: Variable | null;
}

/** A thread's task in a staged piece: number of the row, and of the vector along the depth. */
type RunTask = (task: number, row: Expr, place: Expr) => void;

class Writer {
  readonly #stride: number;

  constructor(
    readonly k: KernelBuilder,
    readonly spec: MatrixMatmulSpec,
    readonly tile: MatrixTile,
    readonly part: MatrixPart,
    readonly shared: Shared,
    readonly piece: Omit<ReturnType<typeof depthPiece>, 'place'>,
  ) {
    this.#stride = tileStride(spec.kind, tile);
  }

  write(place: Expr): void {
    const { k, spec, tile, part } = this;
    const down = Math.ceil(spec.rows / tile.rows);
    const firstRow = k.let('firstRow', place.rem(down).mul(tile.rows));
    const firstColumn = k.let('firstColumn', place.div(down).mul(columnsOf(part, tile)));
    const subgroup = k.let('subgroup', k.builtin('matrixGroup'));
    const across = tile.columns / tile.subgroupColumns;
    const ownRow = k.let('ownRow', subgroup.div(across).mul(tile.subgroupRows));
    const ownColumn = k.let('ownColumn', subgroup.rem(across).mul(tile.subgroupColumns));
    const sums = Array.from({ length: tile.subgroupRows / matrixSide }, () =>
      Array.from({ length: tile.subgroupColumns / matrixSide }, () => k.matrixSum('sum', spec.kind)),
    );
    this.#loop(firstRow, firstColumn, () => this.#multiply(sums, ownRow, ownColumn));
    this.#finish(sums, subgroup, firstRow.add(ownRow), firstColumn.add(ownColumn.div(part.products.length)));
  }

  #loop(firstRow: Expr, firstColumn: Expr, multiply: () => void): void {
    const { k, spec, tile, part } = this;
    const { begin, end } = this.piece;
    const lefts = this.#rooms(this.#leftTasks, false);
    const rights = part.products.map(() => this.#rooms(this.#rightTasks, typeof spec.scales !== 'string'));
    const readAhead = (depth: Expr): void => {
      this.#readLeft(lefts, firstRow, depth);
      for (const [p, product] of part.products.entries())
        this.#readRight(rights[p]!, product, firstColumn, depth);
    };
    readAhead(begin);
    const last = (Math.ceil(spec.inDim / tile.depth) - 1) * tile.depth;
    k.for(
      'depth',
      begin,
      end,
      (depth) => {
        this.#storeLeft(lefts);
        for (const [p, ahead] of rights.entries()) this.#storeRight(ahead, p);
        k.barrier();
        // After the last piece this reads it once more: a branch would cost more.
        readAhead(k.let('next', depth.add(tile.depth).min(last)));
        multiply();
        k.barrier();
      },
      tile.depth,
    );
  }

  get #leftTasks(): { rows: number; along: number } {
    const { spec, tile } = this;
    return { rows: tile.rows, along: tile.depth / perElement[spec.kind] };
  }

  /** Of one product. */
  get #rightTasks(): { rows: number; along: number } {
    const { spec, tile, part } = this;
    return { rows: columnsOf(part, tile), along: tile.depth / perVector(spec.packing) };
  }

  #rooms({ rows, along }: { rows: number; along: number }, isScaled: boolean): Ahead[] {
    const { k } = this;
    return Array.from({ length: Math.ceil((rows * along) / k.threads) }, () => ({
      vector: k.variable('ahead', literal('u32x4', 0)),
      factor: isScaled ? k.variable('factor', literal('f32', 0)) : null,
    }));
  }

  /** Runs the tasks that this thread has of a piece. */
  #eachTask({ rows, along }: { rows: number; along: number }, run: RunTask): void {
    const { k } = this;
    const all = rows * along;
    for (let task = 0; task * k.threads < all; task++) {
      const index = k.let('task', k.localIndex.add(task * k.threads));
      const body = (): void => run(task, k.let('row', index.div(along)), k.let('place', index.rem(along)));
      if ((task + 1) * k.threads <= all) body();
      else k.if(index.lt(all), body);
    }
  }

  #readLeft(rooms: readonly Ahead[], firstRow: Expr, depth: Expr): void {
    const { k, spec, tile } = this;
    const vectors = spec.inDim / perElement[spec.kind];
    const isWhole = spec.inDim % tile.depth === 0;
    this.#eachTask(this.#leftTasks, (task, row, place) => {
      const at = k.let('at', depth.div(perElement[spec.kind]).add(place));
      const inside = isWhole ? at : at.min(vectors - 1);
      const safe = spec.rows % tile.rows === 0 ? firstRow.add(row) : firstRow.add(row).min(spec.rows - 1);
      const value = spec.left.words.at(safe.mul(vectors).add(inside));
      // Past the end of the rows x is 0, so that what the weights have there does not count.
      k.set(rooms[task]!.vector, isWhole ? value : at.lt(vectors).select(value, literal('u32x4', 0)));
    });
  }

  #readRight(
    rooms: readonly Ahead[],
    { words, scales, firstRow }: WeightRows,
    column: Expr,
    depth: Expr,
  ): void {
    const { k, spec, tile, part } = this;
    const each = perVector(spec.packing);
    this.#eachTask(this.#rightTasks, (task, row, place) => {
      const at = k.let('at', depth.div(each).add(place));
      const inside = spec.inDim % tile.depth === 0 ? at : at.min(spec.rowVectors - 1);
      const isWhole = part.width % columnsOf(part, tile) === 0;
      const own = isWhole ? column.add(row) : column.add(row).min(part.width - 1);
      const weightRow = k.let('weightRow', own.add(firstRow));
      k.set(rooms[task]!.vector, words.at(weightRow.mul(spec.rowVectors).add(inside)));
      const { factor } = rooms[task]!;
      if (!factor || !scales || typeof spec.scales === 'string') return;
      const groups = Math.ceil(spec.inDim / spec.scales.groupSize);
      const group = inside.mul(each).div(spec.scales.groupSize);
      k.set(factor, scales.at(weightRow.mul(groups).add(group.min(groups - 1))));
    });
  }

  #storeLeft(rooms: readonly Ahead[]): void {
    this.#eachTask(this.#leftTasks, (task, row, place) => {
      this.k.store(this.shared.left, row.mul(this.#stride).add(place), rooms[task]!.vector.value);
    });
  }

  /** Rows of the products take turns of 16, so that a subgroup has the same columns of each. */
  #storeRight(rooms: readonly Ahead[], product: number): void {
    const { k, spec, part } = this;
    const turns = part.products.length;
    const count = vectorsOf(spec.kind, spec.packing);
    this.#eachTask(this.#rightTasks, (task, row, place) => {
      const inTurn = row.div(matrixSide).mul(matrixSide * turns);
      const stored = turns === 1 ? row : inTurn.add(product * matrixSide).add(row.rem(matrixSide));
      const first = k.let('at', stored.mul(this.#stride).add(place.mul(count)));
      const { vector, factor } = rooms[task]!;
      unpackedVectors(k, spec, vector.value, factor?.value ?? null).forEach((value, i) => {
        k.store(this.shared.right, first.add(i), value);
      });
    });
  }

  #multiply(sums: readonly (readonly Matrix[])[], ownRow: Expr, ownColumn: Expr): void {
    const { k, spec, tile, shared } = this;
    const load = (side: 'left' | 'right', first: Expr, i: number, at: number): Matrix => {
      const offset = first
        .add(i * matrixSide)
        .mul(this.#stride)
        .add(at);
      return k.matrixLoad(
        side,
        spec.kind,
        side === 'left' ? shared.left : shared.right,
        offset,
        this.#stride,
      );
    };
    for (let at = 0; at < tile.depth / perElement[spec.kind]; at += 2) {
      const lefts = sums.map((_, i) => load('left', ownRow, i, at));
      sums[0]!.forEach((_, j) => {
        const right = load('right', ownColumn, j, at);
        for (const [i, byColumn] of sums.entries()) k.matrixMultiplyAdd(byColumn[j]!, lefts[i]!, right);
      });
    }
  }

  /** Sums go through shared memory, one of each product at a time, so that threads write neighbouring columns. */
  #finish(sums: readonly (readonly Matrix[])[], subgroup: Expr, firstRow: Expr, firstColumn: Expr): void {
    const { k, part, shared } = this;
    const turns = part.products.length;
    const base = k.let('base', subgroup.mul(stageVectors(turns)));
    sums.forEach((byColumn, i) => {
      for (let j = 0; j < byColumn.length; j += turns) {
        for (const [p, sum] of byColumn.slice(j, j + turns).entries())
          k.matrixStore(sum, shared.right, base.add(p * stageVectors(1)), stageStride);
        k.barrier();
        this.#write(base, firstRow.add(i * matrixSide), firstColumn.add((j / turns) * matrixSide));
        k.barrier();
      }
    });
  }

  /** Finishes what the subgroup has in the stage: a thread takes four columns of two rows. */
  #write(base: Expr, firstRow: Expr, firstColumn: Expr): void {
    const { k, spec, tile, part, shared } = this;
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
        const finish = (): void => this.#finishRow(shared.right, at, row, own, i, count);
        if (both) k.if(both, finish);
        else finish();
      }
    };
    k.for('half', 0, literal('u32', 2), (half) => run(half.mul(8).add(lane.div(4))));
  }

  /** @param first of the staged vector's columns: with a count of 1 it alone */
  #finishRow(stage: ArrayRef, at: Expr, row: Expr, column: Expr, first: number, count: 1 | 4): void {
    const { k, spec, part } = this;
    const { scales, pieces } = spec.left;
    const rowScale = k.let('rowScale', scales.at(pieces === 1 ? row : row.mul(pieces).add(this.piece.split)));
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
    part.finish(row, column, values, count, this.piece.split);
  }
}
