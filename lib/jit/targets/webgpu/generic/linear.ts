// lib/jit/targets/webgpu/generic/linear.ts: products with a Weight and what is done to their elements: one thread an
// output feature of a few rows.

import { sizeOf } from '../../../../tensor.js';
import type { Epilogue, LinearProduct, StructuredNode } from '../../../graph.js';
import { broadcastView } from '../../../graph.js';
import type { ArrayRef, Variable } from '../../../kernels/builder.js';
import { type Expr, laneSum, literal, splat, vector } from '../../../kernels/expression.js';
import { storedElement, writeProgram } from '../../../kernels/scalars.js';
import { packedPerWord, unpackWord } from '../../../kernels/unpack.js';
import type { KernelStep } from '../../../steps.js';
import { elementBytes } from '../../../steps.js';
import type { LowerContext, Operand } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import { useKey } from '../dispatch.js';
import type { MatrixLayout } from '../layout.js';
import type { DispatchWriter } from '../writer.js';
import { runProgram } from './elementwise.js';
import { bindOperand, loadOperand, viewElements } from './indexing.js';

const threads = 64;
/** Rows of x that a thread takes at once: each word of the Weight is unpacked once for them. */
const mostRows = 4;

/** One product's Weight, and which of its rows are wanted. */
export interface Product {
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

export const wordsOf = ({ weight, form }: Product, part: number): BufferUse => {
  return { kind: 'weight', weight, form, part, of: 'words' };
};
export const scalesOf = ({ weight, form }: Product, part: number): BufferUse => {
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
export function applyEpilogue(
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
/** Vectors of a row that are summed before they join its sum. */
const blockVectors = 64;

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
  const addVector = (at: Expr, sums: readonly Variable[]): void => {
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
  };
  // Long rows in blocks, whose sums are added: rounding stays small.
  const vectors = Math.ceil(width / perVector);
  if (vectors <= blockVectors) k.for('at', 0, literal('u32', vectors), (at) => addVector(at, sums));
  else
    k.for(
      'block',
      0,
      literal('u32', vectors),
      (block) => {
        const parts = rowNumbers.map((r) => k.variable(`part${r}`, literal('f32x4', 0)));
        const end = k.let('end', block.add(blockVectors).min(vectors));
        k.for('at', block, end, (at) => addVector(at, parts));
        for (const r of rowNumbers) k.set(sums[r]!, sums[r]!.value.add(parts[r]!.value));
      },
      blockVectors,
    );
  const totals = k.array('totals', 'f32', tile.size);
  const rowScale = scales && !isGrouped ? k.let('rowScale', scaleAt(literal('u32', 0))) : undefined;
  for (const r of rowNumbers) {
    const total = laneSum(sums[r]!.value);
    k.store(totals, r, rowScale ? total.mul(rowScale) : total);
  }
  return totals;
}
