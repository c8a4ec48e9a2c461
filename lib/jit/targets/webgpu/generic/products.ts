// lib/jit/targets/webgpu/generic/products.ts: matrix products with what is done to their elements, and Embed. One thread an
// output feature of a few rows.

import { sizeOf } from '../../../../tensor.js';
import type { Epilogue, LinearProduct, StructuredNode } from '../../../graph.js';
import { broadcastView } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import { type Expr, laneSum, literal, splat, vector } from '../../../kernels/expression.js';
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
/** Rows of x that a thread takes at once: each word of the Weight is unpacked once for them. */
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

/** One thread a feature and a few rows. */
function directLinear(
  x: Operand,
  products: readonly Product[],
  epilogue: Epilogue,
  operands: readonly Operand[],
  output: Operand,
  context: LowerContext,
): Dispatch {
  const width = output.shape.at(-1)!;
  const tile = tileOf(output);
  const count = width * tile.tiles;
  const w = context.writer('linear', threads);
  const { k } = w;
  const index = w.threadIndex(count);
  const feature = k.let('feature', index.rem(width));
  const first = k.let('first', index.div(width).mul(tile.size));
  const xs = bindOperand(w, 'x', x);
  const sums = products.map((product) => sumRows(w, xs, product, 0, feature.add(product.begin), first, tile));
  const arrays = operands.map((operand, i) => bindOperand(w, `operand${i}`, operand));
  const y = bindOperand(w, 'y', output);
  eachRow(w, first, tile, (row, r) => {
    const at = k.let('at', row.mul(width).add(feature));
    const views = epilogue.operands.map(({ view }) => view);
    const elements = viewElements(k, at, output.shape, views);
    const loaded = elements.map((element, i) => loadOperand(arrays[i]!, operands[i]!, element));
    const values = [...sums.map((ofRows) => ofRows.at(r)), ...loaded];
    k.store(y, at, storedElement(writeProgram(k, epilogue.program, values)));
  });
  return w.forThreads(count, context.step);
}

/** A product by itself, part by part of its Weight. */
function partProducts(x: Operand, product: Product, output: Operand, context: LowerContext): Dispatch[] {
  const width = product.end - product.begin;
  const tile = tileOf(output);
  return product.layout.parts.flatMap((part, number) => {
    const begin = Math.max(product.begin, part.first);
    const count = Math.min(product.end, part.first + part.rows) - begin;
    if (count <= 0) return [];
    const w = context.writer('linearPart', threads);
    const { k } = w;
    const index = w.threadIndex(count * tile.tiles);
    const own = k.let('own', index.rem(count));
    const first = k.let('first', index.div(count).mul(tile.size));
    const xs = bindOperand(w, 'x', x);
    const sums = sumRows(w, xs, product, number, own.add(begin - part.first), first, tile);
    const y = bindOperand(w, 'y', output);
    eachRow(w, first, tile, (row, r) => {
      k.store(y, row.mul(width).add(own.add(begin - product.begin)), sums.at(r));
    });
    return [w.forThreads(count * tile.tiles, context.step)];
  });
}

/** Rows of x that a thread takes at once. */
interface Tile {
  readonly size: number;
  readonly rows: number;
  readonly tiles: number;
}

function tileOf({ shape }: Operand): Tile {
  const rows = sizeOf(shape.slice(0, -1));
  const size = Math.min(mostRows, rows);
  return { size, rows, tiles: Math.ceil(rows / size) };
}

/** Runs the same for each row of a tile that is there. */
function eachRow(w: DispatchWriter, first: Expr, tile: Tile, write: (row: Expr, r: Expr) => void): void {
  const { k } = w;
  const last =
    tile.rows % tile.size === 0
      ? literal('u32', tile.size)
      : literal('u32', tile.rows).sub(first).min(tile.size);
  k.for('r', literal('u32', 0), last, (r) => write(k.let('row', first.add(r)), r));
}

/** Words of a Weight that are read at once; their sums are kept apart, so that rounding stays small. */
const lanes = 4;

/**
 * Sums of one feature over the inputs, for the rows of a tile.
 * @param feature row of the Weight's part
 * @returns [tile.size]
 */
function sumRows(
  w: DispatchWriter,
  x: ArrayRef,
  product: Product,
  part: number,
  feature: Expr,
  first: Expr,
  tile: Tile,
): ArrayRef {
  const { k } = w;
  const { packing, width, rowWords, scales } = product.layout;
  const words = w.bind('words', wordsOf(product, part), 'u32x4');
  const scaleArray = scales ? w.bind('scales', scalesOf(product, part), 'f32') : undefined;
  const scaleRow = scales && k.let('scaleRow', feature.mul(scales.groups));
  const scaleAt = (input: Expr): Expr =>
    scaleArray!.at(scaleRow!.add(input.div(scales!.size).min(scales!.groups - 1)));
  const row = k.let('row', feature.mul(rowWords / lanes));
  const perWord = packedPerWord[packing];
  const perVector = lanes * perWord;
  const rowNumbers = Array.from({ length: tile.size }, (_, r) => r);
  const starts = rowNumbers.map((r) => k.let(`start${r}`, first.add(r).min(tile.rows - 1).mul(width))); // biome-ignore format: short
  const sums = rowNumbers.map((r) => k.variable(`sum${r}`, literal('f32x4', 0)));
  // Which inputs share a scale: all, those of a vector or of a word, or each has its own.
  const isGrouped = scales !== null && scales.groups > 1;
  const byVector = isGrouped && scales.size % perVector === 0;
  const byWord = isGrouped && !byVector && scales.size % perWord === 0;
  const byNumber = isGrouped && !byVector && !byWord;
  k.for('at', 0, literal('u32', Math.ceil(width / perVector)), (at) => {
    const begin = k.let('begin', at.mul(perVector));
    const packed = k.let('packed', words.at(row.add(at)));
    const values = Array.from({ length: lanes }, (_, lane) =>
      unpackWord(packing, packed.lane(lane)).map((value, j) => {
        const own = byNumber ? value.mul(scaleAt(begin.add(lane * perWord + j))) : value;
        return k.let('weight', own);
      }),
    );
    const byLane = values.map((_, lane) =>
      byWord ? k.let('scale', scaleAt(begin.add(lane * perWord))) : undefined,
    );
    const scale = byVector ? k.let('scale', scaleAt(begin)) : undefined;
    for (const r of rowNumbers) {
      const inputAt = (i: number): Expr => {
        const input = i === 0 ? begin : begin.add(i);
        if (width % perVector === 0 || i === 0) return x.at(starts[r]!.add(input));
        return input.lt(width).select(x.at(starts[r]!.add(input.min(width - 1))), 0);
      };
      const terms = values.map((inWord, lane) => {
        const sum = inWord
          .map((value, j) => value.mul(inputAt(lane * perWord + j)))
          .reduce((total, term) => total.add(term));
        return byLane[lane] ? sum.mul(byLane[lane]) : sum;
      });
      const together = vector(...terms);
      k.set(sums[r]!, sums[r]!.value.add(scale ? together.mul(splat(scale, lanes)) : together));
    }
  });
  const totals = k.array('totals', 'f32', tile.size);
  const rowScale = scales && !isGrouped ? k.let('rowScale', scaleAt(literal('u32', 0))) : undefined;
  for (const r of rowNumbers) {
    const total = laneSum(sums[r]!.value);
    k.store(totals, r, rowScale ? total.mul(rowScale) : total);
  }
  return totals;
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
