// lib/jit/lower/reduce.ts: tfjs kernels that reduce or run along axes -> Reduce, Cumulative, Softmax, TopK.

import type {
  ArgMaxAttrs,
  CumsumAttrs,
  LogSoftmaxAttrs,
  MaxAttrs,
  SoftmaxAttrs,
  SumAttrs,
  TopKAttrs,
} from '@tensorflow/tfjs-core';
import { sizeOf } from '../../tensor.js';
import type { ReduceKind } from '../graph.js';
import type { LoweringTable } from './lowering.js';
import { axesOf, frontAxis, lowering } from './lowering.js';

/** Sum and Prod count bools as integers; Max and Min keep the type. */
function reduction(kind: ReduceKind) {
  return lowering<SumAttrs & Partial<MaxAttrs>>((b, { x }, { axis, reductionIndices, keepDims }) => {
    const counts = x.dtype === 'bool' && (kind === 'Sum' || kind === 'Prod');
    const axes = axesOf(axis ?? reductionIndices, x.shape.length); // Max has a name of its own for them
    return b.reduce(kind, counts ? b.cast(x, 'i32') : x, axes, keepDims);
  });
}

/** All is the least of the flags, Any the greatest. */
function flags(kind: 'Min' | 'Max') {
  return lowering<SumAttrs>((b, { x }, { axis, keepDims }) => {
    const reduced = b.reduce(kind, b.cast(b.cast(x, 'bool'), 'i32'), axesOf(axis, x.shape.length), keepDims);
    // Over no elements at all the least is the greatest integer, and the greatest the least: clamp to a flag.
    return b.binary('Greater', reduced, 0);
  });
}

function position(kind: 'ArgMax' | 'ArgMin') {
  return lowering<ArgMaxAttrs>((b, { x }, { axis }) => {
    const operand = x.dtype === 'bool' ? b.cast(x, 'i32') : x;
    return b.reduce(kind, operand, axesOf(axis ?? 0, x.shape.length).slice(0, 1));
  });
}

function cumulative(kind: 'Sum' | 'Prod') {
  return lowering<CumsumAttrs>((b, { x }, { axis, exclusive, reverse }) => {
    const operand = x.dtype === 'bool' ? b.cast(x, 'i32') : x;
    const attrs = { kind, axis: frontAxis(axis, x.shape.length), exclusive, reverse };
    return b.add('Cumulative', [operand], attrs)[0]!;
  });
}

function softmax(log: boolean) {
  return lowering<SoftmaxAttrs & LogSoftmaxAttrs>((b, { logits }, { dim, axis }) => {
    const last = logits.shape.length - 1;
    const along = frontAxis((log ? axis : dim) ?? last, logits.shape.length);
    const perm = logits.shape.map((_, i) => (i === along ? last : i === last ? along : i)); // its own inverse
    const rows = b.transpose(b.cast(logits, 'f32'), perm);
    return b.transpose(b.add('Softmax', [rows], { log, scale: 1 })[0]!, perm);
  });
}

export const reduce: LoweringTable = {
  Sum: reduction('Sum'),
  Prod: reduction('Prod'),
  Max: reduction('Max'),
  Min: reduction('Min'),
  All: flags('Min'),
  Any: flags('Max'),
  Mean: lowering<SumAttrs>((b, { x }, { axis, keepDims }) => {
    const axes = axesOf(axis, x.shape.length);
    const count = sizeOf(axes.map((each) => x.shape[each]!));
    const total = b.reduce('Sum', b.cast(x, 'f32'), axes, keepDims);
    return b.binary('Div', total, count);
  }),
  ArgMax: position('ArgMax'),
  ArgMin: position('ArgMin'),
  Cumsum: cumulative('Sum'),
  Cumprod: cumulative('Prod'),
  Softmax: softmax(false),
  LogSoftmax: softmax(true),
  TopK: lowering<TopKAttrs>((b, { x }, { k }) => b.add('TopK', [x], { k })),
};
