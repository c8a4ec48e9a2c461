// lib/jit/targets/webgpu/kernels/dots.ts: 16 bytes of a weight row times what they meet of the input -> one number.
// A row lies in words, the first number in the lowest bits (kernels/unpack.ts); a thread reads four words at once.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import type { Packing } from '../../../kernels/unpack.js';
import { packedPerWord, plainDot4I8, unpackBytes } from '../../../kernels/unpack.js';
import { blockSize, type Limbs } from './activations.js';

/** Numbers in the four words that a thread reads at once. */
export function perVector(packing: Packing): number {
  return 4 * packedPerWord[packing];
}

/** The input at one vector of a row, read once and met by several rows. */
export interface Met {
  /** Product with a vector of a weight row (u32x4), its scale left out. */
  readonly dot: (words: Expr) => Expr;
}

/** What a norm does to the input before the weights meet it: (x - mean) * root * gain + bias, as far as it is there. */
export interface Prepared {
  readonly at: Expr; // of gain and bias, which all rows share
  readonly gain: ArrayRef | null;
  readonly bias: ArrayRef | null;
  readonly centre: { readonly mean: Expr; readonly root: Expr } | null;
}

/** A float32 input, f32x4 an element, at the vector `at`. */
export function meetFloats(
  k: KernelBuilder,
  packing: Packing,
  x: ArrayRef,
  at: Expr,
  prepared: Prepared,
): Met {
  const count = perVector(packing) / 4;
  const raw = Array.from({ length: count }, (_, i) => k.let('x', x.at(at.mul(count).add(i))));
  const parts = raw.map((part, i) => prepare(k, part, prepared, count, i));
  const ones = literal('f32x4', 1);
  const total =
    packing === 'int4'
      ? k.let(
          'total',
          parts
            .reduce((sum, part) => sum.add(part))
            .dot(ones)
            .mul(8),
        )
      : null;
  return {
    dot: (words) => {
      const numbers = unpackVector(packing, words);
      const sum = numbers.map((part, i) => part.dot(parts[i]!)).reduce((held, part) => held.add(part));
      return total ? sum.sub(total) : sum;
    },
  };
}

function prepare(
  k: KernelBuilder,
  part: Expr,
  { at, gain, bias, centre }: Prepared,
  count: number,
  i: number,
): Expr {
  let value = part;
  if (centre) value = value.sub(splat(centre.mean, 4)).mul(splat(centre.root, 4));
  if (gain) value = value.mul(gain.at(at.mul(count).add(i)));
  if (bias) value = value.add(bias.at(at.mul(count).add(i)));
  return value === part ? part : k.let('ready', value);
}

/** The numbers of four words as f32x4, in order; int4 without taking 8 off. */
function unpackVector(packing: Packing, words: Expr): Expr[] {
  const each = [0, 1, 2, 3].map((i) => words.lane(i));
  switch (packing) {
    case 'f32':
      return [words.bits('f32x4')];
    case 'f16': {
      const halves = each.map((word) => word.halves());
      return [vector(halves[0]!, halves[1]!), vector(halves[2]!, halves[3]!)];
    }
    case 'bf16': {
      const pair = (word: Expr): Expr[] => [word.shl(16).bits('f32'), word.and(0xffff0000).bits('f32')];
      return [0, 2].map((i) => vector(...pair(each[i]!), ...pair(each[i + 1]!)));
    }
    case 'int8':
      return each.map(unpackBytes);
    case 'int4':
      return each.flatMap((word) =>
        [0, 16].map((shift) => {
          const places = [0, 4, 8, 12].map((bits) => literal('u32', bits + shift));
          return splat(word, 4)
            .shr(vector(...places))
            .and(15)
            .to('f32');
        }),
      );
  }
}

/** What the pairs of an input's blocks are read as: those that a vector of weights meets, at once. */
export const blockElement = { int8: 'f32x2', int4: 'f32x4' } as const;

/** The sum of squares of what such an element stands for. */
export function blockSquares(block: Expr): Expr {
  return block.type === 'f32x4' ? block.lane(1).add(block.lane(3)) : block.lane(1);
}

/** An input in integers with blocks of 16 (activations.ts); for int4 weights in the order `nibbles`. */
export function meetBytes(
  k: KernelBuilder,
  packing: 'int8' | 'int4',
  bytes: ArrayRef, // u32x4
  blocks: ArrayRef, // blockElement
  limbs: Limbs,
  at: Expr,
  packedDot: boolean,
): Met {
  const dot = (a: Expr, b: Expr): Expr => (packedDot ? a.dot4I8(b) : plainDot4I8(a, b));
  const perBlock = perVector(packing) / blockSize; // 1 or 2
  const limbAt = (i: number, limb: number): Expr => {
    const place = at.mul(perBlock).add(i).mul(limbs).add(limb);
    return k.let('x', bytes.at(place));
  };
  const blockAt = (i: number): Expr[] => Array.from({ length: limbs }, (_, limb) => limbAt(i, limb));
  const xs = Array.from({ length: perBlock }, (_, i) => blockAt(i));
  const block = k.let('block', blocks.at(at));
  /** Products of the words that meet a block of the input, in units of its first bytes. */
  const meet = (own: readonly Expr[], i: number): Expr =>
    xs[i]!.map((x) => own.map((word, lane) => dot(word, x.lane(lane))))
      .map((products) => smallFloat(sumFrom(smallFloatZero, products)))
      .reduceRight((less, more) => less.fma(1 / 256, more));
  if (packing === 'int8') {
    const lanes = [0, 1, 2, 3];
    const own = (words: Expr): Expr[] => lanes.map((lane) => words.lane(lane));
    return { dot: (words) => meet(own(words), 0).mul(block.lane(0)) };
  }
  const scales = xs.map((_, i) => k.let('scale', block.lane(2 * i).mul(1 / 16)));
  const own = (words: Expr, half: number): Expr[] =>
    [0, 1].flatMap((i) => sixteenfold(words.lane(2 * half + i)));
  return {
    dot: (words) =>
      scales
        .map((scale, half) => meet(own(words, half), half).mul(scale))
        .reduce((sum, part) => sum.add(part)),
  };
}

/**
 * The low and the high four bits of each byte as signed bytes, times 16: stored plus 8 and in a byte's upper half, they
 * only want its highest bit turned over.
 */
function sixteenfold(word: Expr): [Expr, Expr] {
  const signed = (upper: Expr): Expr => upper.and(0xf0f0f0f0).xor(0x80808080);
  return [signed(word.shl(4)), signed(word)];
}

/** The bits of 1.5 * 2^23, where float32 numbers are 1 apart: so many more in an integer is so much more in a float. */
const smallFloatZero = literal('i32', 0x4b400000);

/**
 * An integer below 2^22 that was counted from smallFloatZero, as float32, exactly. With several rows of x there is a sum
 * to convert for every four products, and GPUs convert at a quarter of the speed at which they add, or less.
 */
function smallFloat(counted: Expr): Expr {
  return counted.bits('f32').sub(1.5 * 2 ** 23);
}

/** Added one by one: a GPU adds to a sum as it multiplies. */
function sumFrom(first: Expr, terms: readonly Expr[]): Expr {
  return terms.reduce((sum, term) => sum.add(term), first);
}
