// lib/jit/targets/webgpu/kernels/activations.ts: how a product's input lies in memory, and how what makes it leaves it
// so: float32, or signed bytes in blocks of 16 with a float32 scale and the sum of the block's squares beside it.
// A consumer multiplies bytes four at a time (dot4I8), and a norm's root comes out of the sums of squares.
// Source: block-wise quantization of activations as in Dettmers et al. 2022, arXiv:2208.07339, with smaller blocks.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, vector } from '../../../kernels/expression.js';
import { reduceNeighbours } from '../../../kernels/reduce.js';
import { roundedByte } from '../../../kernels/unpack.js';

/** Values that share a scale. */
export const blockSize = 16;

/** Where a value's bytes and the pairs (scale, sum of squares) of its blocks lie. */
export interface QuantizedArrays {
  readonly bytes: ArrayRef; // u32, four to a word
  readonly blocks: ArrayRef; // f32x2
}

/**
 * Order of a block's bytes. `plain`: as the values. `nibbles`: of eight values the even ones, then the odd ones, so
 * that a word of eight 4-bit weights meets them with one mask and one shift.
 */
export type ByteOrder = 'plain' | 'nibbles';

/** What numbers up to `largest` are multiplied by to become signed bytes, and what those are multiplied by after. */
export function byteScale(k: KernelBuilder, largest: Expr): { readonly factor: Expr; readonly scale: Expr } {
  const factor = k.let('factor', largest.gt(0).select(literal('f32', 127).div(largest), 0));
  return { factor, scale: largest.mul(1 / 127) };
}

/** Bytes of a quantized value of so many elements, its blocks after them. */
export function quantizedBytes(elements: number): { readonly bytes: number; readonly blocks: number } {
  return { bytes: elements, blocks: (elements / blockSize) * 8 };
}

/**
 * Writes word `word` (of its row-major value) and, with a block's first word, the block's scale and sum of squares.
 * @param values the 16 numbers of the word's block as they are; their squares are summed
 * @param gains what each is multiplied by before it is rounded; null: 1
 */
export function storeQuantized(
  k: KernelBuilder,
  { bytes, blocks }: QuantizedArrays,
  order: ByteOrder,
  word: Expr,
  values: (i: Expr) => Expr,
  gains: ((i: Expr) => Expr) | null,
): void {
  const scaled = (i: Expr): Expr => (gains ? values(i).mul(gains(i)) : values(i));
  const largest = k.variable('largest', literal('f32', 0));
  const squares = k.variable('squares', literal('f32', 0));
  k.for('at', 0, blockSize, (i) => {
    const own = k.let('own', values(i));
    k.set(largest, largest.value.max((gains ? own.mul(gains(i)) : own).abs()));
    k.set(squares, own.fma(own, squares.value));
  });
  const { factor, scale } = byteScale(k, largest.value);
  const place = k.let('place', word.rem(blockSize / 4));
  const packed = k.variable('packed', literal('u32', 0));
  for (let byte = 0; byte < 4; byte++) {
    // nibbles: words 0, 1 of eight values hold 0 2 4 6 and 1 3 5 7.
    const i =
      order === 'plain'
        ? place.mul(4).add(byte)
        : place
            .shr(1)
            .mul(8)
            .add(place.and(1))
            .add(2 * byte);
    k.set(packed, packed.value.or(roundedByte(scaled(i).mul(factor), byte)));
  }
  k.store(bytes, word, packed.value);
  k.if(place.eq(0), () => {
    k.store(blocks, word.div(blockSize / 4), vector(scale, squares.value));
  });
}

/** Threads that make a block together: each has four neighbouring numbers of it. */
export const threadsOfBlock = blockSize / 4;

/**
 * The same by the four threads of a block, which exchange what they have: neighbours in a subgroup, the first one's place
 * in it a multiple of four. A loop over 16 numbers in each thread takes four times as many steps.
 * @param values the four numbers of the word's place in the row-major value; for all of a block's threads at once
 */
export function storeQuantizedTogether(
  k: KernelBuilder,
  { bytes, blocks }: QuantizedArrays,
  order: ByteOrder,
  word: Expr,
  values: readonly Expr[],
  gains: readonly Expr[] | null,
): void {
  const scaled = values.map((value, i) => (gains ? k.let('scaled', value.mul(gains[i]!)) : value));
  const own = scaled.map((value) => value.abs()).reduce((held, value) => held.max(value));
  const largest = reduceNeighbours(k, 'max', threadsOfBlock, own);
  const ownSquares = values.map((value) => value.mul(value)).reduce((sum, value) => sum.add(value));
  const squares = reduceNeighbours(k, 'add', threadsOfBlock, ownSquares);
  const { factor, scale } = byteScale(k, largest);
  const byte = (i: number, index: number): Expr => roundedByte(scaled[i]!.mul(factor), index);
  let packed: Expr;
  if (order === 'plain') packed = [0, 1, 2, 3].map((i) => byte(i, i)).reduce((held, each) => held.or(each));
  else {
    // Of a pair of threads the first leaves the even ones of eight numbers, the second the odd ones.
    const even = k.let('even', byte(0, 0).or(byte(2, 1)));
    const odd = k.let('odd', byte(1, 0).or(byte(3, 1)));
    const isSecond = k.let('isSecond', word.and(1).ne(0));
    const given = k.let('given', isSecond.select(even, odd).subgroup('subgroupShuffleXor', 1));
    packed = isSecond.select(given.or(odd.shl(16)), even.or(given.shl(16)));
  }
  k.store(bytes, word, packed);
  k.if(word.rem(threadsOfBlock).eq(0), () => {
    k.store(blocks, word.div(threadsOfBlock), vector(scale, squares));
  });
}
