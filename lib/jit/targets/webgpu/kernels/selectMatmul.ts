// lib/jit/targets/webgpu/kernels/selectMatmul.ts: a Linear of many rows -> one dispatch of matmul.ts an output.

import { sizeOf } from '../../../../tensor.js';
import type { StructuredNode } from '../../../graph.js';
import { writeProgram } from '../../../kernels/scalars.js';
import { packedPerWord } from '../../../kernels/unpack.js';
import type { KernelStep, Step } from '../../../plan.js';
import type { LowerContext } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import type { MatrixLayout } from '../layout.js';
import type { Selection } from '../select.js';
import { bindWeights, commonLayouts, readOperands, readsInputTwice } from './linearParts.js';
import type { MatmulSpec } from './matmul.js';
import { matmulSharedBytes, matmulThreads, matmulWorkgroups, writeMatmul } from './matmul.js';
import { matmulTile } from './tuning.js';

/** Takes a Linear of many rows. */
export function selectMatmul(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  const step = steps[at];
  if (step?.kind !== 'kernel' || step.node.op !== 'Linear') return undefined;
  const layouts = commonLayouts(step.node.attrs.products, context);
  const inDim = step.node.inputs[0]!.shape.at(-1)!;
  const rows = sizeOf(step.node.inputs[0]!.shape) / Math.max(1, inDim);
  const isWhole = layouts && inDim > 0 && inDim % 4 === 0 && isAligned(layouts[0]);
  if (!isWhole || rows < 2 || readsInputTwice(context, step, step)) return undefined;
  const dispatches = step.node.outputs.map((_, i) =>
    writeOutput(step, step.node as StructuredNode<'Linear'>, i, rows, layouts, context),
  );
  return dispatches.some((each) => !each) ? undefined : { dispatches: dispatches as Dispatch[], steps: 1 };
}

/** A word has one scale. */
function isAligned({ packing, scales }: MatrixLayout): boolean {
  return !scales || scales.groups === 1 || scales.size % packedPerWord[packing] === 0;
}

function writeOutput(
  step: KernelStep,
  { attrs: { products, epilogues } }: StructuredNode<'Linear'>,
  index: number,
  rows: number,
  layouts: readonly [MatrixLayout, ...MatrixLayout[]],
  context: LowerContext,
): Dispatch | undefined {
  const epilogue = epilogues[index]!;
  const [layout] = layouts;
  const { shape } = step.node.outputs[index]!;
  const width = shape.at(-1)!;
  const { features } = context;
  const tile = matmulTile(features, { rows, width, products: epilogue.products.length });
  const fits = matmulSharedBytes(tile, epilogue.products.length) <= features.maxSharedBytes;
  if (!fits || matmulThreads(tile) > features.maxThreads) return undefined;
  const writer = context.writer(`matmul ${layout.packing} ${rows}x${layout.width}`, matmulThreads(tile));
  const operands = readOperands(writer, context, step, epilogue, shape, rows);
  if (!operands) return undefined;
  const y = writer.bind('y', context.output(step, index).use, 'f32');
  const spec: MatmulSpec = {
    ...{ rows, width, inDim: layout.width, packing: layout.packing, rowWords: layout.rowWords },
    scales: !layout.scales ? 'none' : layout.scales.groups === 1 ? 'row' : { groupSize: layout.scales.size },
    x: writer.bind('x', context.input(step, 0).use, 'f32x4'),
    products: epilogue.products.map((product) =>
      bindWeights(writer, products[product]!, layouts[product]!, 'u32'),
    ),
    finish: (row, column, values) => {
      const read = operands.map((operand) => operand(row, column));
      writer.k.store(
        y,
        row.mul(width).add(column),
        writeProgram(writer.k, epilogue.program, [...values, ...read]),
      );
    },
  };
  if (writer.bound > features.maxBuffers) return undefined;
  writeMatmul(writer.k, spec, tile);
  return writer.in([matmulWorkgroups({ rows, width }, tile), 1, 1], context.step);
}
