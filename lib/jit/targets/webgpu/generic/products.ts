// lib/jit/targets/webgpu/generic/products.ts: products of two tensors, and Embed. One thread an element.

import { sizeOf } from '../../../../tensor.js';
import type { Epilogue, StructuredNode } from '../../../graph.js';
import { broadcastView } from '../../../graph.js';
import { type Expr, literal } from '../../../kernels/expression.js';
import { storedElement, writeProgram } from '../../../kernels/scalars.js';
import { packedPerWord, unpackOne } from '../../../kernels/unpack.js';
import type { KernelStep } from '../../../steps.js';
import { elementBytes } from '../../../steps.js';
import type { LowerContext, Operand } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import { useKey } from '../dispatch.js';
import { holdElements, type SideRequest } from '../kernels/sides.js';
import type { MatrixLayout, RowPart } from '../layout.js';
import { bindOperand, coordinates, loadOperand, viewElements } from './indexing.js';
import { applyEpilogue, type Product, scalesOf, wordsOf } from './linear.js';

const threads = 64;

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

/** Sums that are kept apart, and terms that are added before they join one: rounding stays small. */
const [sumParts, sumTerms] = [4, 4];

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
  const term = (i: Expr): Expr => left.at(aBase.add(i.mul(aStep))).mul(right.at(bBase.add(i.mul(bStep))));
  const add = (part: number, value: Expr): void => k.set(sums[part]!, sums[part]!.value.add(value));
  const stride = sumParts * sumTerms;
  const whole = depth - (depth % stride);
  const step = (i: Expr): void => {
    for (let part = 0; part < sumParts; part++) {
      const terms = Array.from({ length: sumTerms }, (_, at) => term(i.add(part * sumTerms + at)));
      add(
        part,
        terms.reduce((total, each) => total.add(each)),
      );
    }
  };
  k.for('i', literal('i32', 0), whole, step, stride);
  for (let i = whole; i < depth; i++) add(i % sumParts, term(literal('i32', i)));
  const [s0, s1, s2, s3] = sums.map(({ value }) => value) as [Expr, Expr, Expr, Expr];
  const product = k.let('product', s0.add(s1).add(s2.add(s3)));
  const elements = viewElements(k, index, output.shape, epilogue.operands.map(({ view }) => view)); // biome-ignore format: short
  const loaded = elements.map((element, i) => loadOperand(arrays[i]!, operands[i]!, element));
  k.store(y, index, storedElement(writeProgram(k, epilogue.program, [product, ...loaded])));
  return w.forThreads(size, context.step);
}

/**
 * Part after part of the Weight: each writes the rows that it has; the first one NaN where no part has any.
 * @param wanted bytes that a later product asks for; left where the Weight is one part
 */
export function embed(
  step: KernelStep,
  { attrs: { weight } }: StructuredNode<'Embed'>,
  context: LowerContext,
  wanted?: SideRequest,
): Dispatch[] {
  const [indices, output] = [context.input(step, 0), context.output(step)];
  const size = sizeOf(output.shape);
  if (size === 0) return [];
  const layout = context.layout(weight, 'rows0');
  const own = layout.parts.length === 1 ? wanted : undefined;
  return layout.parts.map((part, number) =>
    embedPart(indices, output, weight, layout, part, number, context, own),
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
  wanted: SideRequest | undefined,
): Dispatch {
  const { packing, width: dim, rowWords, scales, rows } = layout;
  const product: Product = { weight, form: 'rows0', layout, begin: 0, end: rows };
  const size = sizeOf(output.shape);
  const w = context.writer('embed', threads);
  const { k } = w;
  const held = wanted && holdElements(w, 'held', wanted, context);
  const index = held?.index ?? w.threadIndex(size);
  const store = (value: Expr): void => {
    const result = k.let('result', value);
    k.store(y, index, result);
    held?.hold(result);
  };
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
      store(scale ? value.mul(scale) : value);
    },
    () => {
      if (number > 0) return;
      k.if(id.lt(0).or(id.ge(rows)), () => store(literal('f32', Number.NaN)));
    },
  );
  held?.leave();
  return w.forThreads(size, context.step);
}
