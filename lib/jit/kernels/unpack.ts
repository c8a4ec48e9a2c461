// lib/jit/kernels/unpack.ts: numbers out of the words that Weights are stored in: float32, float16, bfloat16, int8, int4.

import { type Expr, literal, type Operand, vector } from './expression.js';

/** How numbers lie in 32-bit words, the first in the lowest bits. int4 is stored plus 8. */
export type Packing = 'f32' | 'f16' | 'bf16' | 'int8' | 'int4';

/** Numbers in a word. */
export const packedPerWord: Readonly<Record<Packing, number>> = { f32: 1, f16: 2, bf16: 2, int8: 4, int4: 8 };

/** Number `index` of those in a word, as f32; `index` may be known only when the kernel runs. */
export function unpackOne(packing: Packing, word: Expr, index: Operand): Expr {
  const bits = (width: number): Expr =>
    typeof index === 'number' ? literal('u32', index * width) : index.mul(width);
  switch (packing) {
    case 'f32':
      return word.bits('f32');
    case 'f16':
      return word.shr(bits(16)).and(0xffff).halves().lane(0);
    case 'bf16':
      return word.shr(bits(16)).shl(16).bits('f32');
    case 'int8':
      return signedByte(word, index).to('f32');
    case 'int4':
      return word.shr(bits(4)).and(15).to('i32').sub(8).to('f32');
  }
}

/** Byte `index` of a word as i32, with its sign. */
export function signedByte(word: Expr, index: Operand): Expr {
  const place =
    typeof index === 'number' ? literal('u32', 24 - 8 * index) : literal('u32', 24).sub(index.mul(8));
  return word.bits('i32').shl(place).shr(24);
}

/** All numbers of a word as f32, in order. */
export function unpackWord(packing: Packing, word: Expr): Expr[] {
  if (packing === 'f16') {
    const pair = word.halves();
    return [pair.lane(0), pair.lane(1)];
  }
  if (packing === 'bf16') return [word.shl(16).bits('f32'), word.and(0xffff0000).bits('f32')];
  return Array.from({ length: packedPerWord[packing] }, (_, i) => unpackOne(packing, word, i));
}

/** The four signed bytes of a word as f32x4. */
export function unpackBytes(word: Expr): Expr {
  return vector(...[0, 1, 2, 3].map((i) => signedByte(word, i))).to('f32');
}

/** dot4I8 without the instruction. */
export function plainDot4I8(a: Expr, b: Expr): Expr {
  const products = [0, 1, 2, 3].map((i) => signedByte(a, i).mul(signedByte(b, i)));
  return products.reduce((sum, product) => sum.add(product));
}

/** An f32 of -127 to 127 as byte `index` of a word, rounded; the other bytes are 0. */
export function roundedByte(value: Expr, index: number): Expr {
  const byte = value.round().to('i32').bits('u32').and(255); // biome-ignore format: short
  return byte.shl(8 * index);
}
