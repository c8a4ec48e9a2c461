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
import type { Limbs } from './activations.js';
import type { Met } from './dots.js';
import { blockSquares, meetBytes, meetFloats, perVector } from './dots.js';
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
  | {
      readonly kind: 'bytes';
      readonly bytes: ArrayRef; // u32x4
      readonly blocks: ArrayRef; // blockElement
      readonly limbs: Limbs;
    };

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
  const squares = spec.norm?.kind === 'rms' ? squaresOf(k, spec, shape.lanes) : null;
  const centres = spec.norm?.kind === 'layer' ? centresOf(k, features, spec) : [];
  eachPart(k, spec.parts, shape, (part, workgroup) => {
    new Writer(k, features, lanes, spec, shape, sums, squares, centres).part(part, workgroup);
  });
}

/** Sums of squares of x on their way to a norm's root. */
interface Squares {
  readonly array: ArrayRef; // f32 [groups, rows of x]
  readonly groups: number; // of threads that have some
  /** Elements of a row of the input that they are read from: of x, or of its blocks. */
  readonly vectors: number;
}

function squaresOf(k: KernelBuilder, spec: MatvecSpec, lanes: number): Squares {
  const { rows, inDim, input, packing } = spec;
  const vectors = inDim / (input.kind === 'bytes' ? perVector(packing) : 4);
  const groups = Math.min(k.threads, Math.ceil(vectors / lanes) * lanes) / lanes;
  return { array: k.shared('squares', 'f32', groups * rows), groups, vectors };
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
    readonly squares: Squares | null,
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
    const accumulators = this.#multiply(part, first, split, rowGroup);
    const totals = lanes.sum(accumulators.flat());
    const begin = k.let('sumsBegin', split.mul(rowGroups).add(rowGroup).mul(accumulators.flat().length));
    k.if(totals.isHolder, () => {
      for (const { index, sum } of totals.held) k.store(this.sums, begin.add(index), sum);
    });
    if (this.squares) this.#addSquares(this.squares);
    k.barrier();
    const held = { sums: this.sums, rows: shape.rows, splits: shape.splits };
    const { array = null, groups = 0 } = this.squares ?? {};
    finishPart(k, spec, part, first, columns, { ...held, squares: array, squareSplits: groups });
  }

  /**
   * The squares of x, which the workgroup's threads share out: beside the products, where each row of weights meets all
   * of x, they would be added up once for each (gate and up of Mistral-7B in int8, H200: 40 us for 36).
   */
  #addSquares({ array, groups, vectors }: Squares): void {
    const { k, spec, lanes } = this;
    const { input } = spec;
    const stride = groups * lanes.size;
    const first = k.let('squaresAt', lanes.group.mul(lanes.size).add(lanes.lane));
    const sums = Array.from({ length: spec.rows }, () => k.variable('square', literal('f32', 0)));
    const add = (at: Expr): void => {
      for (const [row, sum] of sums.entries()) {
        const place = at.add(row * vectors);
        const found = k.let('found', (input.kind === 'bytes' ? input.blocks : input.x).at(place));
        const square = input.kind === 'bytes' ? blockSquares(found) : found.dot(found);
        k.set(sum, sum.value.add(square));
      }
    };
    for (let begin = 0; begin < vectors; begin += stride) {
      const at = begin === 0 ? first : first.add(begin);
      const isWhole = groups * lanes.size === k.threads && begin + stride <= vectors;
      if (isWhole) add(at);
      else k.if(at.lt(Math.min(begin + stride, vectors)), () => add(at));
    }
    const { isHolder, held } = lanes.sum(sums.map((sum) => sum.value));
    k.if(isHolder.and(lanes.group.lt(groups)), () => {
      for (const { index, sum } of held) k.store(array, lanes.group.mul(spec.rows).add(index), sum);
    });
  }

  /** Weight row of a thread's r-th row: the product that it belongs to, and its column. */
  #place(part: MatvecPart, first: Expr, rowGroup: Expr, r: number): { rows: WeightRows; column: Expr } {
    const { rowsPerGroup } = this.shape;
    const products = part.products.length;
    const local = rowGroup.mul(rowsPerGroup / products).add(Math.floor(r / products));
    const column = columnAt(part, first, local).min(part.width - 1);
    return { rows: part.products[r % products]!, column };
  }

  /** @returns sums by weight row of the group and row of x */
  #multiply(part: MatvecPart, first: Expr, split: Expr, rowGroup: Expr): Expr[][] {
    const { k, spec, shape, lanes } = this;
    const zero = literal('f32', 0);
    const sums = Array.from({ length: shape.rowsPerGroup }, () =>
      Array.from({ length: spec.rows }, () => k.variable('sum', zero)),
    );
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
    return sums.map((byRow) => byRow.map((each) => each.value));
  }

  #meet(row: number, at: Expr): Met {
    const { k, spec, features } = this;
    const vectors = spec.inDim / perVector(spec.packing);
    const place = row === 0 ? at : k.let('place', at.add(row * vectors));
    if (spec.input.kind === 'floats') {
      const { x, gain, bias } = spec.input;
      const centre = this.centres[row] ?? null;
      return meetFloats(k, spec.packing, x, place, { at, gain, bias, centre });
    }
    const { bytes, blocks, limbs } = spec.input;
    return meetBytes(k, spec.packing as 'int8' | 'int4', bytes, blocks, limbs, place, features.packedDot);
  }

  #groupScale({ scales }: WeightRows, row: Expr, at: Expr): Expr | null {
    const { spec, k } = this;
    if (typeof spec.scales === 'string' || !scales) return null;
    const perGroup = spec.scales.groupSize / perVector(spec.packing);
    const groups = Math.ceil(spec.inDim / spec.scales.groupSize);
    return k.let('scale', scales.at(row.mul(groups).add(at.div(perGroup))));
  }
}
