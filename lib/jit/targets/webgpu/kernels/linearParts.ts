// lib/jit/targets/webgpu/kernels/linearParts.ts: what the kernels for a Linear share: its Weights' and operands' arrays.

import type { Epilogue, LinearProduct, StructuredNode } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import type { Expr, Type } from '../../../kernels/expression.js';
import { loadElement, storedType } from '../../../kernels/scalars.js';
import { reshapeThrough } from '../../../passes/views.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import { type BufferUse, useKey } from '../dispatch.js';
import type { MatrixLayout } from '../layout.js';
import type { DispatchWriter } from '../writer.js';

/** Binds one product's words and scales. */
export function bindWeights(
  writer: DispatchWriter,
  { weight, transposed, columns }: LinearProduct,
  { scales }: MatrixLayout,
  element: Type,
): { readonly words: ArrayRef; readonly scales: ArrayRef | null; readonly firstRow: number } {
  const form = transposed ? 'rows0' : 'rows1';
  const use = (of: 'words' | 'scales'): BufferUse => ({ kind: 'weight', weight, form, part: 0, of });
  return {
    words: writer.bind('words', use('words'), element),
    scales: scales && writer.bind('scales', use('scales'), 'f32'),
    firstRow: columns?.begin ?? 0,
  };
}

/** The layouts of a Linear's products, if one kernel can read them all in the same way. */
export function commonLayouts(
  products: readonly LinearProduct[],
  context: LowerContext,
): readonly [MatrixLayout, ...MatrixLayout[]] | undefined {
  const layouts = products.map(({ weight, transposed }) =>
    context.layout(weight, transposed ? 'rows0' : 'rows1'),
  );
  const [first] = layouts as [MatrixLayout];
  const isAlike = layouts.every(
    ({ packing, scales, parts }) =>
      packing === first.packing && scales?.size === first.scales?.size && parts.length === 1,
  );
  return isAlike ? (layouts as [MatrixLayout, ...MatrixLayout[]]) : undefined;
}

export type ReadOperand = (row: Expr, column: Expr) => Expr;

/**
 * Reads of an epilogue's operands by row and column of the output seen as [rows, width].
 * @returns undefined where a view runs otherwise
 */
export function readOperands(
  writer: DispatchWriter,
  context: LowerContext,
  linear: KernelStep,
  { operands }: Epilogue,
  shape: readonly number[],
  rows: number,
): ReadOperand[] | undefined {
  const reads: ReadOperand[] = [];
  for (const { input, view } of operands) {
    const flat = reshapeThrough(view, shape, [rows, shape.at(-1)!]);
    if (!flat || flat.offset < 0 || flat.strides.some((stride) => stride < 0)) return undefined;
    const { use, dtype } = context.input(linear, input);
    const array = writer.bind(`operand${input}`, use, storedType(dtype));
    const [rowStride, columnStride] = flat.strides as [number, number];
    reads.push((row, column) => {
      const place = row.mul(rowStride).add(column.mul(columnStride)).add(flat.offset);
      return writer.k.let('operand', loadElement(array, place, dtype));
    });
  }
  return reads;
}

/** The input is read four numbers at a time, operands one by one: the same memory cannot be both. */
export function readsInputTwice(context: LowerContext, first: KernelStep, linear: KernelStep): boolean {
  if (linear.node.op !== 'Linear') return false;
  const x = context.input(first, 0);
  return linear.node.attrs.epilogues.some(({ operands }) =>
    operands.some(({ input }) => context.overlaps(x, context.input(linear, input))),
  );
}

/** True for memory that an epilogue of the Linear reads, number by number: it cannot be written in vectors there. */
export function readsMemory(
  context: LowerContext,
  linear: KernelStep & { readonly node: StructuredNode<'Linear'> },
  use: BufferUse,
): boolean {
  return linear.node.attrs.epilogues.some(({ operands }) =>
    operands.some(({ input }) => useKey(context.input(linear, input).use) === useKey(use)),
  );
}
