// lib/jit/targets/webgpu/kernels/activations.ts: how a product's input lies in memory, and how what makes it leaves it
// so: float32; or integers in blocks of 16 with a float32 scale and the sum of the block's squares beside it, each of one
// signed byte or of three, which together have as many bits as float32. A consumer multiplies bytes four at a time
// (dot4I8), and a norm's root comes out of the sums of squares.
// Source: block-wise quantization of activations as in Dettmers et al. 2022, arXiv:2208.07339, with smaller blocks.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, vector } from '../../../kernels/expression.js';
import { reduceNeighbours } from '../../../kernels/reduce.js';

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

/**
 * Signed bytes that an integer consists of, each 256 of the next: one (`fast`), or three (`exact`): 24 bits for the
 * largest of a block, and an error of at most as much for the others.
 */
export type Limbs = 1 | 3;

/** How a value's integers lie: of each block the first bytes of all 16 numbers, then the second ones, then the third. */
export interface ByteForm {
  readonly order: ByteOrder;
  readonly limbs: Limbs;
}

/** The largest integer. Three bytes could hold 127 more, which leaves room for a product that is rounded up. */
const largestInteger: Readonly<Record<Limbs, number>> = { 1: 127, 3: 127 * (256 ** 2 + 256) };

/** What numbers up to `largest` are multiplied by to become integers, and what their first byte is multiplied by after. */
export function byteScale(
  k: KernelBuilder,
  largest: Expr,
  limbs: Limbs = 1,
): { readonly factor: Expr; readonly scale: Expr } {
  const most = largestInteger[limbs];
  const factor = k.let('factor', largest.gt(0).select(literal('f32', most).div(largest), 0));
  return { factor, scale: largest.mul(256 ** (limbs - 1) / most) };
}

/** Bytes of a quantized value of so many elements, its blocks after them. */
export function quantizedBytes(
  elements: number,
  limbs: Limbs,
): { readonly bytes: number; readonly blocks: number } {
  return { bytes: elements * limbs, blocks: (elements / blockSize) * 8 };
}

/** The bytes of a number's whole part, each an i32, the first one first. */
function limbsOf(k: KernelBuilder, number: Expr, limbs: Limbs): Expr[] {
  let rest = k.let('whole', number.round().to('i32'));
  const found: Expr[] = [];
  for (let i = limbs; i > 1; i--) {
    const low = k.let('low', rest.shl(24).shr(24));
    found.unshift(low);
    rest = k.let('rest', rest.sub(low).shr(8));
  }
  return [rest, ...found];
}

/** The last eight bits of an i32 as byte `index` of a word. */
const byteAt = (number: Expr, index: number): Expr =>
  number
    .bits('u32')
    .and(255)
    .shl(8 * index);

/** Word of the bytes where limb `limb` of row-major word `word` is. */
function limbWord(word: Expr, { limbs }: ByteForm, limb: number): Expr {
  if (limbs === 1) return word;
  return word.div(threadsOfBlock).mul(limbs).add(limb).mul(threadsOfBlock).add(word.rem(threadsOfBlock)); // biome-ignore format: short
}

/**
 * Writes word `word` (of its row-major value) and, with a block's first word, the block's scale and sum of squares.
 * @param values the 16 numbers of the word's block as they are; their squares are summed
 * @param gains what each is multiplied by before it is rounded; null: 1
 */
export function storeQuantized(
  k: KernelBuilder,
  { bytes, blocks }: QuantizedArrays,
  form: ByteForm,
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
  const { factor, scale } = byteScale(k, largest.value, form.limbs);
  const place = k.let('place', word.rem(blockSize / 4));
  const packed = Array.from({ length: form.limbs }, () => k.variable('packed', literal('u32', 0)));
  for (let byte = 0; byte < 4; byte++) {
    // nibbles: words 0, 1 of eight values hold 0 2 4 6 and 1 3 5 7.
    const i =
      form.order === 'plain'
        ? place.mul(4).add(byte)
        : place
            .shr(1)
            .mul(8)
            .add(place.and(1))
            .add(2 * byte);
    limbsOf(k, scaled(i).mul(factor), form.limbs).forEach((limb, l) => {
      k.set(packed[l]!, packed[l]!.value.or(byteAt(limb, byte)));
    });
  }
  for (const [l, { value }] of packed.entries()) k.store(bytes, limbWord(word, form, l), value);
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
  form: ByteForm,
  word: Expr,
  values: readonly Expr[],
  gains: readonly Expr[] | null,
): void {
  const scaled = values.map((value, i) => (gains ? k.let('scaled', value.mul(gains[i]!)) : value));
  const own = scaled.map((value) => value.abs()).reduce((held, value) => held.max(value));
  const largest = reduceNeighbours(k, 'max', threadsOfBlock, own);
  const ownSquares = values.map((value) => value.mul(value)).reduce((sum, value) => sum.add(value));
  const squares = reduceNeighbours(k, 'add', threadsOfBlock, ownSquares);
  const { factor, scale } = byteScale(k, largest, form.limbs);
  const numbers = scaled.map((value) => limbsOf(k, value.mul(factor), form.limbs));
  const isSecond = form.order === 'plain' ? null : k.let('isSecond', word.and(1).ne(0));
  for (let l = 0; l < form.limbs; l++) {
    const byte = (i: number, index: number): Expr => byteAt(numbers[i]![l]!, index);
    let packed: Expr;
    if (!isSecond) packed = [0, 1, 2, 3].map((i) => byte(i, i)).reduce((held, each) => held.or(each));
    else {
      // Of a pair of threads the first leaves the even ones of eight numbers, the second the odd ones.
      const even = k.let('even', byte(0, 0).or(byte(2, 1)));
      const odd = k.let('odd', byte(1, 0).or(byte(3, 1)));
      const given = k.let('given', isSecond.select(even, odd).subgroup('subgroupShuffleXor', 1));
      packed = isSecond.select(given.or(odd.shl(16)), even.or(given.shl(16)));
    }
    k.store(bytes, limbWord(word, form, l), packed);
  }
  k.if(word.rem(threadsOfBlock).eq(0), () => {
    k.store(blocks, word.div(threadsOfBlock), vector(scale, squares));
  });
}
