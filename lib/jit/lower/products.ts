// lib/jit/lower/products.ts: tfjs's matrix products and the kernels of ops.ts and cache.ts -> BatchMatMul, Linear,
// attention.

import type { _FusedMatMulAttrs, BatchMatMulAttrs, EinsumAttrs } from '@tensorflow/tfjs-core';
import type { Weight } from '../../tensor.js';
import { sizeOf } from '../../tensor.js';
import type { GraphBuilder } from '../build.js';
import type { Value } from '../graph.js';
import { plainEpilogue } from '../graph.js';
import { activate } from './elementwise.js';
import type { LoweringTable } from './lowering.js';
import { lowering, upcast } from './lowering.js';

/** Product of matrices; integers are multiplied and summed one by one, which stays exact. */
function matMul(b: GraphBuilder, left: Value, right: Value, transposeA: boolean, transposeB: boolean): Value {
  const dtype = upcast(left.dtype, right.dtype);
  if (dtype === 'f32') {
    const attrs = { transposeA, transposeB, epilogue: plainEpilogue(0) };
    return b.add('BatchMatMul', [b.cast(left, 'f32'), b.cast(right, 'f32')], attrs)[0]!;
  }
  const rows = transposeA ? swapLast(b, left) : left; // [..., m, k]
  const columns = transposeB ? right : swapLast(b, right); // [..., n, k]
  const spread = b.binary(
    'Mul',
    b.reshape(b.cast(rows, 'i32'), rows.shape.toSpliced(-1, 0, 1)),
    b.reshape(b.cast(columns, 'i32'), columns.shape.toSpliced(-2, 0, 1)),
  ); // [..., m, n, k]
  return b.reduce('Sum', spread, [spread.shape.length - 1]);
}

function swapLast(b: GraphBuilder, x: Value): Value {
  const axes = x.shape.map((_, axis) => axis);
  return b.transpose(x, [...axes.slice(0, -2), axes.length - 1, axes.length - 2]);
}

/** A term of an einsum: a value and a letter for each of its axes. */
interface Term {
  readonly value: Value;
  readonly letters: string;
}

/** Sums a term over the letters that nothing else needs. */
function sumOut(b: GraphBuilder, { value, letters }: Term, needed: string): Term {
  const axes = [...letters].flatMap((letter, axis) => (needed.includes(letter) ? [] : [axis]));
  const kept = [...letters].filter((letter) => needed.includes(letter)).join('');
  return { value: b.reduce('Sum', value, axes), letters: kept };
}

/** Brings a term's axes into the order of `letters`. */
function ordered(b: GraphBuilder, term: Term, letters: string): Value {
  return b.transpose(
    term.value,
    [...letters].map((letter) => term.letters.indexOf(letter)),
  );
}

/** Multiplies two terms as a batched matrix product: shared letters that stay are batch, those that go are summed. */
function contract(b: GraphBuilder, left: Term, right: Term, needed: string): Term {
  const l = sumOut(b, left, needed + right.letters);
  const r = sumOut(b, right, needed + left.letters);
  const shared = [...l.letters].filter((letter) => r.letters.includes(letter));
  const batch = shared.filter((letter) => needed.includes(letter)).join('');
  const inner = shared.filter((letter) => !needed.includes(letter)).join('');
  const rows = [...l.letters].filter((letter) => !shared.includes(letter)).join('');
  const columns = [...r.letters].filter((letter) => !shared.includes(letter)).join('');
  const sizeIn = (term: Term) => (letter: string) => term.value.shape[term.letters.indexOf(letter)]!;
  const shapeOf = (letters: string, term: Term): number[] => [...letters].map(sizeIn(term));
  const [batchShape, rowShape, columnShape] = [shapeOf(batch, l), shapeOf(rows, l), shapeOf(columns, r)];
  const depth = sizeOf(shapeOf(inner, l));
  const a = b.reshape(ordered(b, l, batch + rows + inner), [sizeOf(batchShape), sizeOf(rowShape), depth]);
  const c = b.reshape(ordered(b, r, batch + inner + columns), [
    sizeOf(batchShape),
    depth,
    sizeOf(columnShape),
  ]);
  const product = matMul(b, a, c, false, false);
  return {
    value: b.reshape(product, [...batchShape, ...rowShape, ...columnShape]),
    letters: batch + rows + columns,
  };
}

function einsum(b: GraphBuilder, operands: readonly Value[], equation: string): Value {
  const [inputs, output] = equation.replaceAll(' ', '').split('->') as [string, string];
  const terms = inputs.split(',').map((letters, i): Term => ({ value: operands[i]!, letters }));
  const repeated = terms.find(({ letters }) => new Set(letters).size < letters.length);
  if (repeated)
    throw new RangeError(`expected each axis once in a term, received ${repeated.letters} in ${equation}`);
  const folded = terms.reduce((left, right, i) => {
    const later = terms
      .slice(i + 1)
      .map((term) => term.letters)
      .join('');
    return contract(b, left, right, output + later);
  });
  return ordered(b, sumOut(b, folded, output), output);
}

export const products: LoweringTable = {
  BatchMatMul: lowering<BatchMatMulAttrs>((b, { a, b: other }, { transposeA, transposeB }) => {
    return matMul(b, a, other, transposeA, transposeB);
  }),
  _FusedMatMul: lowering<_FusedMatMulAttrs & { leakyreluAlpha?: number }>((b, inputs, attrs) => {
    const { a, b: other, bias, preluActivationWeights } = inputs;
    const product = matMul(b, a, other, attrs.transposeA, attrs.transposeB);
    const biased = bias ? b.binary('Add', product, bias) : product;
    return activate(b, biased, attrs.activation, attrs.leakyreluAlpha, preluActivationWeights);
  }),
  Einsum: lowering<EinsumAttrs>((b, { all }, { equation }) => einsum(b, all, equation)),
  Linear: lowering<{ weight: Weight; transposed: boolean }>((b, { x }, { weight, transposed }) => {
    const product = { weight: b.weightIndex(weight), transposed, columns: null };
    const width = weight.shape[transposed ? 0 : 1]!;
    const type = { dtype: 'f32', shape: [...x.shape.slice(0, -1), width] } as const;
    return b.add('Linear', [x], { products: [product], epilogues: [plainEpilogue(0)] }, [type])[0]!;
  }),
  Embed: lowering<{ weight: Weight }>((b, { indices }, { weight }) => {
    const type = { dtype: 'f32', shape: [...indices.shape, weight.shape[1]!] } as const;
    return b.add('Embed', [b.cast(indices, 'i32')], { weight: b.weightIndex(weight) }, [type])[0]!;
  }),
  WeightTensor: lowering<{ weight: Weight }>((b, _, { weight }) => {
    const type = { dtype: 'f32', shape: weight.shape } as const;
    return b.add('WeightTensor', [], { weight: b.weightIndex(weight) }, [type])[0]!;
  }),
  Rotary: lowering<{ inverseFrequencies: readonly number[]; scale: number }>((b, { x, positions }, attrs) => {
    const { inverseFrequencies, scale } = attrs;
    return b.add('Rotary', [x, positions], { inverseFrequencies, scale, layout: 'halves' })[0]!;
  }),
  CacheAppend: lowering((b, { cache, update, start, count }) => {
    return b.add('CacheAppend', [cache, update, start, count], {})[0]!;
  }),
  CachedAttention: lowering<{ scale: number; window: number | null }>((b, inputs, { scale, window }) => {
    const { q, keys, values, start, count } = inputs;
    return b.add('CachedAttention', [q, keys, values, start, count], { scale, window })[0]!;
  }),
};
