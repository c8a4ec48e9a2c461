// lib/jit/targets/webgpu/repack.ts: kernels that change how a matrix's numbers lie: from the checkpoint's row-major bytes
// into rows of words, from rows along one axis into rows along the other, and into float32. One thread a number or word
// that is written.

import type { WeightFormat } from '../../graph.js';
import { type ArrayRef, buildKernel, type KernelBuilder } from '../../kernels/builder.js';
import { type Expr, literal } from '../../kernels/expression.js';
import type { Kernel } from '../../kernels/kernel.js';
import { type Packing, packedPerWord, unpackOne } from '../../kernels/unpack.js';
import { foldedWorkgroups } from './dispatch.js';
import type { MatrixLayout, RowForm } from './layout.js';

const threads = 64;
const bitsOf: Readonly<Record<Packing, number>> = { f32: 32, f16: 16, bf16: 16, int8: 8, int4: 4 };

function globalIndex(k: KernelBuilder): Expr {
  const group = k.builtin('workgroupY').mul(foldedWorkgroups).add(k.builtin('workgroupX'));
  return k.let('index', group.mul(threads).add(k.localIndex));
}

/** Puts a word together of numbers that have the target's packing; what a row has too little is filled up. */
function packWord(
  k: KernelBuilder,
  { packing, width }: MatrixLayout,
  word: Expr,
  bitsAt: (input: Expr) => Expr,
): Expr {
  const packed = k.variable('packed', literal('u32', 0));
  for (let j = 0; j < packedPerWord[packing]; j++) {
    const input = k.let('input', word.mul(packedPerWord[packing]).add(j));
    const shift = j * bitsOf[packing];
    const put = (bits: Expr): void => k.set(packed, packed.value.or(shift === 0 ? bits : bits.shl(shift)));
    k.if(
      input.lt(width),
      () => put(bitsAt(input)),
      () => put(literal('u32', packing === 'int4' ? 8 : 0)), // int4 is stored plus 8
    );
  }
  return packed.value;
}

/** Number `place` of a word, in the lowest bits. */
function bitsIn(k: KernelBuilder, packing: Packing, word: Expr, place: Expr): Expr {
  const bits = bitsOf[packing];
  return k.let('bits', bits === 32 ? word : word.shr(place.mul(bits)).and(2 ** bits - 1));
}

/**
 * Rows of a layout from a piece of row-major bytes. Buffers: bytes, target. Parameters: words to write, the first row of
 * the target's part, the matrix's row that the piece begins with, and the one after its last; a multiple of 8 begins it.
 */
export function repackKernel(format: WeightFormat, target: MatrixLayout, form: RowForm): Kernel {
  return buildKernel({ name: `repack ${form}`, threads }, (k) => {
    const from = k.buffer('source', 'u32', 'read');
    const to = k.buffer('target', 'u32', 'readWrite');
    const [words, firstRow, begin, end] = parameters(k, 'words', 'firstRow', 'begin', 'end');
    const index = globalIndex(k);
    k.if(index.ge(words), () => k.return());
    const perWord = packedPerWord[target.packing];
    const columns = format.shape[1]!;
    const bitsAt = (row: Expr, column: Expr): Expr => {
      const linear = k.let('linear', row.sub(begin).mul(columns).add(column));
      return bitsIn(k, target.packing, from.at(linear.div(perWord)), linear.rem(perWord));
    };
    if (form === 'rows0') {
      const own = k.let('own', index.div(target.rowWords).add(begin));
      const word = k.let('word', index.rem(target.rowWords));
      const packed = packWord(k, target, word, (input) => bitsAt(own, input));
      k.store(to, own.sub(firstRow).mul(target.rowWords).add(word), packed);
      return;
    }
    // The last piece fills the row up.
    const before = k.let('before', begin.div(perWord));
    const left = literal('u32', target.rowWords).sub(before);
    const pieceWords = k.let('pieceWords', end.ge(target.width).select(left, end.sub(begin).div(perWord)));
    const own = k.let('own', index.div(pieceWords));
    const word = k.let('word', index.rem(pieceWords).add(before));
    const packed = packWord(k, target, word, (input) => bitsAt(input, own.add(firstRow)));
    k.store(to, own.mul(target.rowWords).add(word), packed);
  });
}

/** True if numbers have to be decoded on the way. */
export function isDecoded(source: MatrixLayout, target: MatrixLayout): boolean {
  return source.packing !== target.packing;
}

/**
 * Rows along the other axis. Buffers: a part of the source, its scales if numbers are decoded and have some, a part of the
 * target. Parameters: words of the target's part, its first row, the source part's first row, and the one after its last.
 */
export function turnKernel(source: MatrixLayout, target: MatrixLayout): Kernel {
  return buildKernel({ name: 'turn', threads }, (k) => {
    const from = k.buffer('source', 'u32', 'read');
    const scales = isDecoded(source, target) && source.scales ? k.buffer('scales', 'f32', 'read') : undefined;
    const to = k.buffer('target', 'u32', 'readWrite');
    const [words, firstRow, begin, end] = parameters(k, 'words', 'firstRow', 'begin', 'end');
    const index = globalIndex(k);
    k.if(index.ge(words), () => k.return());
    const feature = k.let('feature', index.div(target.rowWords).add(firstRow));
    const word = k.let('word', index.rem(target.rowWords));
    // A word's numbers all lie in one part of the source, which has a multiple of 8 rows.
    const input = word.mul(packedPerWord[target.packing]);
    const isHere = input.ge(begin).and(input.lt(end).or(end.ge(target.width)));
    k.if(isHere.not(), () => k.return());
    const packed = packWord(k, target, word, (row) => {
      const own = k.let('own', row.sub(begin));
      if (isDecoded(source, target)) return numberAt(k, source, from, scales, own, feature).bits('u32');
      const perWord = packedPerWord[source.packing];
      const at = from.at(own.mul(source.rowWords).add(feature.div(perWord)));
      return bitsIn(k, source.packing, at, feature.rem(perWord));
    });
    k.store(to, index, packed);
  });
}

/** Number `at` of row `own` of a part, as f32 times its scale. */
function numberAt(
  k: KernelBuilder,
  { packing, rowWords, scales: scaling }: MatrixLayout,
  from: ArrayRef,
  scales: ArrayRef | undefined,
  own: Expr,
  at: Expr,
): Expr {
  const perWord = packedPerWord[packing];
  const word = from.at(own.mul(rowWords).add(at.div(perWord)));
  const value = k.let('value', unpackOne(packing, word, at.rem(perWord)));
  if (!scales || !scaling) return value;
  return value.mul(scales.at(own.mul(scaling.groups).add(at.div(scaling.size))));
}

/**
 * A part's numbers as f32, where they stand in the row-major matrix. Buffers: the part, its scales if it has some, all
 * numbers. Parameters: numbers of the part, its first row.
 */
export function wholeKernel(source: MatrixLayout, form: RowForm, columns: number): Kernel {
  return buildKernel({ name: `decode ${form}`, threads }, (k) => {
    const from = k.buffer('source', 'u32', 'read');
    const scales = source.scales ? k.buffer('scales', 'f32', 'read') : undefined;
    const to = k.buffer('target', 'f32', 'readWrite');
    const [count, firstRow] = parameters(k, 'count', 'firstRow');
    const index = globalIndex(k);
    k.if(index.ge(count), () => k.return());
    const own = k.let('own', index.div(source.width));
    const at = k.let('at', index.rem(source.width));
    const row = own.add(firstRow);
    const place = form === 'rows0' ? row.mul(columns).add(at) : at.mul(columns).add(row);
    k.store(to, place, numberAt(k, source, from, scales, own, at));
  });
}

function parameters<Names extends readonly string[]>(
  k: KernelBuilder,
  ...names: Names
): { readonly [I in keyof Names]: Expr } {
  // One for each name, in order.
  return names.map((name) => k.parameter(name, 'u32')) as unknown as { readonly [I in keyof Names]: Expr };
}
