// lib/jit/targets/webgpu/kernels/matvec.ts: few rows x [rows, in] times weight rows [out, in] -> a kernel that reads each
// weight once, in 16-byte pieces, many under way at a time. Decode is this kernel and attention.
//
// A workgroup makes `columns` outputs of one part. Its groups of threads (lanes.ts) share the work: each takes
// `rowsPerGroup` weight rows and one of `splits` of their length; what the splits have is added in shared memory.
// Then one thread a column (or a pair of columns, for rotary positions) finishes and writes it.
// Tuned on an H100 and an H200: tuning.ts.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import type { Packing } from '../../../kernels/unpack.js';
import type { Met } from './dots.js';
import { meetBytes, meetFloats, perVector } from './dots.js';
import type { Lanes } from './lanes.js';
import { lanesOf, mostLanes } from './lanes.js';

/** How a matrix-vector kernel is cut; each a power of two but `unroll`. */
export interface MatvecShape {
  /** Weight rows of a workgroup. */
  readonly rows: number;
  /** Threads of a group. Groups of a subgroup meet the same input with other weight rows: fewer reads, fewer sums. */
  readonly lanes: number;
  /** Weight rows of a group of threads. */
  readonly rowsPerGroup: number;
  /** Pieces that a row's length is cut into. */
  readonly splits: number;
  /** Vectors of a row that a thread reads before it uses the first. */
  readonly unroll: number;
}

/** Where one product's weights lie. */
export interface WeightRows {
  readonly words: ArrayRef; // u32x4, `rowVectors` a row
  readonly scales: ArrayRef | null; // f32: one; one a row; or `groups` a row
  readonly firstRow: number;
}

/** One output of the kernel: its columns, and what is done with them. */
export interface MatvecPart {
  readonly width: number;
  readonly products: readonly WeightRows[];
  /** Columns that one thread finishes together; null: each by itself. */
  readonly pairs: { readonly layout: 'halves' | 'pairs'; readonly headDim: number } | null;
  /**
   * Writes columns of a row.
   * @param columns one, or two for pairs
   * @param values for each column its products
   * @param local the thread's column in the workgroup's tile
   */
  finish(row: Expr, columns: readonly Expr[], values: readonly (readonly Expr[])[]): void;
  /** Runs after all columns of the workgroup are finished, in every thread; for what needs several of them. */
  readonly afterwards?: (firstColumn: Expr, columns: number) => void;
}

export type MatvecInput =
  // All f32x4.
  | {
      readonly kind: 'floats';
      readonly x: ArrayRef;
      readonly gain: ArrayRef | null;
      readonly bias: ArrayRef | null;
    }
  | { readonly kind: 'bytes'; readonly bytes: ArrayRef; readonly blocks: ArrayRef }; // u32x4, f32x2

export interface MatvecSpec {
  readonly rows: number; // of x
  readonly inDim: number;
  readonly packing: Packing;
  /** Vectors (16 bytes) of a weight row, its padding included. */
  readonly rowVectors: number;
  readonly scales: 'none' | 'tensor' | 'row' | { readonly groupSize: number };
  readonly input: MatvecInput;
  /** The norm that x goes through. `rms` comes out of what is read anyway; `layer` needs its mean first. */
  readonly norm: { readonly kind: 'rms' | 'layer'; readonly epsilon: number } | null;
  readonly parts: readonly MatvecPart[];
}

/** Threads of a workgroup of this shape. */
export function matvecThreads({ rows, lanes, rowsPerGroup, splits }: MatvecShape): number {
  return lanes * (rows / rowsPerGroup) * splits;
}

/** Columns that a workgroup makes of a part. */
export function columnsOf(part: Pick<MatvecPart, 'products'>, shape: MatvecShape): number {
  return shape.rows / part.products.length;
}

/** Workgroups that the parts need together. */
export function matvecWorkgroups(
  parts: readonly Pick<MatvecPart, 'products' | 'width'>[],
  shape: MatvecShape,
): number {
  return parts.reduce((sum, part) => sum + Math.ceil(part.width / columnsOf(part, shape)), 0);
}

/** Writes the kernel's body. The builder has matvecThreads threads. */
export function writeMatvec(
  k: KernelBuilder,
  features: Features,
  spec: MatvecSpec,
  shape: MatvecShape,
): void {
  const lanes = lanesOf(k, features, shape.lanes);
  const sums = k.shared('sums', 'f32', shape.splits * shape.rows * spec.rows);
  const squares = spec.norm?.kind === 'rms' ? k.shared('squares', 'f32', shape.splits * spec.rows) : null;
  const workgroup = k.let('tile', k.builtin('workgroupX'));
  const centres = spec.norm?.kind === 'layer' ? centresOf(k, features, spec) : [];
  const write = (at: number, first: number): void => {
    const part = spec.parts[at]!;
    const count = Math.ceil(part.width / columnsOf(part, shape));
    const isLast = at === spec.parts.length - 1;
    const body = (): void =>
      new Writer(k, features, lanes, spec, shape, sums, squares, centres).part(part, workgroup.sub(first));
    if (isLast) body();
    else k.if(workgroup.lt(first + count), body, () => write(at + 1, first + count));
  };
  write(0, 0);
}

/** What a layer norm subtracts and multiplies by, for one row of x. */
interface Centre {
  readonly mean: Expr;
  readonly root: Expr;
}

/** Each workgroup finds them for itself: x is short beside the weights. */
function centresOf(k: KernelBuilder, features: Features, spec: MatvecSpec): Centre[] {
  if (spec.input.kind !== 'floats') throw new TypeError('matvec: a layer norm needs a float32 input');
  const { x } = spec.input;
  const vectors = spec.inDim / 4;
  const ones = literal('f32x4', 1);
  const total = (term: (value: Expr, row: number) => Expr): Expr[] => {
    const sums = Array.from({ length: spec.rows }, () => k.variable('total', literal('f32', 0)));
    k.for(
      'at',
      k.localIndex,
      literal('u32', vectors),
      (at) => {
        sums.forEach((sum, row) => {
          k.set(sum, sum.value.add(term(x.at(at.add(row * vectors)), row)));
        });
      },
      k.threads,
    );
    return reduceWorkgroup(k, features, 'add', ...sums.map((sum) => sum.value));
  };
  const means = total((value) => value.dot(ones)).map((sum) => k.let('mean', sum.div(spec.inDim)));
  const squares = total((value, row) => {
    const centred = value.sub(splat(means[row]!, 4));
    return centred.dot(centred);
  });
  return squares.map((square, row) => {
    const root = k.let('root', square.div(spec.inDim).add(spec.norm!.epsilon).rsqrt());
    return { mean: means[row]!, root };
  });
}

class Writer {
  constructor(
    readonly k: KernelBuilder,
    readonly features: Features,
    readonly lanes: Lanes,
    readonly spec: MatvecSpec,
    readonly shape: MatvecShape,
    readonly sums: ArrayRef, // [splits, weight rows, rows of x]
    readonly squares: ArrayRef | null, // [splits, rows of x]
    readonly centres: readonly Centre[],
  ) {}

  part(part: MatvecPart, workgroup: Expr): void {
    const { k, spec, shape, lanes } = this;
    const columns = columnsOf(part, shape);
    const first = k.let('first', workgroup.mul(columns));
    const rowGroups = shape.rows / shape.rowsPerGroup;
    // Groups of one subgroup take the same piece of the input.
    const isShared = shape.lanes < mostLanes(this.features);
    const { group } = lanes;
    const split = k.let('split', isShared ? group.div(rowGroups) : group.rem(shape.splits));
    const rowGroup = k.let('rowGroup', isShared ? group.rem(rowGroups) : group.div(shape.splits));
    const { accumulators, squares } = this.#multiply(part, first, split, rowGroup);
    const totals = lanes.sum(accumulators.flat());
    const begin = k.let('sumsBegin', split.mul(rowGroups).add(rowGroup).mul(accumulators.flat().length));
    k.if(totals.isHolder, () => {
      for (const { index, sum } of totals.held) k.store(this.sums, begin.add(index), sum);
    });
    if (this.squares) {
      const { isHolder, held } = lanes.sum(squares);
      k.if(isHolder.and(rowGroup.eq(0)), () => {
        for (const { index, sum } of held) k.store(this.squares!, split.mul(spec.rows).add(index), sum);
      });
    }
    k.barrier();
    this.#finish(part, first, columns);
    part.afterwards?.(first, columns);
  }

  /** Weight row of a thread's r-th row: the product that it belongs to, and its column. */
  #place(part: MatvecPart, first: Expr, rowGroup: Expr, r: number): { rows: WeightRows; column: Expr } {
    const { rowsPerGroup } = this.shape;
    const products = part.products.length;
    const local = rowGroup.mul(rowsPerGroup / products).add(Math.floor(r / products));
    const column = columnAt(part, first, local).min(part.width - 1);
    return { rows: part.products[r % products]!, column };
  }

  #multiply(
    part: MatvecPart,
    first: Expr,
    split: Expr,
    rowGroup: Expr,
  ): { accumulators: Expr[][]; squares: Expr[] } {
    const { k, spec, shape, lanes } = this;
    const zero = literal('f32', 0);
    const sums = Array.from({ length: shape.rowsPerGroup }, () =>
      Array.from({ length: spec.rows }, () => k.variable('sum', zero)),
    );
    const squares =
      spec.norm?.kind === 'rms' ? Array.from({ length: spec.rows }, () => k.variable('square', zero)) : [];
    const places = sums.map((_, r) => {
      const { rows, column } = this.#place(part, first, rowGroup, r);
      const row = k.let('row', column.add(rows.firstRow));
      return { rows, row, begin: k.let('begin', row.mul(spec.rowVectors)) };
    });
    const vectors = Math.ceil(spec.inDim / perVector(spec.packing));
    const stride = lanes.size * shape.splits;
    const begin = k.let('start', split.mul(lanes.size).add(lanes.lane));
    const step = (base: Expr, count: number, guarded: boolean): void => {
      const at = Array.from({ length: count }, (_, u) => k.let('at', base.add(u * stride)));
      const inside = at.map((each) => (guarded ? k.let('inside', each.lt(vectors)) : null));
      const safe = at.map((each, u) => (guarded ? k.let('safe', each.min(vectors - 1)) : at[u]!));
      const words = safe.map((each) =>
        places.map(({ rows, begin: from }) => k.let('words', rows.words.at(from.add(each)))),
      );
      safe.forEach((each, u) => {
        const scales = places.map(({ rows, row }) => this.#groupScale(rows, row, each));
        for (let row = 0; row < spec.rows; row++) {
          const met = this.#meet(row, each);
          const take = (value: Expr): Expr => (inside[u] ? inside[u]!.select(value, 0) : value);
          places.forEach((_, r) => {
            const product = met.dot(words[u]![r]!);
            const scaled = scales[r] ? product.mul(scales[r]!) : product;
            const sum = sums[r]![row]!;
            k.set(sum, sum.value.add(take(scaled)));
          });
          const square = squares[row];
          if (square) k.set(square, square.value.add(take(met.squares!)));
        }
      });
    };
    const whole = Math.floor(vectors / (stride * shape.unroll));
    const atOnce = stride * shape.unroll;
    if (whole === 1) step(begin, shape.unroll, false);
    else if (whole > 1)
      k.for('base', begin, literal('u32', whole * atOnce), (base) => step(base, shape.unroll, false), atOnce);
    const left = vectors - whole * atOnce;
    if (left > 0) step(begin.add(whole * atOnce), Math.ceil(left / stride), left % stride !== 0);
    return {
      accumulators: sums.map((byRow) => byRow.map((each) => each.value)),
      squares: squares.map((each) => each.value),
    };
  }

  #meet(row: number, at: Expr): Met {
    const { k, spec, features } = this;
    const vectors = spec.inDim / perVector(spec.packing);
    const place = row === 0 ? at : k.let('place', at.add(row * vectors));
    if (spec.input.kind === 'floats') {
      const { x, gain, bias } = spec.input;
      const centre = this.centres[row] ?? null;
      return meetFloats(k, spec.packing, x, place, { at, gain, bias, centre }, spec.norm?.kind === 'rms');
    }
    const { bytes, blocks } = spec.input;
    return meetBytes(k, spec.packing as 'int8' | 'int4', bytes, blocks, place, features.packedDot);
  }

  #groupScale({ scales }: WeightRows, row: Expr, at: Expr): Expr | null {
    const { spec, k } = this;
    if (typeof spec.scales === 'string' || !scales) return null;
    const perGroup = spec.scales.groupSize / perVector(spec.packing);
    const groups = Math.ceil(spec.inDim / spec.scales.groupSize);
    return k.let('scale', scales.at(row.mul(groups).add(at.div(perGroup))));
  }

  #finish(part: MatvecPart, first: Expr, columns: number): void {
    const { k, spec } = this;
    const atOnce = part.pairs ? 2 : 1;
    const threads = (columns / atOnce) * spec.rows;
    const whole = (index: Expr): void => {
      const row = k.let('outRow', index.div(columns / atOnce));
      const local = k.let('local', index.rem(columns / atOnce).mul(atOnce));
      const places = Array.from({ length: atOnce }, (_, i) =>
        k.let('column', columnAt(part, first, local.add(i))),
      );
      k.if(places.at(-1)!.lt(part.width), () => {
        const root = spec.norm?.kind === 'rms' ? k.let('root', this.#root(row)) : null;
        const values = places.map((column, i) =>
          part.products.map((product, p) => {
            const sum = this.#total(row, local.add(i).mul(part.products.length).add(p));
            const scaled = this.#rowScale(product, sum, column);
            return k.let('value', root ? scaled.mul(root) : scaled);
          }),
        );
        part.finish(row, places, values);
      });
    };
    if (threads <= k.threads) k.if(k.localIndex.lt(threads), () => whole(k.localIndex));
    else k.for('index', k.localIndex, literal('u32', threads), whole, k.threads);
  }

  /** Sum over the splits of what the workgroup has of a row of x and one of its own weight rows. */
  #total(row: Expr, own: Expr): Expr {
    const { spec, shape } = this;
    return this.#overSplits(this.sums, own.mul(spec.rows).add(row), shape.rows * spec.rows);
  }

  #root(row: Expr): Expr {
    const { spec } = this;
    const square = this.#overSplits(this.squares!, row, spec.rows);
    return square.div(spec.inDim).add(spec.norm!.epsilon).rsqrt();
  }

  #overSplits(array: ArrayRef, at: Expr, stride: number): Expr {
    const parts = Array.from({ length: this.shape.splits }, (_, split) => array.at(at.add(split * stride)));
    return parts.reduce((sum, part) => sum.add(part));
  }

  #rowScale({ scales, firstRow }: WeightRows, sum: Expr, column: Expr): Expr {
    if (!scales || typeof this.spec.scales !== 'string') return sum;
    return sum.mul(scales.at(this.spec.scales === 'tensor' ? 0 : column.add(firstRow)));
  }
}

/** Column of a part from its place in the workgroup's tile: for pairs, neighbours there rotate together. */
function columnAt({ pairs }: MatvecPart, first: Expr, local: Expr): Expr {
  if (pairs?.layout !== 'halves') return first.add(local);
  const half = pairs.headDim / 2;
  const pair = first.div(2).add(local.shr(1));
  return pair.div(half).mul(pairs.headDim).add(pair.rem(half)).add(local.and(1).mul(half));
}
