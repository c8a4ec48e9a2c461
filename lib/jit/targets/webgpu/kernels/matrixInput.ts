// lib/jit/targets/webgpu/kernels/matrixInput.ts: rows of float32, through a norm if there is one, -> rows as matrix units
// read them: signed bytes or float16, each row, or each of its pieces, divided by a number of its own, so that none
// overflows.
// Source: one scale a row of activations as in Dettmers et al. 2022, arXiv:2208.07339, or a few.

import type { StructuredNode } from '../../../graph.js';
import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { laneSum, literal, splat, vector } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import { roundedByte } from '../../../kernels/unpack.js';
import type { KernelStep } from '../../../steps.js';
import type { LastingUse, LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { DispatchWriter } from '../writer.js';
import { byteScale } from './activations.js';

/** Where rows lie for matrix units. */
export interface MatrixInput<Use extends BufferUse = BufferUse> {
  readonly words: Use; // [rows, width] numbers
  readonly scales: Use; // f32 [rows, pieces]
}

export type NormStep = KernelStep & { readonly node: StructuredNode<'Norm'> };

/** A thread keeps so many eights of numbers in registers at most. */
const mostEights = 8;
const mostThreads = 256;

/** Rows of so many numbers can be made. */
export function takesMatrixRow(width: number, threads: number): boolean {
  return width > 0 && width % 16 === 0 && width / 8 <= mostEights * Math.min(mostThreads, threads);
}

export interface MatrixInputSpec {
  readonly kind: MatrixKind;
  readonly rows: number;
  readonly width: number;
  /** Of eight halves. */
  readonly order: readonly number[];
  /** Scales of a row, and how much of the row each is for: a multiple of 8. */
  readonly pieces: number;
  readonly pieceWidth: number;
  /** The largest of a row's scales is at most so many times the smallest; null: as they come. */
  readonly scaleRatio: number | null;
}

const bytesOf = ({ kind, rows, width }: MatrixInputSpec): number => rows * width * (kind === 'bytes' ? 1 : 2);

/** Makes the input of a product, which nobody has made yet: a workgroup a row, or a piece where pieces are alike. */
export function matrixInputDispatch(
  whole: MatrixInputSpec,
  linear: KernelStep,
  norm: NormStep | null,
  context: LowerContext,
): { readonly dispatch: Dispatch; readonly input: MatrixInput } {
  const spec = norm ? whole : rowAPiece(whole);
  const { kind, rows, width } = spec;
  const input = { words: context.scratch(bytesOf(spec)), scales: context.scratch(4 * rows * spec.pieces) };
  const name = `matrix input ${kind} ${norm?.node.attrs.kind ?? ''}`.trim();
  const writer = context.writer(name, rowThreads(width, context));
  const { k } = writer;
  const row = writer.workgroupIndex(rows);
  const own = new OwnEights(k, width / 8);
  const x = writer.bind('x', context.input(norm ?? linear, 0).use, 'f32x4');
  const given = own.read(x, k.let('base', row.mul(width / 4)));
  storeMatrixRow(writer, own, row, given, { spec, norm, input }, context);
  return { dispatch: writer.forWorkgroups(rows, context.step), input };
}

/** The same memory with a row for each piece, if they are of one length, can be made, and know nothing of each other. */
function rowAPiece(spec: MatrixInputSpec): MatrixInputSpec {
  const { rows, width, pieces, pieceWidth, scaleRatio } = spec;
  if (pieces * pieceWidth !== width || pieceWidth % 16 !== 0 || scaleRatio !== null) return spec;
  return { ...spec, rows: rows * pieces, width: pieceWidth, pieces: 1 };
}

/** What a product asks of whoever makes its input's rows. */
export interface MatrixRequest {
  readonly spec: MatrixInputSpec;
  readonly norm: NormStep | null;
  readonly input: MatrixInput;
}

const made = new WeakMap<LowerContext, Map<KernelStep, MatrixInput<LastingUse>>>();

/** Memory for the input of a later product, which takes it by takeMatrixInput. */
export function keepMatrixInput(
  consumer: KernelStep,
  spec: MatrixInputSpec,
  context: LowerContext,
): MatrixInput<LastingUse> {
  const input = {
    words: context.lasting(bytesOf(spec)),
    scales: context.lasting(4 * spec.rows * spec.pieces),
  };
  const inputs = made.get(context) ?? new Map<KernelStep, MatrixInput<LastingUse>>();
  made.set(context, inputs.set(consumer, input));
  return input;
}

/** The input that was made for a product, which is now its to release. */
export function takeMatrixInput(
  consumer: KernelStep,
  context: LowerContext,
): MatrixInput<LastingUse> | undefined {
  const input = made.get(context)?.get(consumer);
  made.get(context)?.delete(consumer);
  return input;
}

/** Threads of a workgroup that makes a row. */
export function rowThreads(width: number, { features }: LowerContext): number {
  const most = Math.min(mostThreads, features.maxThreads);
  return Math.min(most, Math.max(32, 2 ** Math.ceil(Math.log2(width / 16))));
}

/** Puts a row through its norm and stores it as matrix units read it; all threads of its workgroup arrive. */
export function storeMatrixRow(
  writer: DispatchWriter,
  own: OwnEights,
  row: Expr,
  given: readonly Expr[],
  { spec, norm, input }: MatrixRequest,
  context: LowerContext,
): void {
  const { k } = writer;
  const { kind, width } = spec;
  const values = norm ? normed(writer, own, given, norm, width, context) : given;
  const eights = Array.from({ length: values.length / 2 }, (_, i) => values.slice(2 * i, 2 * i + 2));
  const largest = eights.map((eight) => {
    const four = k.let('largest', eight.map((value) => value.abs()).reduce((held, value) => held.max(value))); // biome-ignore format: short
    return k.let('most', [0, 1, 2, 3].map((lane) => four.lane(lane)).reduce((held, lane) => held.max(lane))); // biome-ignore format: short
  });
  const pieces = Array.from({ length: spec.pieces }, (_, piece) => piece);
  const pieceOf = eights.map((_, i) => (pieces.length > 1 ? k.let('piece', own.place(i).div(spec.pieceWidth / 8)) : null)); // biome-ignore format: short
  const byPiece = pieces.map((piece) =>
    largest
      .map((most, i) => pieceOf[i]?.eq(piece).select(most, 0) ?? most)
      .reduce((held, most) => held.max(most)),
  );
  const most = reduceWorkgroup(k, context.features, 'max', ...byPiece).map((all) => k.let('most', all));
  const { scaleRatio } = spec;
  const least = scaleRatio && most.reduce((held, each) => held.max(each)).mul(1 / scaleRatio);
  const factors = most.map((each) => scaleOf(k, kind, least ? k.let('raised', each.max(least)) : each));
  const scales = writer.bind('scales', input.scales, 'f32');
  k.if(k.localIndex.eq(0), () => {
    for (const [piece, { scale }] of factors.entries())
      k.store(scales, row.mul(pieces.length).add(piece), scale);
  });
  const words = writer.bind('words', input.words, kind === 'bytes' ? 'u32x2' : 'u32x4');
  own.each((i, place) => {
    const factor = factors
      .map((each) => each.factor)
      .reduce((held, each, piece) => pieceOf[i]!.ge(piece).select(each, held));
    const eight = eights[i]!.map((value) => k.let('scaled', value.mul(splat(factor, 4))));
    k.store(words, row.mul(width / 8).add(place), packed(spec, eight));
  });
}

/** The eights of a row that a thread has: every so many. */
export class OwnEights {
  readonly #places: readonly Expr[];

  constructor(
    readonly k: KernelBuilder,
    readonly count: number,
  ) {
    this.#places = Array.from({ length: Math.ceil(count / k.threads) }, (_, i) =>
      k.let('place', k.localIndex.add(i * k.threads)),
    );
  }

  /** Whether a thread's eight `i` is one of the row's; null: always. */
  #isInside(i: number): Expr | null {
    return (i + 1) * this.k.threads <= this.count ? null : this.#places[i]!.lt(this.count);
  }

  /** Place in the row of the thread's eight `i`, inside the row. */
  place(i: number): Expr {
    return this.#isInside(i) ? this.#places[i]!.min(this.count - 1) : this.#places[i]!;
  }

  /** Two f32x4 an eight, zeros past the row's end. @param base element of the array where the row begins */
  read(array: ArrayRef, base: Expr): Expr[] {
    const { k } = this;
    return this.#places.flatMap((_, i) => {
      const at = base.add(this.place(i).mul(2));
      return [0, 1].map((half) => this.inside(i, k.let('value', array.at(at.add(half)))));
    });
  }

  /** The value, or 0 past the row's end. */
  inside(i: number, value: Expr): Expr {
    const inside = this.#isInside(i);
    return inside ? this.k.let('inside', inside.select(value, literal('f32x4', 0))) : value;
  }

  /** Runs for each eight that the thread has: its number, and its place in the row. */
  each(run: (i: number, place: Expr) => void): void {
    this.#places.forEach((place, i) => {
      const inside = this.#isInside(i);
      if (inside) this.k.if(inside, () => run(i, place));
      else run(i, place);
    });
  }
}

function normed(
  writer: DispatchWriter,
  own: OwnEights,
  given: readonly Expr[],
  norm: NormStep,
  width: number,
  context: LowerContext,
): Expr[] {
  const { k } = writer;
  const { kind, epsilon, scaled, biased } = norm.node.attrs;
  const read = (index: number): Expr[] =>
    own.read(writer.bind(`norm${index}`, context.input(norm, index).use, 'f32x4'), literal('u32', 0));
  const total = (terms: readonly Expr[]): Expr => {
    const sum = terms.reduce((held, term) => held.add(term));
    const [all] = reduceWorkgroup(k, context.features, 'add', sum) as [Expr];
    return k.let('total', all);
  };
  const mean =
    kind === 'layer' ? k.let('mean', splat(total(given.map((value) => laneSum(value))).div(width), 4)) : null;
  const centred = given.map((value, i) =>
    mean ? own.inside(i >> 1, k.let('centred', value.sub(mean))) : value,
  );
  const square = total(centred.map((value) => value.dot(value)));
  const root = k.let('root', splat(square.div(width).add(epsilon).rsqrt(), 4));
  const gains = scaled ? read(1) : null;
  const biases = biased ? read(scaled ? 2 : 1) : null;
  return centred.map((value, i) => {
    const gained = gains ? value.mul(root).mul(gains[i]!) : value.mul(root);
    return k.let('normed', biases ? gained.add(biases[i]!) : gained);
  });
}

/** A row's scale, and what its numbers are multiplied by. Float16 keeps its precision: the scale is a power of two. */
function scaleOf(k: KernelBuilder, kind: MatrixKind, most: Expr): { scale: Expr; factor: Expr } {
  if (kind === 'bytes') return byteScale(k, most);
  // The power of two at or below the largest becomes 1,024.
  const power = k.let('power', most.max(1e-30).bits('u32').and(0x7f800000));
  const scale = k.let('scale', power.sub(10 << 23).bits('f32'));
  return { scale, factor: k.let('factor', literal('f32', 1).div(scale)) };
}

/** Eight numbers as bytes (u32x2) or halves (u32x4). */
function packed({ kind, order }: MatrixInputSpec, eight: readonly Expr[]): Expr {
  const number = (i: number): Expr => eight[i >> 2]!.lane(i & 3);
  if (kind === 'halves') {
    const pair = (i: number): Expr => vector(number(order[i]!), number(order[i + 1]!)).packHalves();
    return vector(pair(0), pair(2), pair(4), pair(6));
  }
  const word = (first: number): Expr =>
    [0, 1, 2, 3].map((i) => roundedByte(number(first + i), i)).reduce((held, byte) => held.or(byte));
  return vector(word(0), word(4));
}
