// lib/jit/targets/webgpu/repack.ts: kernels that change how a Weight's numbers lie: from the checkpoint's row-major bytes
// or from rows into rows or float32. One thread a word that is written.

import type { Granularity } from '../../../tensor.js';
import type { WeightFormat } from '../../graph.js';
import { type ArrayRef, buildKernel, type KernelBuilder } from '../../kernels/builder.js';
import { type Expr, literal, type Operand, operand } from '../../kernels/expression.js';
import type { Kernel } from '../../kernels/kernel.js';
import { type Packing, packedPerWord, unpackOne } from '../../kernels/unpack.js';
import { foldedWorkgroups } from './dispatch.js';
import type { MatrixLayout, WeightForm } from './layout.js';

const threads = 64;
const bitsOf: Readonly<Record<Packing, number>> = { f32: 32, f16: 16, bf16: 16, int8: 8, int4: 4 };

/** Where a matrix's numbers are read from. */
export interface Source {
  readonly format: WeightFormat;
  /** raw: row-major as in the checkpoint, from row `firstRow` on. */
  readonly form: 'raw' | Exclude<WeightForm, 'whole'>;
  readonly layout: MatrixLayout | null; // of a form in rows
}

/** Packing of a source's words. */
function sourcePacking({ format, layout }: Source): Packing {
  return layout ? layout.packing : format.kind === 'float' ? format.dtype : format.kind;
}

/** Where number (row, column) of the matrix stands: its word, and its place there. */
function addressOf({ format, form, layout }: Source, row: Expr, column: Expr): { word: Expr; place: Expr } {
  const perWord = packedPerWord[sourcePacking({ format, form, layout })];
  if (form === 'raw') {
    const linear = row.mul(format.shape[1]!).add(column);
    return { word: linear.div(perWord), place: linear.rem(perWord) };
  }
  const [own, at] = form === 'rows0' ? [row, column] : [column, row];
  return { word: own.mul(layout!.rowWords).add(at.div(perWord)), place: at.rem(perWord) };
}

/** Number of the scale of (row, column), as the source keeps its scales. */
function scaleIndex({ format, form, layout }: Source, row: Expr, column: Expr): Expr {
  if (form !== 'raw') {
    const { size, groups } = layout!.scales!;
    const [own, at] = form === 'rows0' ? [row, column] : [column, row];
    return own.mul(groups).add(at.div(size));
  }
  const { granularity, shape } = format as { granularity: Granularity; shape: readonly number[] };
  if (granularity.per === 'tensor') return literal('u32', 0);
  const size = granularity.per === 'group' ? granularity.size : Math.max(...shape, 1);
  if (granularity.axis === 1) return row.div(size).mul(shape[1]!).add(column);
  return row.mul(Math.ceil(shape[1]! / size)).add(column.div(size));
}

function globalIndex(k: KernelBuilder): Expr {
  const group = k.builtin('workgroupY').mul(foldedWorkgroups).add(k.builtin('workgroupX'));
  return k.let('index', group.mul(threads).add(k.localIndex));
}

/**
 * Rows of a layout from a source. Parameters: the number of words to write, the first row of the target's part, and what
 * of the matrix's axis 0 the source has: its first row and the row after its last.
 * @returns buffers: source words, source scales (if they are needed), target words
 */
export function repackKernel(
  source: Source,
  target: MatrixLayout,
  form: Exclude<WeightForm, 'whole'>,
): Kernel {
  return buildKernel({ name: 'repack', threads }, (k) => {
    const from = k.buffer('source', 'u32', 'read');
    const isDecoded = target.packing === 'f32' && sourcePacking(source) !== 'f32';
    const hasScales = isDecoded && source.format.kind !== 'float' && source.layout?.packing !== 'f32';
    const scales = hasScales ? k.buffer('scales', 'f32', 'read') : undefined;
    const to = k.buffer('target', 'u32', 'readWrite');
    const [words, firstRow, begin, end] = ['words', 'firstRow', 'begin', 'end'].map((name) =>
      k.parameter(name, 'u32'),
    ) as [Expr, Expr, Expr, Expr];
    // Words of the target are counted along the source's rows, so that a piece of the source fills whole words.
    const perWord = packedPerWord[target.packing];
    const index = globalIndex(k);
    k.if(index.ge(words), () => k.return());
    const isStraight = form === 'rows0';
    // The last piece fills the row up.
    const left = literal('u32', target.rowWords).sub(begin.div(perWord));
    const pieceWords = isStraight
      ? literal('u32', target.rowWords)
      : k.let('pieceWords', end.ge(target.width).select(left, end.sub(begin).div(perWord)));
    const own = k.let('own', index.div(pieceWords));
    const inRow = k.let('inRow', index.rem(pieceWords));
    const word = isStraight ? inRow : k.let('word', inRow.add(begin.div(perWord)));
    const feature = isStraight ? k.let('feature', own.add(begin)) : k.let('feature', own.add(firstRow));
    const packed = k.variable('packed', literal('u32', 0));
    for (let j = 0; j < perWord; j++) {
      const input = k.let('input', word.mul(perWord).add(j));
      const [row, column] = isStraight ? [feature, input] : [input, feature];
      const shift = j * bitsOf[target.packing];
      const put = (bits: Expr): void => k.set(packed, packed.value.or(shift === 0 ? bits : bits.shl(shift)));
      k.if(
        input.lt(target.width),
        () => {
          const local = row.sub(begin);
          const bits = isDecoded
            ? decoded(k, source, from, scales, row, local, column).bits('u32')
            : rawBits(k, source, from, local, column);
          put(bits);
        },
        () => put(literal('u32', target.packing === 'int4' ? 8 : 0)),
      );
    }
    const place = isStraight ? own.add(begin).sub(firstRow) : own;
    k.store(to, place.mul(target.rowWords).add(word), packed.value);
  });
}

/** Bits of a number, in the lowest ones of a word. */
function rawBits(k: KernelBuilder, source: Source, from: ArrayRef, row: Expr, column: Expr): Expr {
  const bits = bitsOf[sourcePacking(source)];
  const { word, place } = addressOf(source, row, column);
  const packed = from.at(word);
  if (bits === 32) return k.let('bits', packed);
  return k.let('bits', packed.shr(place.mul(bits)).and(2 ** bits - 1));
}

/** A number as f32, times its scale. `row` counts in the matrix, `local` in what of it the source has. */
function decoded(
  k: KernelBuilder,
  source: Source,
  from: ArrayRef,
  scales: ArrayRef | undefined,
  row: Expr,
  local: Operand,
  column: Expr,
): Expr {
  const { word, place } = addressOf(source, operand(local, 'u32'), column);
  const value = k.let('value', unpackOne(sourcePacking(source), from.at(word), place));
  return scales ? value.mul(scales.at(scaleIndex(source, row, column))) : value;
}

/** All values as f32, row-major. Parameters: how many. Buffers: source words, source scales (of integers), values. */
export function wholeKernel(source: Source, columns: number): Kernel {
  return buildKernel({ name: 'decodeWhole', threads }, (k) => {
    const from = k.buffer('source', 'u32', 'read');
    const hasScales = source.format.kind !== 'float' && source.layout?.packing !== 'f32';
    const scales = hasScales ? k.buffer('scales', 'f32', 'read') : undefined;
    const to = k.buffer('target', 'f32', 'readWrite');
    const count = k.parameter('count', 'u32');
    const index = globalIndex(k);
    k.if(index.ge(count), () => k.return());
    const [row, column] = [k.let('row', index.div(columns)), k.let('column', index.rem(columns))];
    k.store(to, index, decoded(k, source, from, scales, row, row, column));
  });
}
