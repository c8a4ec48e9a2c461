// lib/jit/targets/webgpu/kernels/matmulFloats.ts: the tiles of matmul.ts in float32: a workgroup stages a piece of each
// side in shared memory, and each thread keeps a small square of the result in registers. The next piece is read while
// the last one is used.
// Source: the tiling of Volkov and Demmel 2008, "Benchmarking GPUs to tune dense linear algebra".

import type { ArrayRef, KernelBuilder, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import { packedPerWord, unpackWord } from '../../../kernels/unpack.js';
import type { MatmulSpec, MatmulTile, MatmulWeights } from './matmul.js';
import { placeOf } from './matmul.js';

/** Bytes of shared memory: a row of a staged piece has one vector to spare, so that its columns fall on other banks. */
export function matmulFloatsSharedBytes({ rows, columns, depth }: MatmulTile, products: number): number {
  return 16 * depth * (rows / 4 + 1 + products * (columns / 4 + 1));
}

/** Writes the kernel's body; the builder has matmulThreads threads. */
export function writeMatmulFloats(k: KernelBuilder, spec: MatmulSpec, tile: MatmulTile): void {
  new Writer(k, spec, tile).write();
}

/** Four words or vectors of neighbouring rows, read ahead. */
type Ahead = readonly Variable[];

class Writer {
  readonly #left: ArrayRef; // f32x4 [depth, rows / 4 + 1]: four rows of x at one depth
  readonly #right: readonly ArrayRef[]; // the same of each product's weights
  readonly #firstRow: Expr;
  readonly #firstColumn: Expr;
  readonly #place: ReturnType<typeof placeOf>;
  readonly #x: ArrayRef;

  constructor(
    readonly k: KernelBuilder,
    readonly spec: MatmulSpec,
    readonly tile: MatmulTile,
  ) {
    const { rows, columns, depth } = tile;
    this.#left = k.shared('left', 'f32x4', depth * (rows / 4 + 1));
    this.#right = spec.products.map(() => k.shared('right', 'f32x4', depth * (columns / 4 + 1)));
    if (spec.input.kind !== 'floats') throw new TypeError('matmulFloats: expected a float32 input');
    this.#x = spec.input.x;
    this.#place = placeOf(k, spec, tile);
    this.#firstRow = this.#place.row;
    this.#firstColumn = this.#place.column;
  }

  write(): void {
    const { k, spec, tile } = this;
    const { threadRows, threadColumns } = tile;
    const across = tile.columns / threadColumns;
    const down = k.let('down', k.localIndex.div(across));
    const right = k.let('along', k.localIndex.rem(across));
    const sums = spec.products.map(() =>
      Array.from({ length: threadRows }, () =>
        Array.from({ length: threadColumns / 4 }, () => k.variable('sum', literal('f32x4', 0))),
      ),
    );
    const lefts = this.#tasks(tile.rows, 4, 'f32x4');
    const rights = spec.products.map(() => this.#tasks(tile.columns, packedPerWord[spec.packing], 'u32'));
    const readAhead = (depth: Expr): void => {
      this.#readLeft(lefts, depth);
      for (const [i, product] of spec.products.entries()) this.#readRight(rights[i]!, product, depth);
    };
    const { begin, end } = this.#place;
    readAhead(begin);
    k.for(
      'depth',
      begin,
      end,
      (depth) => {
        this.#storeLeft(lefts, depth);
        for (const [i, product] of spec.products.entries()) this.#storeRight(rights[i]!, i, product, depth);
        k.barrier();
        // After the last piece this reads it once more: a branch would cost more.
        readAhead(k.let('next', depth.add(tile.depth).min(Math.max(0, lastDepth(spec.inDim, tile.depth)))));
        k.for('at', 0, tile.depth, (at) => this.#multiply(sums, at, down, right, across));
        k.barrier();
      },
      tile.depth,
    );
    this.#finish(sums, down, right, across);
  }

  #multiply(sums: Variable[][][], at: Expr, down: Expr, right: Expr, across: number): void {
    const { k, tile } = this;
    const rowGroups = tile.rows / tile.threadRows;
    const a = Array.from({ length: tile.threadRows / 4 }, (_, i) =>
      k.let(
        'a',
        this.#left.at(
          at
            .mul(tile.rows / 4 + 1)
            .add(down)
            .add(i * rowGroups),
        ),
      ),
    );
    this.#right.forEach((array, product) => {
      const b = Array.from({ length: tile.threadColumns / 4 }, (_, j) =>
        k.let(
          'b',
          array.at(
            at
              .mul(tile.columns / 4 + 1)
              .add(right)
              .add(j * across),
          ),
        ),
      );
      sums[product]!.forEach((byColumn, i) => {
        const factor = splat(a[i >> 2]!.lane(i & 3), 4);
        for (const [j, sum] of byColumn.entries()) k.set(sum, factor.fma(b[j]!, sum.value));
      });
    });
  }

  /** Rooms for what a thread reads ahead: for each of its tasks four neighbouring rows. */
  #tasks(rows: number, perElement: number, type: 'f32x4' | 'u32'): Ahead[] {
    const { k, tile } = this;
    const count = Math.ceil(((rows / 4) * (tile.depth / perElement)) / k.threads);
    return Array.from({ length: count }, () =>
      Array.from({ length: 4 }, () => k.variable('ahead', literal(type, 0))),
    );
  }

  /** Runs a task that this thread has: its rows' number (in fours) and place along the depth. */
  #eachTask(
    tasks: readonly Ahead[],
    rows: number,
    perElement: number,
    run: (ahead: Ahead, four: Expr, place: Expr) => void,
  ): void {
    const { k, tile } = this;
    const along = tile.depth / perElement;
    const all = (rows / 4) * along;
    tasks.forEach((ahead, i) => {
      const index = k.let('task', k.localIndex.add(i * k.threads));
      const body = (): void => run(ahead, k.let('four', index.div(along)), k.let('place', index.rem(along)));
      if ((i + 1) * k.threads <= all) body();
      else k.if(index.lt(all), body);
    });
  }

  #readLeft(tasks: readonly Ahead[], depth: Expr): void {
    const { k, spec, tile } = this;
    const vectors = spec.inDim / 4;
    this.#eachTask(tasks, tile.rows, 4, (ahead, four, place) => {
      const at = k.let(
        'at',
        depth
          .div(4)
          .add(place)
          .min(vectors - 1),
      );
      ahead.forEach((variable, r) => {
        const row = this.#firstRow
          .add(four.mul(4))
          .add(r)
          .min(spec.rows - 1);
        k.set(variable, this.#x.at(row.mul(vectors).add(at)));
      });
    });
  }

  #readRight(tasks: readonly Ahead[], { words, firstRow }: MatmulWeights, depth: Expr): void {
    const { k, spec, tile } = this;
    const perWord = packedPerWord[spec.packing];
    this.#eachTask(tasks, tile.columns, perWord, (ahead, four, place) => {
      const at = k.let(
        'at',
        depth
          .div(perWord)
          .add(place)
          .min(spec.rowWords - 1),
      );
      ahead.forEach((variable, r) => {
        const row = this.#firstColumn
          .add(four.mul(4))
          .add(r)
          .min(spec.width - 1)
          .add(firstRow);
        k.set(variable, words.at(row.mul(spec.rowWords).add(at)));
      });
    });
  }

  #storeLeft(tasks: readonly Ahead[], depth: Expr): void {
    const { k, spec, tile } = this;
    this.#eachTask(tasks, tile.rows, 4, (ahead, four, place) => {
      // Past the end of the rows x is 0, so that what the weights have there does not count.
      const isInside =
        spec.inDim % tile.depth === 0 ? null : k.let('isInside', depth.add(place.mul(4)).lt(spec.inDim));
      for (let lane = 0; lane < 4; lane++) {
        const column = vector(...ahead.map(({ value }) => value.lane(lane)));
        const index = place
          .mul(4)
          .add(lane)
          .mul(tile.rows / 4 + 1)
          .add(four);
        k.store(this.#left, index, isInside ? isInside.select(column, literal('f32x4', 0)) : column);
      }
    });
  }

  #storeRight(
    tasks: readonly Ahead[],
    product: number,
    { scales, firstRow }: MatmulWeights,
    depth: Expr,
  ): void {
    const { k, spec, tile } = this;
    const perWord = packedPerWord[spec.packing];
    this.#eachTask(tasks, tile.columns, perWord, (ahead, four, place) => {
      const numbers = ahead.map(({ value }) => unpackWord(spec.packing, value));
      const factor =
        typeof spec.scales === 'string' || !scales
          ? null
          : k.let(
              'factor',
              this.#groupScales(scales, firstRow, four, depth.add(place.mul(perWord)), spec.scales.groupSize),
            );
      for (let i = 0; i < perWord; i++) {
        const column = vector(...numbers.map((each) => each[i]!));
        const index = place
          .mul(perWord)
          .add(i)
          .mul(tile.columns / 4 + 1)
          .add(four);
        k.store(this.#right[product]!, index, factor ? column.mul(factor) : column);
      }
    });
  }

  /** Scales of four rows at a depth. */
  #groupScales(scales: ArrayRef, firstRow: number, four: Expr, depth: Expr, groupSize: number): Expr {
    const { spec } = this;
    const groups = Math.ceil(spec.inDim / groupSize);
    const group = depth.div(groupSize).min(groups - 1);
    const rows = [0, 1, 2, 3].map((r) =>
      this.#firstColumn
        .add(four.mul(4))
        .add(r)
        .min(spec.width - 1)
        .add(firstRow),
    );
    return vector(...rows.map((row) => scales.at(row.mul(groups).add(group))));
  }

  #finish(sums: Variable[][][], down: Expr, right: Expr, across: number): void {
    const { k, spec, tile } = this;
    const rowGroups = tile.rows / tile.threadRows;
    const columns = Array.from({ length: tile.threadColumns }, (_, j) =>
      k.let('column', this.#firstColumn.add(right.add((j >> 2) * across).mul(4)).add(j & 3)),
    );
    const scales = spec.products.map(({ scales: array, firstRow }) =>
      columns.map((column) =>
        array && spec.scales === 'row' && spec.splits === 1
          ? k.let('scale', array.at(column.min(spec.width - 1).add(firstRow)))
          : null,
      ),
    );
    for (let i = 0; i < tile.threadRows; i++) {
      const row = k.let('row', this.#firstRow.add(down.add((i >> 2) * rowGroups).mul(4)).add(i & 3));
      k.if(row.lt(spec.rows), () => {
        columns.forEach((column, j) => {
          const write = (): void => {
            const values = sums.map((product, p) => {
              const value = product[i]![j >> 2]!.value.lane(j & 3);
              const scale = scales[p]![j];
              return scale ? value.mul(scale) : value;
            });
            spec.finish(row, column, values, this.#place.split);
          };
          if (spec.width % tile.columns === 0) write();
          else k.if(column.lt(spec.width), write);
        });
      });
    }
  }
}

/** Where the last piece of a depth begins. */
function lastDepth(inDim: number, depth: number): number {
  return (Math.ceil(inDim / depth) - 1) * depth;
}
