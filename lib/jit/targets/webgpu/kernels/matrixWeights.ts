// lib/jit/targets/webgpu/kernels/matrixWeights.ts: 16 bytes of a Weight's row -> the numbers as matrix units read them:
// float16, or signed bytes as they are. Halves of integers come out in another order (halvesOrder), which costs least to
// make; the other side of the product has to lie in the same order.

import type { KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import type { Packing } from '../../../kernels/unpack.js';
import { unpackWord } from '../../../kernels/unpack.js';
import { perVector } from './dots.js';

/** Numbers with a group's scale are made so many times as large, so that small ones keep float16's precision. */
export const groupFactor = 1024;

/** Order of eight numbers in a vector of halves. */
export function halvesOrder(packing: Packing, f16: boolean): readonly number[] {
  if (f16 && packing === 'int8') return [0, 2, 1, 3, 4, 6, 5, 7];
  if (f16 && packing === 'int4') return [0, 4, 1, 5, 2, 6, 3, 7];
  return [0, 1, 2, 3, 4, 5, 6, 7];
}

/** Vectors that one vector of a Weight's row becomes. */
export function vectorsOf(kind: MatrixKind, packing: Packing): number {
  return kind === 'bytes' ? 1 : perVector(packing) / 8;
}

/**
 * @param word u32x4 of a row
 * @param factor the group's scale; null: none, or one for the whole row, which comes last
 * @returns u32x4 each, in halvesOrder
 */
export function unpackedVectors(
  k: KernelBuilder,
  { kind, packing, f16 }: { readonly kind: MatrixKind; readonly packing: Packing; readonly f16: boolean },
  word: Expr,
  factor: Expr | null,
): Expr[] {
  if (kind === 'bytes' || packing === 'f16') return [word];
  const scale = factor && k.let('scale', factor.mul(groupFactor));
  const words = [0, 1, 2, 3].map((lane) => word.lane(lane));
  const isInteger = packing === 'int8' || packing === 'int4';
  const pairs = words.flatMap((each) =>
    f16 && isInteger ? integerPairs(k, packing, each, scale) : floatPairs(packing, each, scale),
  );
  return Array.from({ length: pairs.length / 4 }, (_, i) => vector(...pairs.slice(4 * i, 4 * i + 4)));
}

/** Pairs of float16, by way of float32. */
function floatPairs(packing: Packing, word: Expr, scale: Expr | null): Expr[] {
  const numbers = unpackWord(packing, word).map((number) => (scale ? number.mul(scale) : number));
  return Array.from({ length: numbers.length / 2 }, (_, i) =>
    vector(numbers[2 * i]!, numbers[2 * i + 1]!).packHalves(),
  );
}

/**
 * Pairs of float16 without a conversion: an integer below 1,024 in the last bits of 1,024's own float16 is 1,024 more.
 * A pair is what one mask leaves: bytes 0 and 2, or half-bytes 0 and 4.
 * Source: Kim et al. 2022, "Who Says Elephants Can't Run", arXiv:2211.10017.
 */
function integerPairs(k: KernelBuilder, packing: 'int8' | 'int4', word: Expr, scale: Expr | null): Expr[] {
  const [bits, mask, offset] = packing === 'int8' ? [8, 0x00ff00ff, 1024 + 128] : [4, 0x000f000f, 1024 + 8];
  // int4 is stored plus 8; int8 becomes its number plus 128 by its sign bit.
  const thousand = packing === 'int8' ? 0x64806480 : 0x64006400;
  return Array.from({ length: 16 / bits }, (_, i) => {
    const raised = k.let('raised', word.shr(bits * i).and(mask).xor(thousand)); // biome-ignore format: short
    const halves = raised.bits('f16x2').sub(literal('f16x2', offset));
    return (scale ? halves.mul(splat(scale.to('f16'), 2)) : halves).bits('u32');
  });
}
