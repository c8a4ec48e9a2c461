// lib/jit/targets/webgpu/generic/elementwise.ts: scalar programs, one thread an element.

import { sizeOf } from '../../../../tensor.js';
import type { Program, StructuredNode, View } from '../../../graph.js';
import { storedElement, writeProgram } from '../../../kernels/scalars.js';
import type { KernelStep } from '../../../steps.js';
import { elementBytes } from '../../../steps.js';
import type { LowerContext, Operand } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import { useKey } from '../dispatch.js';
import { bindOperand, loadOperand, viewElements } from './indexing.js';
import { copyWords } from './moves.js';

const threads = 64;

/** An input of a program: where it is and how it is walked over. */
export interface ViewedOperand {
  readonly operand: Operand;
  readonly view: View;
}

export function elementwise(
  step: KernelStep,
  { attrs }: StructuredNode<'Elementwise'>,
  context: LowerContext,
): Dispatch[] {
  const inputs = attrs.views.map((view, i) => ({ operand: context.input(step, i), view }));
  return runProgram('elementwise', attrs.program, inputs, context.output(step), context);
}

/** A program over operands -> one output. */
export function runProgram(
  name: string,
  program: Program,
  inputs: readonly ViewedOperand[],
  output: Operand,
  context: LowerContext,
): Dispatch[] {
  const count = sizeOf(output.shape);
  if (count === 0) return [];
  const { copies, operands } = withinBuffers(inputs, context.features.maxBuffers - 1, context);
  const w = context.writer(name, threads);
  const { k } = w;
  const index = w.threadIndex(count);
  const arrays = operands.map(({ operand }, i) => bindOperand(w, `x${i}`, operand));
  const y = bindOperand(w, 'y', output);
  const elements = viewElements(k, index, output.shape, operands.map(({ view }) => view)); // biome-ignore format: short
  const values = elements.map((element, i) => loadOperand(arrays[i]!, operands[i]!.operand, element));
  const result = writeProgram(
    k,
    program,
    values.map((value, i) => k.let(`value${i}`, value)),
  );
  k.store(y, index, storedElement(result));
  return [...copies, w.forThreads(count, context.step)];
}

/**
 * Operands in no more than so many buffers: what is over is copied together first, a buffer an element type.
 */
function withinBuffers(
  inputs: readonly ViewedOperand[],
  limit: number,
  context: LowerContext,
): { copies: Dispatch[]; operands: readonly ViewedOperand[] } {
  const keys = [...new Set(inputs.map(({ operand }) => useKey(operand.use)))];
  if (keys.length <= limit) return { copies: [], operands: inputs };
  const moved = new Map<string, Operand>();
  const copies: Dispatch[] = [];
  for (const isFloat of [true, false]) {
    const some = inputs.filter(
      ({ operand }) =>
        keys.indexOf(useKey(operand.use)) >= limit - 2 && (operand.dtype === 'f32') === isFloat,
    );
    const distinct = [...new Map(some.map(({ operand }) => [useKey(operand.use), operand])).entries()];
    const elements = distinct.map(([, operand]) => sizeOf(operand.shape));
    const all = context.scratch(elementBytes * elements.reduce((sum, each) => sum + each, 0));
    let base = 0;
    for (const [i, [key, operand]] of distinct.entries()) {
      copies.push(...copyWords(operand.use, all, elements[i]!, context, base));
      moved.set(key, { ...operand, use: all, base });
      base += elements[i]!;
    }
  }
  const operands = inputs.map(({ operand, view }) => {
    return { operand: moved.get(useKey(operand.use)) ?? operand, view };
  });
  return { copies, operands };
}
