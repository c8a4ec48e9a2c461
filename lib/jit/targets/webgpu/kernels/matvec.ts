// lib/jit/targets/webgpu/kernels/matvec.ts: few rows x [rows, in] times weight rows [out, in] -> a kernel that reads each
// weight once, in 16-byte pieces, many under way at a time. Decode is this kernel and attention.
//
// A workgroup makes `columns` outputs of one part. Its groups of threads (lanes.ts) share the work: each takes
// `rowsPerGroup` weight rows and one of `splits` of their length; what the splits have is added in shared memory.
// Then one thread a column (or a pair of columns, for rotary positions) finishes and writes it (matvecFinish.ts).
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
import type { FinishSpec, MatvecPart, WeightRows } from './matvecFinish.js';
import { columnAt, columnsOf, eachPart, finishPart } from './matvecFinish.js';

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

export type MatvecInput =
  // All f32x4.
  | {
      readonly kind: 'floats';
      readonly x: ArrayRef;
      readonly gain: ArrayRef | null;
      readonly bias: ArrayRef | null;
    }
  | { readonly kind: 'bytes'; readonly bytes: ArrayRef; readonly blocks: ArrayRef }; // u32x4, f32x2

export interface MatvecSpec extends FinishSpec {
  readonly packing: Packing;
  /** Vectors (16 bytes) of a weight row, its padding included. */
  readonly rowVectors: number;
  readonly input: MatvecInput;
  readonly parts: readonly MatvecPart[];
}

/** Threads of a workgroup of this shape. */
export function matvecThreads({ rows, lanes, rowsPerGroup, splits }: MatvecShape): number {
  return lanes * (rows / rowsPerGroup) * splits;
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
  const centres = spec.norm?.kind === 'layer' ? centresOf(k, features, spec) : [];
  eachPart(k, spec.parts, shape, (part, workgroup) => {
    new Writer(k, features, lanes, spec, shape, sums, squares, centres).part(part, workgroup);
  });
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
    const held = { ...{ sums: this.sums, rows: shape.rows, splits: shape.splits }, squares: this.squares };
    finishPart(k, spec, part, first, columns, { ...held, squareSplits: shape.splits });
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
}
