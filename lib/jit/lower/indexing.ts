// lib/jit/lower/indexing.ts: tfjs kernels that look elements up or make them from nothing -> Gather, GatherNd,
// ScatterNd, Constant.

import type {
  BincountAttrs,
  DenseBincountAttrs,
  FillAttrs,
  GatherV2Attrs,
  LinSpaceAttrs,
  OneHotAttrs,
  RangeAttrs,
  ScatterNdAttrs,
  SparseToDenseAttrs,
  UnsortedSegmentSumAttrs,
} from '@tensorflow/tfjs-core';
import type { GraphBuilder } from '../build.js';
import { elementsOf } from '../build.js';
import type { ElementType, ElementValues, Value } from '../graph.js';
import type { LoweringTable } from './lowering.js';
import { elementType, frontAxis, lowering } from './lowering.js';

/** [0, 1, ..., size - 1] as i32. */
export function countTo(b: GraphBuilder, size: number): Value {
  return b.constant(
    Int32Array.from({ length: size }, (_, i) => i),
    'i32',
    [size],
  );
}

function valuesOf(numbers: readonly number[], dtype: ElementType): ElementValues {
  return dtype === 'f32' ? Float32Array.from(numbers) : Int32Array.from(numbers);
}

function filled(b: GraphBuilder, value: number, dtype: ElementType, shape: readonly number[]): Value {
  return b.broadcast(b.literal(value, dtype), shape);
}

/** As tfjs counts: `count` numbers from start, each the one before plus step. */
function range(start: number, count: number, step: number): number[] {
  const numbers: number[] = [];
  for (let i = 0, value = start; i < count; i++, value += step) numbers.push(value);
  return numbers;
}

/** sorted [batch, n], values [batch, m] -> for each value how many of the row lie before it, [batch, m] i32. */
function countBefore(op: 'Less' | 'LessEqual') {
  return lowering((b, { sortedSequence, values }) => {
    const [batch, n] = sortedSequence.shape as [number, number];
    const m = values.shape[1]!;
    const before = b.binary(op, b.reshape(sortedSequence, [batch, 1, n]), b.reshape(values, [batch, m, 1]));
    return b.reduce('Sum', b.cast(before, 'i32'), [2]);
  });
}

/** x [..., n] integers -> how often each of 0..size - 1 is in a row (or the sum of its weights): [..., size]. */
function countEach(b: GraphBuilder, x: Value, weights: Value, size: number, once: boolean): Value {
  const hit = b.binary('Equal', b.reshape(b.cast(x, 'i32'), [...x.shape, 1]), countTo(b, size)); // [..., n, size]
  const axis = x.shape.length - 1;
  if (once) return b.cast(b.reduce('Max', b.cast(hit, 'i32'), [axis]), weights.dtype);
  const amount = elementsOf(weights) > 0 ? b.reshape(weights, [...x.shape, 1]) : b.literal(1, weights.dtype);
  return b.reduce('Sum', b.select(hit, amount, b.literal(0, weights.dtype)), [axis]);
}

export const indexing: LoweringTable = {
  GatherV2: lowering<GatherV2Attrs>((b, { x, indices }, { axis, batchDims }) => {
    const along = frontAxis(axis, x.shape.length);
    const batchAxes = frontAxis(batchDims, indices.shape.length);
    return b.add('Gather', [x, b.cast(indices, 'i32')], { axis: along, batchAxes })[0]!;
  }),
  GatherNd: lowering((b, { params, indices }) => b.add('GatherNd', [params, b.cast(indices, 'i32')], {})[0]!),
  ScatterNd: lowering<ScatterNdAttrs>((b, { indices, updates }, { shape }) => {
    const base = filled(b, 0, updates.dtype, shape);
    return b.add('ScatterNd', [base, b.cast(indices, 'i32'), updates], { mode: 'add' })[0]!;
  }),
  TensorScatterUpdate: lowering((b, { tensor, indices, updates }) => {
    const inputs = [tensor, b.cast(indices, 'i32'), b.cast(updates, tensor.dtype)];
    return b.add('ScatterNd', inputs, { mode: 'set' })[0]!;
  }),
  SparseToDense: lowering<SparseToDenseAttrs>((b, inputs, { outputShape }) => {
    const { sparseIndices, sparseValues, defaultValue } = inputs;
    const depth = sparseIndices.shape.at(-1) ?? 1;
    const base = b.broadcast(b.cast(defaultValue, sparseValues.dtype), outputShape);
    const rows = sparseIndices.shape.length < 2 ? elementsOf(sparseIndices) : sparseIndices.shape[0]!;
    const shape = sparseIndices.shape.length < 2 ? [rows, 1] : [rows, depth];
    const indices = b.cast(b.reshape(sparseIndices, shape), 'i32');
    const updates = b.broadcast(sparseValues, [rows]);
    return b.add('ScatterNd', [base, indices, updates], { mode: 'set' })[0]!;
  }),
  UnsortedSegmentSum: lowering<UnsortedSegmentSumAttrs>((b, { x, segmentIds }, { numSegments }) => {
    const inner = x.shape.slice(segmentIds.shape.length);
    const rows = elementsOf(segmentIds);
    const indices = b.reshape(b.cast(segmentIds, 'i32'), [rows, 1]);
    const base = filled(b, 0, x.dtype, [numSegments, ...inner]);
    return b.add('ScatterNd', [base, indices, b.reshape(x, [rows, ...inner])], { mode: 'add' })[0]!;
  }),
  OneHot: lowering<OneHotAttrs>((b, { indices }, { depth, onValue, offValue, dtype }) => {
    const type = elementType(dtype ?? 'int32');
    const column = b.reshape(b.cast(indices, 'i32'), [...indices.shape, 1]);
    const hit = b.binary('Equal', column, countTo(b, depth));
    return b.select(hit, b.literal(onValue, type), b.literal(offValue, type));
  }),
  Bincount: lowering<BincountAttrs>((b, { x, weights }, { size }) => countEach(b, x, weights, size, false)),
  DenseBincount: lowering<DenseBincountAttrs>((b, { x, weights }, { size, binaryOutput }) => {
    return countEach(b, x, weights, size, binaryOutput ?? false);
  }),
  Diag: lowering((b, { x }) => {
    const size = elementsOf(x);
    const index = countTo(b, size);
    const onDiagonal = b.binary('Equal', b.reshape(index, [size, 1]), index);
    const square = b.select(onDiagonal, b.reshape(x, [size]), b.literal(0, x.dtype));
    return b.reshape(square, [...x.shape, ...x.shape]);
  }),
  SearchSorted: lowering<{ side: 'left' | 'right' }>((b, inputs, attrs) => {
    return countBefore(attrs.side === 'left' ? 'Less' : 'LessEqual')(b, inputs, attrs);
  }),
  LowerBound: countBefore('Less'),
  UpperBound: countBefore('LessEqual'),
  Fill: lowering<FillAttrs>((b, _, { shape, value, dtype }) => {
    if (typeof value !== 'number') throw new TypeError('fill: expected a number, received a string');
    return filled(b, value, elementType(dtype ?? 'float32'), shape);
  }),
  ZerosLike: lowering((b, { x }) => filled(b, 0, x.dtype, x.shape)),
  OnesLike: lowering((b, { x }) => filled(b, 1, x.dtype, x.shape)),
  Range: lowering<RangeAttrs>((b, _, { start, stop, step, dtype }) => {
    const stride = stop < start && step === 1 ? -1 : step; // as tfjs reads a default step
    const count = Math.max(0, Math.ceil((stop - start) / stride));
    const type = elementType(dtype ?? 'float32');
    return b.constant(valuesOf(range(start, count, stride), type), type, [count]);
  }),
  LinSpace: lowering<LinSpaceAttrs>((b, _, { start, stop, num }) => {
    const step = (stop - start) / (num - 1);
    return b.constant(valuesOf(range(start, num, step), 'f32'), 'f32', [num]);
  }),
};
