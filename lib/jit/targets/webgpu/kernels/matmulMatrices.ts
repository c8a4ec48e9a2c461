// lib/jit/targets/webgpu/kernels/matmulMatrices.ts: many rows x [rows, in] times weight rows [out, in] on the adapter's
// matrix units: a workgroup stages a tile of each side in shared memory, its subgroups multiply squares of 16. The next
// tile is read into registers while the last one is multiplied. What x is read as: matrixInput.ts; what becomes of the
// sums: matmulMatricesFinish.ts.
// Tuned on an H200: tiles of 128 x 128 with 64 x 64 a subgroup; an odd number of vectors a row, against bank conflicts.

import type { KernelBuilder, Matrix, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import { matrixSide, matrixThreads } from '../../../kernels/kernel.js';
import { perVector } from './dots.js';
import { depthPiece, splitDepth } from './matmul.js';
import { finishSums } from './matmulMatricesFinish.js';
import { rescaleSums } from './matrixRescale.js';
import { type Sides, type StageSlot, stageSlots } from './matrixStage.js';
import type { MatrixMatmulSpec, MatrixPart, MatrixTile } from './matrixTile.js';
import {
  columnsOf,
  isRescaled,
  matrixTileThreads,
  perElement,
  rightVectors,
  tileStride,
  tilesOf,
} from './matrixTile.js';
import { unpackedVectors, vectorsOf } from './matrixWeights.js';
import type { WeightRows } from './matvecFinish.js';

/** Writes the kernel's body; the builder has matrixTileThreads threads. */
export function writeMatrixMatmul(k: KernelBuilder, spec: MatrixMatmulSpec, tile: MatrixTile): void {
  const { kind } = spec;
  const stride = tileStride(kind, tile);
  const products = Math.max(...spec.parts.map((part) => part.products.length));
  const vectors = { left: tile.rows * stride, right: rightVectors(kind, tile, products) };
  const shared = {
    left: k.shared('left', 'u32x4', vectors.left),
    right: k.shared('right', 'u32x4', vectors.right),
  };
  const subgroup = k.let('subgroup', k.builtin('matrixGroup'));
  const slots = stageSlots(k, shared, vectors, matrixTileThreads(tile) / matrixThreads, subgroup);
  const { place, ...piece } = depthPiece(k, spec, tile);
  const write = (at: number, first: number): void => {
    const part = spec.parts[at]!;
    const count = tilesOf(part, spec.rows, tile);
    const body = (): void =>
      new Writer(k, spec, tile, part, shared, slots, piece).write(place.sub(first), subgroup);
    if (at === spec.parts.length - 1) body();
    else k.if(place.lt(first + count), body, () => write(at + 1, first + count));
  };
  write(0, 0);
}

/** A vector that a thread reads ahead, and what its numbers are multiplied by. */
interface Ahead {
  readonly vector: Variable;
  readonly factor: Variable | null;
}

/** What is done with the sums. */
interface Work {
  /** Adds the products of what is staged. */
  multiply(): void;
  /** Takes them from the unit of a piece of the depth to the next one's. */
  rescale(depthPiece: Expr): void;
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
    readonly shared: Sides,
    readonly slots: readonly StageSlot[],
    readonly piece: Omit<ReturnType<typeof depthPiece>, 'place'>,
  ) {
    this.#stride = tileStride(spec.kind, tile);
  }

  write(place: Expr, subgroup: Expr): void {
    const { k, spec, tile, part, slots } = this;
    const down = Math.ceil(spec.rows / tile.rows);
    const firstRow = k.let('firstRow', place.rem(down).mul(tile.rows));
    const firstColumn = k.let('firstColumn', place.div(down).mul(columnsOf(part, tile)));
    const across = tile.columns / tile.subgroupColumns;
    const ownRow = k.let('ownRow', subgroup.div(across).mul(tile.subgroupRows));
    const ownColumn = k.let('ownColumn', subgroup.rem(across).mul(tile.subgroupColumns));
    const sums = Array.from({ length: tile.subgroupRows / matrixSide }, () =>
      Array.from({ length: tile.subgroupColumns / matrixSide }, () => k.matrixSum('sum', spec.kind)),
    );
    const firstOwn = firstRow.add(ownRow);
    this.#loop(firstRow, firstColumn, {
      multiply: () => this.#multiply(sums, ownRow, ownColumn),
      rescale: (depthPiece) => rescaleSums(k, spec, tile, sums, slots, firstOwn, depthPiece),
    });
    const finished = { k, spec, tile, part, split: this.piece.split };
    finishSums(finished, sums, slots, firstOwn, firstColumn.add(ownColumn.div(part.products.length)));
  }

  #loop(firstRow: Expr, firstColumn: Expr, { multiply, rescale }: Work): void {
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
    const walk = (from: Expr, to: Expr): void =>
      k.for(
        'depth',
        from,
        to,
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
    if (!isRescaled(spec)) {
      walk(begin, end);
      return;
    }
    const { pieces } = spec.left;
    const length = splitDepth(spec.inDim, pieces, tile);
    k.for('depthPiece', 0, literal('u32', pieces), (depthPiece) => {
      const from = k.let('from', depthPiece.mul(length));
      walk(from, k.let('to', from.add(length).min(spec.inDim)));
      k.if(depthPiece.lt(pieces - 1), () => rescale(depthPiece));
    });
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
}
