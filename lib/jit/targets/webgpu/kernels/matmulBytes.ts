// lib/jit/targets/webgpu/kernels/matmulBytes.ts: the tiles of matmul.ts where both sides are signed bytes: four products
// an instruction. Sums of a block of 16 are whole numbers; then the block's scale, and a group's, make them float32.

import type { ArrayRef, KernelBuilder, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import { plainDot4I8 } from '../../../kernels/unpack.js';
import { blockSize } from './activations.js';
import type { MatmulSpec, MatmulTile, MatmulWeights } from './matmul.js';
import { placeOf } from './matmul.js';

/** Words of a block. */
const blockWords = blockSize / 4;

/** Bytes of shared memory: words of four depths, blocks' scales, groups' scales. */
export function matmulBytesSharedBytes(
  { rows, columns, depth }: MatmulTile,
  products: number,
  isGrouped: boolean,
): number {
  const words = (depth / 4) * (rows / 4 + 1 + products * (columns / 4 + 1));
  const scales = (depth / blockSize) * (rows / 4 + (isGrouped ? (products * columns) / 4 : 0));
  return 16 * (words + scales);
}

/** Writes the kernel's body; the builder has matmulThreads threads, the tile's depth is a multiple of 32. */
export function writeMatmulBytes(k: KernelBuilder, spec: MatmulSpec, tile: MatmulTile): void {
  new Writer(k, spec, tile).write();
}

class Writer {
  readonly #left: ArrayRef; // u32x4 [depth / 4, rows / 4 + 1]
  readonly #leftScales: ArrayRef; // f32x4 [depth / 16, rows / 4]
  readonly #right: readonly ArrayRef[];
  readonly #rightScales: readonly (ArrayRef | null)[]; // f32x4 [depth / 16, columns / 4]
  readonly #place: ReturnType<typeof placeOf>;
  readonly #bytes: ArrayRef;
  readonly #blocks: ArrayRef;

  constructor(
    readonly k: KernelBuilder,
    readonly spec: MatmulSpec,
    readonly tile: MatmulTile,
  ) {
    if (spec.input.kind !== 'bytes') throw new TypeError('matmulBytes: expected an input of bytes');
    const { rows, columns, depth } = tile;
    this.#bytes = spec.input.bytes;
    this.#blocks = spec.input.blocks;
    const blocks = depth / blockSize;
    this.#left = k.shared('left', 'u32x4', (depth / 4) * (rows / 4 + 1));
    this.#leftScales = k.shared('leftScales', 'f32x4', blocks * (rows / 4));
    this.#right = spec.products.map(() => k.shared('right', 'u32x4', (depth / 4) * (columns / 4 + 1)));
    this.#rightScales = spec.products.map(() =>
      this.#isGrouped ? k.shared('rightScales', 'f32x4', blocks * (columns / 4)) : null,
    );
    this.#place = placeOf(k, spec, tile);
  }

  get #isGrouped(): boolean {
    return typeof this.spec.scales !== 'string';
  }

  write(): void {
    const { k, spec, tile } = this;
    const across = tile.columns / tile.threadColumns;
    const down = k.let('down', k.localIndex.div(across));
    const along = k.let('along', k.localIndex.rem(across));
    const sums = spec.products.map(() =>
      Array.from({ length: tile.threadRows }, () =>
        Array.from({ length: tile.threadColumns / 4 }, () => k.variable('sum', literal('f32x4', 0))),
      ),
    );
    k.for(
      'depth',
      this.#place.begin,
      this.#place.end,
      (depth) => {
        this.#stage(depth);
        k.barrier();
        for (let block = 0; block < tile.depth / blockSize; block++)
          this.#multiply(sums, block, down, along, across);
        k.barrier();
      },
      tile.depth,
    );
    this.#finish(sums, down, along, across);
  }

  /** Runs `body` for 0 to count - 1, spread over the threads. */
  #spread(count: number, body: (index: Expr) => void): void {
    const { k } = this;
    for (let first = 0; first < count; first += k.threads) {
      const index = k.let('task', k.localIndex.add(first));
      if (first + k.threads <= count) body(index);
      else k.if(index.lt(count), () => body(index));
    }
  }

  #rowsOfFour(four: Expr, first: Expr, most: number): Expr[] {
    return [0, 1, 2, 3].map((r) =>
      first
        .add(four.mul(4))
        .add(r)
        .min(most - 1),
    );
  }

  #stage(depth: Expr): void {
    const { k, spec, tile } = this;
    const { row, column } = this.#place;
    const words = tile.depth / 4;
    const inputWords = spec.inDim / 4;
    // Past the end of a row the words are taken for 0.
    const guarded = (value: Expr, isInside: Expr | null): Expr =>
      isInside ? isInside.select(value, literal(value.type, 0)) : value;
    const insideOf = (place: Expr, most: number): Expr | null =>
      spec.inDim % tile.depth === 0 ? null : k.let('isInside', place.lt(most));
    this.#spread((tile.rows / 4) * words, (index) => {
      const [four, word] = [k.let('four', index.div(words)), k.let('word', index.rem(words))];
      const at = k.let('at', depth.div(4).add(word));
      const safe = at.min(inputWords - 1);
      const parts = this.#rowsOfFour(four, row, spec.rows).map((each) =>
        this.#bytes.at(each.mul(inputWords).add(safe)),
      );
      k.store(
        this.#left,
        word.mul(tile.rows / 4 + 1).add(four),
        guarded(vector(...parts), insideOf(at, inputWords)),
      );
    });
    const blocks = tile.depth / blockSize;
    const inputBlocks = spec.inDim / blockSize;
    this.#spread((tile.rows / 4) * blocks, (index) => {
      const [four, block] = [k.let('four', index.div(blocks)), k.let('block', index.rem(blocks))];
      const at = k.let(
        'at',
        depth
          .div(blockSize)
          .add(block)
          .min(inputBlocks - 1),
      );
      const parts = this.#rowsOfFour(four, row, spec.rows).map((each) =>
        this.#blocks.at(each.mul(inputBlocks).add(at)).lane(0),
      );
      k.store(this.#leftScales, block.mul(tile.rows / 4).add(four), vector(...parts));
    });
    for (const [i, product] of spec.products.entries()) {
      this.#stageWeights(i, product, depth, column);
      if (this.#rightScales[i]) this.#stageScales(this.#rightScales[i], product, depth, column);
    }
  }

  #stageWeights(product: number, { words, firstRow }: MatmulWeights, depth: Expr, column: Expr): void {
    const { k, spec, tile } = this;
    const perWord = spec.packing === 'int4' ? 8 : 4;
    const along = tile.depth / perWord;
    const right = this.#right[product]!;
    const stride = tile.columns / 4 + 1;
    this.#spread((tile.columns / 4) * along, (index) => {
      const [four, word] = [k.let('four', index.div(along)), k.let('word', index.rem(along))];
      const at = k.let(
        'at',
        depth
          .div(perWord)
          .add(word)
          .min(spec.rowWords - 1),
      );
      const parts = this.#rowsOfFour(four, column, spec.width).map((each) =>
        words.at(each.add(firstRow).mul(spec.rowWords).add(at)),
      );
      const four4 = k.let('four4', vector(...parts));
      if (spec.packing === 'int8') k.store(right, word.mul(stride).add(four), four4);
      else {
        k.store(right, word.mul(2).mul(stride).add(four), signedNibbles(k, four4));
        k.store(right, word.mul(2).add(1).mul(stride).add(four), signedNibbles(k, four4.shr(4)));
      }
    });
  }

  #stageScales(array: ArrayRef, { scales, firstRow }: MatmulWeights, depth: Expr, column: Expr): void {
    const { k, spec, tile } = this;
    const size = (spec.scales as { readonly groupSize: number }).groupSize;
    const groups = Math.ceil(spec.inDim / size);
    const blocks = tile.depth / blockSize;
    this.#spread((tile.columns / 4) * blocks, (index) => {
      const [four, block] = [k.let('four', index.div(blocks)), k.let('block', index.rem(blocks))];
      const group = k.let(
        'scaleGroup',
        depth
          .add(block.mul(blockSize))
          .div(size)
          .min(groups - 1),
      );
      const parts = this.#rowsOfFour(four, column, spec.width).map((each) =>
        scales!.at(each.add(firstRow).mul(groups).add(group)),
      );
      k.store(array, block.mul(tile.columns / 4).add(four), vector(...parts));
    });
  }

  #multiply(sums: Variable[][][], block: number, down: Expr, along: Expr, across: number): void {
    const { k, spec, tile } = this;
    const rowGroups = tile.rows / tile.threadRows;
    const dot = (a: Expr, b: Expr): Expr => (spec.packedDot ? a.dot4I8(b) : plainDot4I8(a, b));
    const each = Array.from({ length: blockWords }, (_, word) => word);
    const a = Array.from({ length: tile.threadRows / 4 }, (_, i) => ({
      words: each.map((word) =>
        k.let(
          'a',
          this.#left.at(down.add((block * blockWords + word) * (tile.rows / 4 + 1) + i * rowGroups)),
        ),
      ),
      scales: k.let('aScale', this.#leftScales.at(down.add(block * (tile.rows / 4) + i * rowGroups))),
    }));
    this.#right.forEach((array, product) => {
      for (let j = 0; j < tile.threadColumns / 4; j++) {
        const b = each.map((word) =>
          k.let('b', array.at(along.add((block * blockWords + word) * (tile.columns / 4 + 1) + j * across))),
        );
        const scales = this.#rightScales[product];
        const scale =
          scales && k.let('bScale', scales.at(along.add(block * (tile.columns / 4) + j * across)));
        for (let i = 0; i < tile.threadRows; i++) {
          const { words, scales: aScales } = a[i >> 2]!;
          const lanes = [0, 1, 2, 3].map((lane) =>
            each
              .map((word) => dot(words[word]!.lane(i & 3), b[word]!.lane(lane)))
              .reduce((sum, part) => sum.add(part)),
          );
          const whole = vector(...lanes).to('f32');
          const factor = splat(aScales.lane(i & 3), 4);
          const sum = sums[product]![i]![j]!;
          k.set(sum, whole.fma(scale ? factor.mul(scale) : factor, sum.value));
        }
      }
    });
  }

  #finish(sums: Variable[][][], down: Expr, along: Expr, across: number): void {
    const { k, spec, tile } = this;
    const { row: firstRow, column: firstColumn, split } = this.#place;
    const rowGroups = tile.rows / tile.threadRows;
    const isScaled = spec.scales === 'row' && spec.splits === 1;
    for (let j = 0; j < tile.threadColumns; j++) {
      const column = k.let('column', firstColumn.add(along.add((j >> 2) * across).mul(4)).add(j & 3));
      k.if(column.lt(spec.width), () => {
        const scales = spec.products.map(({ scales: array, firstRow: first }) =>
          array && isScaled ? k.let('scale', array.at(column.add(first))) : null,
        );
        for (let i = 0; i < tile.threadRows; i++) {
          const row = k.let('row', firstRow.add(down.add((i >> 2) * rowGroups).mul(4)).add(i & 3));
          k.if(row.lt(spec.rows), () => {
            const values = sums.map((product, p) => {
              const value = product[i]![j >> 2]!.value.lane(j & 3);
              return scales[p] ? value.mul(scales[p]!) : value;
            });
            spec.finish(row, column, values, split);
          });
        }
      });
    }
  }
}

/** The low halves of bytes, stored plus 8, as signed bytes. */
function signedNibbles(k: KernelBuilder, words: Expr): Expr {
  const low = k.let('low', words.and(0x0f0f0f0f));
  // Below 8 the number is negative: its upper five bits are set.
  const isNegative = low.xor(0x0f0f0f0f).shr(3).and(0x01010101);
  return low.and(0x07070707).or(isNegative.mul(0xf8));
}
