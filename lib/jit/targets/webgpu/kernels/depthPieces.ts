// lib/jit/targets/webgpu/kernels/depthPieces.ts: pieces of a product's depth, which matmulFloats.ts, matmulBytes.ts
// and matmulMatrices.ts leave where tiles are few, -> their sum with the epilogue: element by element, with signed bytes
// beside it for a product of few rows; or a workgroup a row, which then also makes the next product's input for matrix units.

import type { StructuredNode } from '../../../graph.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, vector } from '../../../kernels/expression.js';
import { writeProgram } from '../../../kernels/scalars.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { DispatchWriter } from '../writer.js';
import { readOperands, readsMemory } from './linearParts.js';
import type { MatrixInputSpec, NormStep } from './matrixInput.js';
import { keepMatrixInput, OwnEights, rowThreads, storeMatrixRow } from './matrixInput.js';
import type { SideRequest } from './sides.js';
import { holdElements, sideBuffers } from './sides.js';

/** An output's pieces: f32 [splits, products, rows, width]. */
export interface OutputPieces {
  readonly output: number;
  readonly pieces: BufferUse;
}

export interface Pieces {
  readonly linear: KernelStep & { readonly node: StructuredNode<'Linear'> };
  readonly rows: number;
  readonly splits: number;
  readonly outputs: readonly OutputPieces[];
  /** What a column's sum is still multiplied by, of a product of the Linear; default: nothing. */
  readonly scaleOf?: (writer: DispatchWriter, product: number) => (column: Expr) => Expr;
}

/**
 * @param wanted signed bytes that a later product asks for, of the only output
 * @returns undefined where the adapter or an operand does not allow it
 */
export function joinPieces(sums: Pieces, context: LowerContext, wanted?: SideRequest): Dispatch | undefined {
  const { linear, rows, splits, outputs, scaleOf } = sums;
  const { node } = linear;
  const sizes = outputs.map(({ output }) => rows * node.outputs[output]!.shape.at(-1)!);
  const writer = context.writer('pieces of the depth', 128);
  const { k } = writer;
  const all = sizes.reduce((sum, size) => sum + size, 0);
  const held = wanted && outputs.length === 1 ? holdElements(writer, 'own', wanted, context) : undefined;
  const index = held?.index ?? writer.threadIndex(all);
  const bodies = outputs.map(({ output, pieces }, i) => {
    const { shape } = node.outputs[output]!;
    const epilogue = node.attrs.epilogues[output]!;
    const array = writer.bind('pieces', pieces, 'f32');
    const scales = epilogue.products.map((product) => scaleOf?.(writer, product));
    const operands = readOperands(writer, context, linear, epilogue, shape, rows);
    const y = writer.bind('y', context.output(linear, output).use, 'f32');
    if (!operands) return undefined;
    const products = epilogue.products.length;
    return (at: Expr): void => {
      const width = shape.at(-1)!;
      const [row, column] = [k.let('row', at.div(width)), k.let('column', at.rem(width))];
      const values = scales.map((scale, p) => {
        const parts = Array.from({ length: splits }, (_, split) =>
          array.at(at.add((split * products + p) * sizes[i]!)),
        );
        const sum = parts.reduce((held, part) => held.add(part));
        return k.let('value', scale ? sum.mul(scale(column)) : sum);
      });
      const read = operands.map((operand): Expr => operand(row, column));
      const result = k.let('result', writeProgram(k, epilogue.program, [...values, ...read]));
      k.store(y, at, result);
      held?.hold(result);
    };
  });
  if (bodies.some((body) => !body)) return undefined;
  if (writer.bound + (held ? sideBuffers : 0) > context.features.maxBuffers)
    return held && joinPieces(sums, context); // without bytes there may be room
  const write = (i: number, first: number): void => {
    const at = k.let('at', first === 0 ? index : index.sub(literal('u32', first)));
    if (i === bodies.length - 1) bodies[i]!(at);
    else k.if(at.lt(sizes[i]!), () => bodies[i]!(at), () => write(i + 1, first + sizes[i]!)); // biome-ignore format: short
  };
  write(0, 0);
  held?.leave();
  return writer.forThreads(all, context.step);
}

/** A product that reads the sum through a norm. */
export interface RowConsumer {
  readonly norm: NormStep | null;
  readonly spec: MatrixInputSpec;
}

/** Of a Linear with one output. @returns undefined where the adapter or an operand does not allow it */
export function joinRows(
  { linear, rows, splits, outputs }: Pieces,
  { norm, spec }: RowConsumer,
  context: LowerContext,
): Dispatch | undefined {
  const { shape } = linear.node.outputs[0]!;
  const epilogue = linear.node.attrs.epilogues[0]!;
  const width = shape.at(-1)!;
  if (!norm || spec.rows !== rows || spec.width !== width) return undefined;
  const writer = context.writer(`matrix pieces, input ${spec.kind}`, rowThreads(width, context));
  const { k } = writer;
  const row = writer.workgroupIndex(rows);
  const array = writer.bind('pieces', outputs[0]!.pieces, 'f32x4');
  const operands = readOperands(writer, context, linear, epilogue, shape, rows);
  const { use } = context.output(linear);
  const isOperand = readsMemory(context, linear, use);
  const y = writer.bind('y', use, isOperand ? 'f32' : 'f32x4');
  // Gain and bias of the norm, words and scales are bound last.
  if (!operands || writer.bound + 4 > context.features.maxBuffers) return undefined;
  const own = new OwnEights(k, width / 8);
  const products = epilogue.products.length;
  const base = k.let('base', row.mul(width / 4));
  const sums = epilogue.products.map((_, p) => {
    const parts = Array.from({ length: splits }, (_, split) =>
      own.read(array, base.add((split * products + p) * rows * (width / 4))),
    );
    return parts.reduce((held, part) => held.map((value, i) => k.let('sum', value.add(part[i]!))));
  });
  // All is read before anything is stored: the compiler takes no read past a store that might be to the same place.
  const given: Expr[] = [];
  const results = sums[0]!.map((_, i) => {
    const column = k.let('column', own.place(i >> 1).mul(8).add(4 * (i & 1))); // biome-ignore format: short
    return [0, 1, 2, 3].map((lane) => {
      const read = operands.map((operand) => operand(row, column.add(lane)));
      return { column: column.add(lane), values: [...sums.map((sum) => sum[i]!.lane(lane)), ...read] };
    });
  });
  const written = results.map((lanes) =>
    lanes.map(({ column, values }) => ({
      column,
      value: k.let('result', writeProgram(k, epilogue.program, values)),
    })),
  );
  for (const [i, lanes] of written.entries())
    given.push(own.inside(i >> 1, k.let('four', vector(...lanes.map(({ value }) => value)))));
  own.each((i, place) => {
    if (!isOperand)
      for (const half of [0, 1]) k.store(y, base.add(place.mul(2)).add(half), given[2 * i + half]!);
    else
      for (const { column, value } of written.slice(2 * i, 2 * i + 2).flat())
        k.store(y, row.mul(width).add(column), value);
  });
  const input = keepMatrixInput(norm, spec, context);
  storeMatrixRow(writer, own, row, given, { spec, norm, input }, context);
  return writer.forWorkgroups(rows, context.step);
}
