// lib/jit/targets/webgpu/kernels/selectMatmul.ts: a Linear of many rows -> one dispatch of matmulFloats.ts an output, or
// of matmulBytes.ts in the mode `fast`; where the tiles are too few to keep a GPU busy, the depth is cut too, and a second
// dispatch adds the pieces up.

import { sizeOf } from '../../../../tensor.js';
import type { StructuredNode } from '../../../graph.js';
import type { Expr } from '../../../kernels/expression.js';
import { writeProgram } from '../../../kernels/scalars.js';
import { packedPerWord } from '../../../kernels/unpack.js';
import type { KernelStep, Step } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import { foldWorkgroups } from '../dispatch.js';
import type { MatrixLayout } from '../layout.js';
import type { Selection } from '../select.js';
import type { DispatchWriter } from '../writer.js';
import { blockSize } from './activations.js';
import { joinPieces } from './depthPieces.js';
import { bindWeights, commonLayouts, readOperands, readsInputTwice } from './linearParts.js';
import type { MatmulSpec } from './matmul.js';
import { matmulThreads, matmulWorkgroups } from './matmul.js';
import { matmulBytesSharedBytes, writeMatmulBytes } from './matmulBytes.js';
import { matmulFloatsSharedBytes, writeMatmulFloats } from './matmulFloats.js';
import type { Side } from './sides.js';
import { quantizeDispatch } from './sides.js';
import { matmulSplits, matmulTile } from './tuning.js';

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
  const quantized = takesBytes(layouts[0], inDim, context)
    ? quantizeDispatch(
        context.input(step, 0),
        {
          ...{ consumer: step, gain: null, elements: rows * inDim, width: inDim },
          form: { order: layouts[0].packing === 'int4' ? 'nibbles' : 'plain', limbs: 1 },
        },
        context,
      )
    : undefined;
  const node = step.node as StructuredNode<'Linear'>;
  const writer = new MatmulWriter(step, node, rows, layouts, quantized?.side, context);
  const dispatches = node.outputs.map((_, i) => writer.output(i));
  if (dispatches.some((each) => !each)) return undefined;
  return {
    dispatches: [...(quantized ? [quantized.dispatch] : []), ...dispatches.flatMap((each) => each!)],
    steps: 1,
  };
}

/** A word has one scale. */
function isAligned({ packing, scales }: MatrixLayout): boolean {
  return !scales || scales.groups === 1 || scales.size % packedPerWord[packing] === 0;
}

function takesBytes({ packing, scales }: MatrixLayout, inDim: number, context: LowerContext): boolean {
  const isInteger = packing === 'int8' || packing === 'int4';
  const isBlocked =
    inDim % blockSize === 0 && (!scales || scales.groups === 1 || scales.size % blockSize === 0);
  // Both halves of a word of int4 stand for eight numbers in a row.
  const isWhole = packing !== 'int4' || inDim % 32 === 0;
  return context.mode === 'fast' && context.features.packedDot && isInteger && isBlocked && isWhole;
}

class MatmulWriter {
  constructor(
    readonly step: KernelStep,
    readonly node: StructuredNode<'Linear'>,
    readonly rows: number,
    readonly layouts: readonly [MatrixLayout, ...MatrixLayout[]],
    readonly side: Side | undefined,
    readonly context: LowerContext,
  ) {}

  /** @returns undefined where the adapter or an operand does not allow it */
  output(index: number): Dispatch[] | undefined {
    const { step, rows, context, side } = this;
    const { features } = context;
    const epilogue = this.node.attrs.epilogues[index]!;
    const [layout] = this.layouts;
    const { shape } = this.node.outputs[index]!;
    const width = shape.at(-1)!;
    const products = epilogue.products.length;
    const tile = matmulTile(features, { rows, width, products, isBytes: side !== undefined });
    const isGrouped = layout.scales !== null && layout.scales.groups > 1;
    const shared = side
      ? matmulBytesSharedBytes(tile, products, isGrouped)
      : matmulFloatsSharedBytes(tile, products);
    if (shared > features.maxSharedBytes || matmulThreads(tile) > features.maxThreads) return undefined;
    const splits = matmulSplits({ rows, width, inDim: layout.width }, tile);
    const scales: MatmulSpec['scales'] = !layout.scales
      ? 'none'
      : isGrouped
        ? { groupSize: layout.scales.size }
        : 'row';
    const kind = side ? `${layout.packing} bytes` : layout.packing;
    const writer = context.writer(`matmul ${kind} ${rows}x${layout.width}`, matmulThreads(tile));
    const { k } = writer;
    const operands = readOperands(writer, context, step, epilogue, shape, rows);
    if (!operands) return undefined;
    const size = rows * width;
    const pieces = splits === 1 ? null : context.scratch(4 * size * splits * products);
    const y = pieces
      ? writer.bind('pieces', pieces, 'f32')
      : writer.bind('y', context.output(step, index).use, 'f32');
    const spec: MatmulSpec = {
      ...{
        rows,
        width,
        inDim: layout.width,
        packing: layout.packing,
        rowWords: layout.rowWords,
        scales,
        splits,
      },
      packedDot: features.packedDot,
      input: side
        ? {
            kind: 'bytes',
            bytes: writer.bind('xBytes', side.bytes, 'u32'),
            blocks: writer.bind('xBlocks', side.blocks, 'f32x2'),
          }
        : { kind: 'floats', x: writer.bind('x', context.input(step, 0).use, 'f32x4') },
      products: epilogue.products.map((product) =>
        bindWeights(writer, this.node.attrs.products[product]!, this.layouts[product]!, 'u32'),
      ),
      finish: (row, column, values, split) => {
        const place = row.mul(width).add(column);
        if (pieces)
          for (const [p, value] of values.entries())
            k.store(y, split.mul(products).add(p).mul(size).add(place), value);
        else {
          const read = operands.map((operand) => operand(row, column));
          k.store(y, place, writeProgram(k, epilogue.program, [...values, ...read]));
        }
      },
    };
    if (side) writeMatmulBytes(k, spec, tile);
    else writeMatmulFloats(k, spec, tile);
    if (writer.bound > features.maxBuffers) return undefined;
    const count = matmulWorkgroups(spec, tile);
    if (foldWorkgroups(count)[1] > 1) return undefined;
    const dispatch = writer.in([count, 1, 1], context.step);
    if (!pieces) return [dispatch];
    const joined = joinPieces(
      {
        ...{ linear: { ...step, node: this.node }, rows, splits },
        outputs: [{ output: index, pieces }],
        ...(scales === 'row' ? { scaleOf: (own, product) => this.#rowScale(own, product) } : {}),
      },
      context,
    );
    return joined && [dispatch, joined];
  }

  /** A row of the weights' own scale, by the column that it makes. */
  #rowScale(writer: DispatchWriter, product: number): (column: Expr) => Expr {
    const weights = bindWeights(writer, this.node.attrs.products[product]!, this.layouts[product]!, 'u32');
    return (column) => weights.scales!.at(column.add(weights.firstRow));
  }
}
