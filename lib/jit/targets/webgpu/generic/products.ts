// lib/jit/targets/webgpu/generic/products.ts: matrix products with what is done to their elements, and Embed. A workgroup
// an output feature for a few rows; the sums of its threads are added at the end.

import { sizeOf } from '../../../../tensor.js';
import type { Epilogue, LinearProduct, StructuredNode } from '../../../graph.js';
import { broadcastView } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import { type Expr, literal } from '../../../kernels/expression.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import { storedElement, writeProgram } from '../../../kernels/scalars.js';
import { packedPerWord, unpackOne, unpackWord } from '../../../kernels/unpack.js';
import type { KernelStep } from '../../../plan.js';
import { elementBytes } from '../../../plan.js';
import type { LowerContext, Operand } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import { useKey } from '../dispatch.js';
import type { MatrixLayout, RowPart } from '../layout.js';
import type { DispatchWriter } from '../writer.js';
import { runProgram } from './elementwise.js';
import { bindOperand, coordinates, loadOperand, viewElements } from './indexing.js';

const threads = 64;
/** Rows of x that a workgroup takes at once: each word of the Weight is unpacked once for them. */
const mostRows = 4;

/** One product's Weight, and which of its rows are wanted. */
interface Product {
  readonly weight: number;
  readonly form: 'rows0' | 'rows1';
  readonly layout: MatrixLayout;
  readonly begin: number;
  readonly end: number;
}

function productOf({ weight, transposed, columns }: LinearProduct, context: LowerContext): Product {
  const form = transposed ? 'rows0' : 'rows1';
  const layout = context.layout(weight, form);
  const { begin, end } = columns ?? { begin: 0, end: layout.rows };
  return { weight, form, layout, begin, end };
}

const wordsOf = ({ weight, form }: Product, part: number): BufferUse => {
  return { kind: 'weight', weight, form, part, of: 'words' };
};
const scalesOf = ({ weight, form }: Product, part: number): BufferUse => {
  return { kind: 'weight', weight, form, part, of: 'scales' };
};

export function linear(
  step: KernelStep,
  { attrs: { products, epilogues } }: StructuredNode<'Linear'>,
  context: LowerContext,
): Dispatch[] {
  const x = context.input(step, 0);
  return epilogues.flatMap((epilogue, i) => {
    const output = context.output(step, i);
    if (sizeOf(output.shape) === 0) return [];
    const own = epilogue.products.map((product) => productOf(products[product]!, context));
    const operands = epilogue.operands.map(({ input }) => context.input(step, input));
    if (isDirect(x, own, operands, context))
      return [directLinear(x, own, epilogue, operands, output, context)];
    // Each product on its own, into memory between, then the rest.
    const parts = own.map((product) => {
      const shape = output.shape;
      const held: Operand = {
        use: context.scratch(elementBytes * sizeOf(shape)),
        dtype: 'f32',
        shape,
      };
      return { held, dispatches: partProducts(x, product, held, context) };
    });
    return [
      ...parts.flatMap(({ dispatches }) => dispatches),
      ...applyEpilogue(epilogue, parts.map(({ held }) => held), operands, output, context), // biome-ignore format: short
    ];
  });
}

/** True if one kernel can be given all that the product and its epilogue read. */
function isDirect(
  x: Operand,
  products: readonly Product[],
  operands: readonly Operand[],
  context: LowerContext,
): boolean {
  const uses = [
    x.use,
    ...operands.map(({ use }) => use),
    ...products.flatMap((product) => [
      wordsOf(product, 0),
      ...(product.layout.scales ? [scalesOf(product, 0)] : []),
    ]),
  ];
  const buffers = new Set(uses.map(useKey)).size + 1;
  const isWhole = products.every(({ layout }) => layout.parts.length === 1);
  return isWhole && buffers <= context.features.maxBuffers;
}

/** The epilogue's program over products that lie in memory. */
function applyEpilogue(
  { operands: uses, program }: Epilogue,
  products: readonly Operand[],
  operands: readonly Operand[],
  output: Operand,
  context: LowerContext,
): Dispatch[] {
  const plain = broadcastView(output.shape, output.shape);
  const inputs = [
    ...products.map((operand) => ({ operand, view: plain })),
    ...operands.map((operand, i) => ({ operand, view: uses[i]!.view })),
  ];
  return runProgram('epilogue', program, inputs, output, context);
}

/** Threads for a row of so many words: no more than have something to do. */
function threadsFor(words: number): number {
  let count = 4;
  while (count < words && count < threads) count *= 2;
  return count;
}

function directLinear(
  x: Operand,
  products: readonly Product[],
  epilogue: Epilogue,
  operands: readonly Operand[],
  output: Operand,
  context: LowerContext,
): Dispatch {
  const width = output.shape.at(-1)!;
  const rows = sizeOf(output.shape) / width;
  const tile = Math.min(mostRows, rows);
  const longest = Math.max(...products.map(({ layout }) => layout.rowWords));
  const w = context.writer('linear', threadsFor(longest));
  const { k } = w;
  const groups = width * Math.ceil(rows / tile);
  const group = w.workgroupIndex(groups);
  const feature = k.let('feature', group.rem(width));
  const first = k.let('first', group.div(width).mul(tile));
  const xs = bindOperand(w, 'x', x);
  const sums = products.map((product) =>
    sumRows(w, xs, product, 0, feature.add(product.begin), { first, tile, rows }),
  );
  const totals = reduceWorkgroup(k, w.features, 'add', ...sums.flat());
  const arrays = operands.map((operand, i) => bindOperand(w, `operand${i}`, operand));
  const y = bindOperand(w, 'y', output);
  // Thread r writes row r of the tile.
  const row = k.let('own', first.add(k.localIndex));
  k.if(k.localIndex.lt(tile).and(row.lt(rows)), () => {
    const sumsOfRow = products.map((_, i) => {
      const ofTile = totals.slice(i * tile, (i + 1) * tile);
      return ofTile.reduce((held, total, r) => (r === 0 ? total : k.localIndex.eq(r).select(total, held)));
    });
    const index = k.let('index', row.mul(width).add(feature));
    const views = epilogue.operands.map(({ view }) => view);
    const elements = viewElements(k, index, output.shape, views);
    const loaded = elements.map((element, i) => loadOperand(arrays[i]!, operands[i]!, element));
    k.store(y, index, storedElement(writeProgram(k, epilogue.program, [...sumsOfRow, ...loaded])));
  });
  return w.forWorkgroups(groups, context.step);
}

/** A product by itself, part by part of its Weight. */
function partProducts(x: Operand, product: Product, output: Operand, context: LowerContext): Dispatch[] {
  const width = product.end - product.begin;
  const rows = sizeOf(output.shape) / width;
  const tile = Math.min(mostRows, rows);
  return product.layout.parts.flatMap((part, number) => {
    const begin = Math.max(product.begin, part.first);
    const count = Math.min(product.end, part.first + part.rows) - begin;
    if (count <= 0) return [];
    const w = context.writer('linearPart', threadsFor(product.layout.rowWords));
    const { k } = w;
    const groups = count * Math.ceil(rows / tile);
    const group = w.workgroupIndex(groups);
    const own = k.let('own', group.rem(count));
    const first = k.let('first', group.div(count).mul(tile));
    const xs = bindOperand(w, 'x', x);
    const sums = sumRows(w, xs, product, number, own.add(begin - part.first), { first, tile, rows });
    const totals = reduceWorkgroup(k, w.features, 'add', ...sums);
    const y = bindOperand(w, 'y', output);
    k.if(k.localIndex.eq(0), () => {
      for (let r = 0; r < tile; r++) {
        const row = first.add(r);
        const at = row.mul(width).add(own.add(begin - product.begin));
        k.if(row.lt(rows), () => k.store(y, at, totals[r]!));
      }
    });
    return [w.forWorkgroups(groups, context.step)];
  });
}

/**
 * This thread's share of the sums of one feature over the inputs, for some rows of x.
 * @param feature row of the Weight's part
 */
function sumRows(
  w: DispatchWriter,
  x: ArrayRef,
  product: Product,
  part: number,
  feature: Expr,
  { first, tile, rows }: { readonly first: Expr; readonly tile: number; readonly rows: number },
): Expr[] {
  const { k } = w;
  const { packing, width, rowWords, scales } = product.layout;
  const words = w.bind('words', wordsOf(product, part), 'u32');
  const scaleArray = scales ? w.bind('scales', scalesOf(product, part), 'f32') : undefined;
  const perWord = packedPerWord[packing];
  const row = k.let('row', feature.mul(rowWords));
  const scaleRow = scales ? k.let('scaleRow', feature.mul(scales.groups)) : undefined;
  const sums = Array.from({ length: tile }, (_, r) => k.variable(`sum${r}`, literal('f32', 0)));
  const starts = sums.map((_, r) =>
    k.let(
      `start${r}`,
      first
        .add(r)
        .min(rows - 1)
        .mul(width),
    ),
  );
  const isRagged = width % perWord !== 0;
  const oneScale = scales !== null && scales.groups > 1 && scales.size % perWord === 0;
  const ownScales = scales !== null && scales.groups > 1 && !oneScale;
  k.for(
    'word',
    k.localIndex,
    Math.ceil(width / perWord),
    (at) => {
      const begin = k.let('begin', at.mul(perWord));
      const values = unpackWord(packing, k.let('packed', words.at(row.add(at)))).map((value, j) => {
        if (!ownScales) return k.let(`w${j}`, value);
        const scaleAt = scaleRow!.add(
          begin
            .add(j)
            .div(scales!.size)
            .min(scales!.groups - 1),
        );
        return k.let(`w${j}`, value.mul(scaleArray!.at(scaleAt)));
      });
      for (const [r, sum] of sums.entries()) {
        const terms = values.map((value, j) => {
          const input = begin.add(j);
          const from = starts[r]!.add(j === 0 ? begin : input);
          const term = value.mul(isRagged && j > 0 ? x.at(starts[r]!.add(input.min(width - 1))) : x.at(from));
          return isRagged && j > 0 ? input.lt(width).select(term, 0) : term;
        });
        const inWord = terms.reduce((total, term) => total.add(term));
        const scaled = oneScale ? inWord.mul(scaleArray!.at(scaleRow!.add(begin.div(scales!.size)))) : inWord;
        k.set(sum, sum.value.add(scaled));
      }
    },
    k.threads,
  );
  const isRowScale = scales !== null && scales.groups === 1;
  return sums.map(({ value }) => (isRowScale ? value.mul(scaleArray!.at(scaleRow!)) : value));
}

/** One thread an element; its sum in four parts, so that rounding stays small. */
export function batchMatMul(
  step: KernelStep,
  { attrs: { transposeA, transposeB, epilogue } }: StructuredNode<'BatchMatMul'>,
  context: LowerContext,
): Dispatch[] {
  const [a, b, output] = [context.input(step, 0), context.input(step, 1), context.output(step)];
  const operands = epilogue.operands.map(({ input }) => context.input(step, input));
  const size = sizeOf(output.shape);
  if (size === 0) return [];
  const buffers = new Set([a, b, ...operands].map(({ use }) => useKey(use))).size + 1;
  if (buffers > context.features.maxBuffers) {
    const held: Operand = { ...output, dtype: 'f32', use: context.scratch(elementBytes * size) };
    const plain = { ...epilogue, operands: [], program: [{ op: 'Input', index: 0, dtype: 'f32' }] } as const;
    return [
      productsOf({ a, b, transposeA, transposeB }, plain, [], held, context),
      ...applyEpilogue(epilogue, [held], operands, output, context),
    ];
  }
  return [productsOf({ a, b, transposeA, transposeB }, epilogue, operands, output, context)];
}

interface Factors {
  readonly a: Operand;
  readonly b: Operand;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

const sumParts = 4;

function productsOf(
  { a, b, transposeA, transposeB }: Factors,
  epilogue: Epilogue,
  operands: readonly Operand[],
  output: Operand,
  context: LowerContext,
): Dispatch {
  const [m, n] = output.shape.slice(-2) as [number, number];
  const batch = output.shape.slice(0, -2);
  const depth = a.shape.at(transposeA ? -2 : -1)!;
  const [aRow, aStep] = transposeA ? [1, m] : [depth, 1];
  const [bStep, bColumn] = transposeB ? [1, depth] : [n, 1];
  const size = sizeOf(output.shape);
  const w = context.writer('batchMatMul', threads);
  const { k } = w;
  const index = w.threadIndex(size);
  const [left, right] = [bindOperand(w, 'a', a), bindOperand(w, 'b', b)];
  const arrays = operands.map((operand, i) => bindOperand(w, `operand${i}`, operand));
  const y = bindOperand(w, 'y', output);
  const [at, row, column] = coordinates(k, index, [size / (m * n), m, n]) as [Expr, Expr, Expr];
  const views = [a, b].map((each) => broadcastView(each.shape.slice(0, -2), batch));
  const [first, second] = viewElements(k, at, batch, views) as [Expr, Expr];
  const [aBase, bBase] = [
    k.let('aBase', first.mul(m * depth).add(row.mul(aRow))),
    k.let('bBase', second.mul(depth * n).add(column.mul(bColumn))),
  ];
  const sums = Array.from({ length: sumParts }, (_, i) => k.variable(`sum${i}`, literal('f32', 0)));
  const addTerm = (part: number, i: Expr): void => {
    const term = left.at(aBase.add(i.mul(aStep))).mul(right.at(bBase.add(i.mul(bStep))));
    k.set(sums[part]!, sums[part]!.value.add(term));
  };
  const whole = depth - (depth % sumParts);
  const step = (i: Expr): void => {
    for (let part = 0; part < sumParts; part++) addTerm(part, i.add(part));
  };
  k.for('i', literal('i32', 0), whole, step, sumParts);
  for (let i = whole; i < depth; i++) addTerm(i - whole, literal('i32', i));
  const [s0, s1, s2, s3] = sums.map(({ value }) => value) as [Expr, Expr, Expr, Expr];
  const product = k.let('product', s0.add(s1).add(s2.add(s3)));
  const elements = viewElements(k, index, output.shape, epilogue.operands.map(({ view }) => view)); // biome-ignore format: short
  const loaded = elements.map((element, i) => loadOperand(arrays[i]!, operands[i]!, element));
  k.store(y, index, storedElement(writeProgram(k, epilogue.program, [product, ...loaded])));
  return w.forThreads(size, context.step);
}

/** Part after part of the Weight: each writes the rows that it has; the first one NaN where no part has any. */
export function embed(
  step: KernelStep,
  { attrs: { weight } }: StructuredNode<'Embed'>,
  context: LowerContext,
): Dispatch[] {
  const [indices, output] = [context.input(step, 0), context.output(step)];
  const size = sizeOf(output.shape);
  if (size === 0) return [];
  const layout = context.layout(weight, 'rows0');
  return layout.parts.map((part, number) =>
    embedPart(indices, output, weight, layout, part, number, context),
  );
}

function embedPart(
  indices: Operand,
  output: Operand,
  weight: number,
  layout: MatrixLayout,
  part: RowPart,
  number: number,
  context: LowerContext,
): Dispatch {
  const { packing, width: dim, rowWords, scales, rows } = layout;
  const product: Product = { weight, form: 'rows0', layout, begin: 0, end: rows };
  const size = sizeOf(output.shape);
  const w = context.writer('embed', threads);
  const { k } = w;
  const index = w.threadIndex(size);
  const ids = bindOperand(w, 'ids', indices);
  const words = w.bind('words', wordsOf(product, number), 'u32');
  const scaleArray = scales ? w.bind('scales', scalesOf(product, number), 'f32') : undefined;
  const y = bindOperand(w, 'y', output);
  const id = k.let('id', ids.at(index.div(dim)));
  const column = k.let('column', index.rem(dim));
  const own = k.let('own', id.sub(part.first));
  const isOwn = own.ge(0).and(own.lt(part.rows));
  k.if(
    isOwn,
    () => {
      const row = k.let('row', own.to('u32'));
      const perWord = packedPerWord[packing];
      const word = words.at(row.mul(rowWords).add(column.div(perWord)));
      const value = unpackOne(packing, word, column.rem(perWord));
      const scale = scaleArray?.at(row.mul(scales!.groups).add(column.div(scales!.size)));
      k.store(y, index, scale ? value.mul(scale) : value);
    },
    () => {
      if (number > 0) return;
      k.if(id.lt(0).or(id.ge(rows)), () => k.store(y, index, literal('f32', Number.NaN)));
    },
  );
  return w.forThreads(size, context.step);
}
