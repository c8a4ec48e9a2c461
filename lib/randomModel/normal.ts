// lib/randomModel/normal.ts: seeded normal numbers, the same on every machine, some 300 million a second.
// A 16-bit random number picks one of 65,536 quantiles of the normal distribution. The table takes only + - * / and
// sqrt, which IEEE 754 fixes to the bit; Math.log and Math.cos may differ between engines.
// Source: P. J. Acklam's rational approximation of the normal quantile (relative error 1.15e-9); G. Marsaglia,
// Xorshift RNGs, 2003; Fowler-Noll-Vo hash 1a.

import type { FloatDType } from '../tensor.js';

const quantileCount = 65536;
let quantileTable: Float32Array | undefined;

/** Quantiles of the standard normal distribution at (i + 0.5) / 65536: mean 0, standard deviation 1. */
export function normalQuantiles(): Float32Array {
  quantileTable ??= Float32Array.from({ length: quantileCount }, (_, i) =>
    normalQuantile((i + 0.5) / quantileCount),
  );
  return quantileTable;
}

/**
 * Endless stream of normal numbers as the bits of a stored type.
 * @param name each name has its own stream, so that tensors do not depend on their order
 * @returns a function that fills an array of 16-bit (f16, bf16) or 32-bit (f32) elements
 */
export function normalStream(
  seed: number,
  name: string,
  deviation: number,
  dtype: FloatDType,
): (elements: Uint16Array | Uint32Array) => void {
  const values = normalQuantiles().map((value) => value * deviation);
  const table = floatBits(values, dtype);
  let [x, y, z, w] = seedWords(`${seed}:${name}`);
  return (elements) => {
    for (let i = 0; i < elements.length; i += 2) {
      const t = x ^ (x << 11);
      x = y;
      y = z;
      z = w;
      w = w ^ (w >>> 19) ^ t ^ (t >>> 8);
      elements[i] = table[w & 65535]!;
      elements[i + 1] = table[w >>> 16]!; // past the end of an odd array: ignored
    }
  };
}

/** Bits of float32 numbers in a stored type, rounded to the nearest, ties to even. */
export function floatBits(values: Float32Array, dtype: FloatDType): Uint16Array | Uint32Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  if (dtype === 'f32') return bits;
  const toHalf = dtype === 'f16' ? float16Bits : bfloat16Bits;
  return Uint16Array.from(bits, toHalf);
}

function bfloat16Bits(bits: number): number {
  const isNotANumber = (bits & 0x7fffffff) >>> 0 > 0x7f800000;
  if (isNotANumber) return (bits >>> 16) | 64;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function float16Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 255) - 112;
  const fraction = bits & 0x7fffff;
  if (exponent >= 31) {
    const isNotANumber = exponent === 143 && fraction !== 0;
    return sign | 0x7c00 | (isNotANumber ? 0x200 : 0);
  }
  if (exponent < -10) return sign;
  // A subnormal's leading bit is written out, and everything moves right.
  const whole = exponent > 0 ? (exponent << 23) | fraction : fraction | 0x800000;
  const shift = exponent > 0 ? 13 : 14 - exponent;
  const half = whole >>> shift;
  const rest = whole & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return sign | (half + (rest > tie || (rest === tie && (half & 1) === 1) ? 1 : 0));
}

function seedWords(text: string): [number, number, number, number] {
  const words: number[] = [];
  for (const salt of ['a', 'b', 'c', 'd']) {
    let hash = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(salt + text)) hash = Math.imul(hash ^ byte, 0x01000193);
    words.push(hash | 1);
  }
  return words as [number, number, number, number];
}

function normalQuantile(p: number): number {
  if (p > 0.5) return -normalQuantile(1 - p);
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * naturalLog(p));
    return polynomial(tailNumerator, q) / (polynomial(tailDenominator, q) * q + 1);
  }
  const q = p - 0.5;
  const r = q * q;
  return (polynomial(numerator, r) * q) / (polynomial(denominator, r) * r + 1);
}

function polynomial(coefficients: readonly number[], x: number): number {
  return coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0);
}

/** ln(x) for 0 < x < 1: halvings give ln 2 each, the rest is 2 artanh((x - 1) / (x + 1)). */
function naturalLog(x: number): number {
  let halvings = 0;
  for (; x < 0.75; x *= 2) halvings++;
  const y = (x - 1) / (x + 1);
  let [sum, power] = [0, y];
  for (let k = 1; k < 30; k += 2, power *= y * y) sum += power / k;
  return 2 * sum - halvings * Math.LN2;
}

const numerator = [
  -3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2, -3.066479806614716e1,
  2.506628277459239,
];
const denominator = [
  -5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1,
];
const tailNumerator = [
  -7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968,
  2.938163982698783,
];
const tailDenominator = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
