// lib/jit/targets/webgpu/kernels/matrixInput.ts: rows of float32, through a norm if there is one, -> rows as matrix units
// read them: signed bytes or float16, each row divided by a number of its own, so that none overflows.
// Source: one scale a row of activations as in Dettmers et al. 2022, arXiv:2208.07339.

import type { StructuredNode } from '../../../graph.js';
import type { KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';

/** Where rows lie for matrix units. */
export interface MatrixInput {
  readonly words: BufferUse; // [rows, width] numbers
  readonly scales: BufferUse; // f32 [rows]
}

type NormStep = KernelStep & { readonly node: StructuredNode<'Norm'> };

/** A thread keeps so many vectors of four numbers in registers at most. */
const mostVectors = 16;

/** Rows of so many numbers can be made. */
export function takesMatrixRow(width: number, threads: number): boolean {
  return width % 16 === 0 && width / 4 <= mostVectors * Math.min(256, threads);
}

/**
 * Makes the input of a product.
 * @param step whose first input is taken: the product's own, or a norm's
 * @param norm what the rows go through
 */
export function matrixInputDispatch(
  kind: MatrixKind,
  step: KernelStep,
  norm: NormStep | null,
  { rows, width }: { readonly rows: number; readonly width: number },
  context: LowerContext,
): { readonly dispatch: Dispatch; readonly input: MatrixInput } {
  const bytes = rows * width * (kind === 'bytes' ? 1 : 2);
  const input = { words: context.scratch(bytes), scales: context.scratch(4 * rows) };
  const threads = Math.min(
    256,
    context.features.maxThreads,
    Math.max(32, 2 ** Math.ceil(Math.log2(width / 16))),
  );
  const writer = context.writer(`matrix input ${kind} ${norm?.node.attrs.kind ?? ''}`.trim(), threads);
  const { k } = writer;
  const row = writer.workgroupIndex(rows);
  const x = writer.bind('x', context.input(step, 0).use, 'f32x4');
  const vectors = width / 4;
  const places = Array.from({ length: Math.ceil(vectors / threads) }, (_, i) =>
    k.let('place', k.localIndex.add(i * threads)),
  );
  const isInside = (i: number): Expr | null => ((i + 1) * threads <= vectors ? null : places[i]!.lt(vectors));
  const read = (array: typeof x, base: Expr, i: number): Expr => {
    const inside = isInside(i);
    const at = inside ? places[i]!.min(vectors - 1) : places[i]!;
    const value = array.at(base.add(at));
    return k.let('value', inside ? inside.select(value, literal('f32x4', 0)) : value);
  };
  const base = k.let('base', row.mul(vectors));
  const given = places.map((_, i) => read(x, base, i));
  const values = norm ? normed(given) : given;

  function normed(raw: readonly Expr[]): Expr[] {
    const { kind: of, epsilon, scaled, biased } = norm!.node.attrs;
    const bind = (index: number) => writer.bind(`norm${index}`, context.input(norm!, index).use, 'f32x4');
    const gain = scaled ? bind(1) : null;
    const bias = biased ? bind(scaled ? 2 : 1) : null;
    const total = (terms: readonly Expr[]): Expr => {
      const sum = terms.reduce((held, term) => held.add(term));
      const [all] = reduceWorkgroup(k, context.features, 'add', sum) as [Expr];
      return k.let('total', all);
    };
    const mean = of === 'layer' ? total(raw.map((value) => value.dot(literal('f32x4', 1)))).div(width) : null;
    const centre = mean && k.let('mean', splat(mean, 4));
    const centred = raw.map((value, i) => {
      if (!centre) return value;
      const inside = isInside(i);
      const own = value.sub(centre);
      return k.let('centred', inside ? inside.select(own, literal('f32x4', 0)) : own);
    });
    const root = total(centred.map((value) => value.dot(value)))
      .div(width)
      .add(epsilon)
      .rsqrt();
    const factor = k.let('root', splat(root, 4));
    const none = literal('u32', 0);
    return centred.map((value, i) => {
      let result = value.mul(factor);
      if (gain) result = result.mul(read(gain, none, i));
      if (bias) result = result.add(read(bias, none, i));
      return k.let('result', result);
    });
  }

  const largest = values.map((value) => value.abs()).reduce((held, value) => held.max(value));
  const lanes = k.let('largest', largest);
  const own = lanes
    .lane(0)
    .max(lanes.lane(1))
    .max(lanes.lane(2).max(lanes.lane(3)));
  const [all] = reduceWorkgroup(k, context.features, 'max', own) as [Expr];
  const most = k.let('most', all);
  const { scale, factor } = scaleOf(k, kind, most);
  const scales = writer.bind('scales', input.scales, 'f32');
  k.if(k.localIndex.eq(0), () => k.store(scales, row, scale));
  const words = writer.bind('words', input.words, kind === 'bytes' ? 'u32' : 'u32x2');
  values.forEach((value, i) => {
    const store = (): void => k.store(words, base.add(places[i]!), packed(kind, value.mul(splat(factor, 4))));
    const inside = isInside(i);
    if (inside) k.if(inside, store);
    else store();
  });
  return { dispatch: writer.forWorkgroups(rows, context.step), input };
}

/** A row's scale, and what its numbers are multiplied by. Float16 keeps its precision: the scale is a power of two. */
function scaleOf(k: KernelBuilder, kind: MatrixKind, most: Expr): { scale: Expr; factor: Expr } {
  if (kind === 'bytes') {
    const factor = most.gt(0).select(literal('f32', 127).div(most), 0);
    return { scale: most.mul(1 / 127), factor: k.let('factor', factor) };
  }
  // The power of two at or below the largest becomes 1,024.
  const power = k.let('power', most.max(1e-30).bits('u32').and(0x7f800000));
  const scale = k.let('scale', power.sub(10 << 23).bits('f32'));
  return { scale, factor: k.let('factor', literal('f32', 1).div(scale)) };
}

function packed(kind: MatrixKind, value: Expr): Expr {
  if (kind === 'halves') {
    const pair = (i: number): Expr => vector(value.lane(i), value.lane(i + 1)).packHalves();
    return vector(pair(0), pair(2));
  }
  return [0, 1, 2, 3]
    .map((i) =>
      value
        .lane(i)
        .round()
        .to('i32')
        .bits('u32')
        .and(255)
        .shl(8 * i),
    )
    .reduce((word, byte) => word.or(byte));
}
