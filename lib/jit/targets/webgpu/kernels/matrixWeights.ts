// lib/jit/targets/webgpu/kernels/matrixWeights.ts: 16 bytes of a Weight's row -> the numbers as matrix units read them:
// float16, or signed bytes as they are.

import type { KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import type { Packing } from '../../../kernels/unpack.js';
import { unpackWord } from '../../../kernels/unpack.js';
import { perVector } from './dots.js';

/** Numbers with a group's scale are made so many times as large, so that small ones keep float16's precision. */
export const groupFactor = 1024;

/** Vectors that one vector of a Weight's row becomes. */
export function vectorsOf(kind: MatrixKind, packing: Packing): number {
  return kind === 'bytes' ? 1 : perVector(packing) / 8;
}

/**
 * @param word u32x4 of a row
 * @param factor the group's scale; null: none, or one for the whole row, which comes last
 * @returns u32x4 each, numbers in order
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
 * Source: Kim et al. 2022, "Who Says Elephants Can't Run", arXiv:2211.10017.
 */
function integerPairs(k: KernelBuilder, packing: 'int8' | 'int4', word: Expr, scale: Expr | null): Expr[] {
  const [bits, mask, offset] = packing === 'int8' ? [8, 0xff, 1024 + 128] : [4, 0xf, 1024 + 8];
  // int4 is stored plus 8; int8 becomes so by its sign bit.
  const raised = packing === 'int8' ? k.let('raised', word.xor(0x80808080)) : word;
  return Array.from({ length: 16 / bits }, (_, i) => {
    const pair = k.let('pair', raised.shr(2 * bits * i));
    const spread = pair.and(mask).or(pair.and(mask << bits).shl(16 - bits));
    const halves = spread.or(0x64006400).bits('f16x2').sub(literal('f16x2', offset));
    return (scale ? halves.mul(splat(scale.to('f16'), 2)) : halves).bits('u32');
  });
}
