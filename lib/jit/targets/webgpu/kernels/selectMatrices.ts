// lib/jit/targets/webgpu/kernels/selectMatrices.ts: a Linear of many rows, with the norm before it, on an adapter with
// matrix units -> its input as those read it (matrixInput.ts), one dispatch of matmulMatrices.ts for all outputs, and
// where the depth is cut, one that adds the pieces up.

import { sizeOf } from '../../../../tensor.js';
import type { StructuredNode } from '../../../graph.js';
import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { splat, vector } from '../../../kernels/expression.js';
import type { MatrixKind } from '../../../kernels/kernel.js';
import { writeProgram } from '../../../kernels/scalars.js';
import type { KernelStep, Step } from '../../../steps.js';
import type { LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import { foldWorkgroups } from '../dispatch.js';
import type { MatrixLayout } from '../layout.js';
import type { Selection } from '../select.js';
import type { DispatchWriter } from '../writer.js';
import { joinPieces, joinRows, type Pieces } from './depthPieces.js';
import { perVector } from './dots.js';
import { readLinearGroup, samePlace } from './group.js';
import { bindWeights, commonLayouts, readOperands, readsMemory } from './linearParts.js';
import { splitDepth } from './matmul.js';
import { writeMatrixMatmul } from './matmulMatrices.js';
import type { MatrixInput, MatrixInputSpec, NormStep } from './matrixInput.js';
import { matrixInputDispatch, takeMatrixInput, takesMatrixRow } from './matrixInput.js';
import { mostScaleRatio } from './matrixRescale.js';
import type { MatrixMatmulSpec, MatrixPart, MatrixTile } from './matrixTile.js';
import { matrixSharedBytes, matrixTiles, matrixTileThreads } from './matrixTile.js';
import { halvesOrder } from './matrixWeights.js';
import { maxRows, prefersMatrices, roundsRows } from './problem.js';
import type { SideRequest } from './sides.js';
import { sideWanted } from './sides.js';
import { fewMatrixRows, matrixPieces, matrixTile } from './tuning.js';

type LinearStep = KernelStep & { readonly node: StructuredNode<'Linear'> };

/** A Linear of many rows that matrix units can do, with the norm that only it reads. */
interface MatrixGroup {
  readonly linear: LinearStep;
  readonly norm: NormStep | null;
  readonly layouts: readonly [MatrixLayout, ...MatrixLayout[]];
  readonly spec: MatrixInputSpec;
  readonly cut: MatrixCut;
}

/** Tiles of a product, and pieces of its depth. */
interface MatrixCut {
  readonly tile: MatrixTile;
  /** Pieces that have workgroups of their own. */
  readonly splits: number;
  /** Pieces of a row of the input that have a scale of their own. */
  readonly pieces: number;
  readonly products: number; // of one output, at most
}

function cutOf({ node }: LinearStep, kind: MatrixKind, rows: number, inDim: number): MatrixCut {
  const shapes = node.outputs.map(({ shape }, i) => ({
    width: shape.at(-1)!,
    products: node.attrs.epilogues[i]!.products as readonly never[],
  }));
  const products = Math.max(...shapes.map((shape) => shape.products.length));
  const columns = shapes.reduce((sum, { width, products: own }) => sum + width * own.length, 0);
  const tile = matrixTile(kind, { rows, columns, products });
  const tiles = matrixTiles(shapes, rows, tile);
  return { tile, products, ...matrixPieces(kind, tiles, { rows, inDim, products }, tile) };
}

function matrixGroup(steps: readonly Step[], at: number, context: LowerContext): MatrixGroup | undefined {
  const { features } = context;
  const step = steps[at];
  if (!features.matrices || step?.kind !== 'kernel') return undefined;
  const group = readLinearGroup(steps, at);
  const linear = group?.linear ?? (step.node.op === 'Linear' ? (step as LinearStep) : undefined);
  if (!linear) return undefined;
  const norm = group?.norm ?? null;
  const layouts = commonLayouts(linear.node.attrs.products, context);
  const width = linear.node.inputs[0]!.shape.at(-1)!;
  const rows = sizeOf(linear.node.inputs[0]!.shape) / Math.max(1, width);
  const fitsNorm = !norm || norm.node.inputs[0]!.shape.at(-1) === width;
  if (!layouts || !fitsNorm) return undefined;
  if (rows <= maxRows && !(group && prefersMatrices(group, rows, layouts, context))) return undefined;
  const kind = kindOf(linear, layouts[0], context);
  const isPaired = linear.node.attrs.epilogues.every(({ products }) => products.length <= 2);
  if (!kind || !isPaired || !takesMatrixRow(width, features.maxThreads)) return undefined;
  const cut = cutOf(linear, kind, rows, width);
  const order = halvesOrder(layouts[0].packing, features.f16);
  const { pieces, splits, tile } = cut;
  const pieceWidth = pieces === 1 ? width : splitDepth(width, pieces, tile);
  const scaleRatio = pieces > splits ? mostScaleRatio(width) : null;
  return { linear, norm, layouts, spec: { kind, rows, width, order, pieces, pieceWidth, scaleRatio }, cut };
}

/** Takes a Linear of many rows, and the norm that only it reads. */
export function selectMatrices(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  const group = matrixGroup(steps, at, context);
  if (!group) return undefined;
  const { linear, norm, spec } = group;
  const held = takeMatrixInput(norm ?? linear, context);
  const made = held ? undefined : matrixInputDispatch(spec, linear, norm, context);
  const taken = norm ? 2 : 1;
  const next = matrixGroup(steps, at + taken, context);
  const value = { ...context.output(linear), place: linear.outputs[0]! };
  const wanted = () => sideWanted(steps, at + taken, value, context);
  const dispatches = new MatrixWriter(group, held ?? made!.input, next, wanted, context).write();
  if (held) for (const use of [held.words, held.scales]) context.release(use);
  return dispatches && { dispatches: [...(made ? [made.dispatch] : []), ...dispatches], steps: taken };
}

/**
 * What a product's sides become. `exact` rounds the input to float16, where no Weight has more precision than that: a
 * model with float32 or bfloat16 Weights stays with float32 arithmetic. `fast` rounds it to signed bytes, but not that of
 * several outputs: where they are attention's queries and keys, that changes what a model says more than all the rest
 * does (SmolLM2-135M's perplexity by 2 %).
 */
function kindOf(
  { node }: LinearStep,
  layout: MatrixLayout,
  { mode, takesHalves }: LowerContext,
): MatrixKind | undefined {
  const { packing, scales } = layout;
  if (packing === 'f32' || !takesHalves) return undefined;
  if (roundsRows(layout, mode) && node.outputs.length === 1) return 'bytes';
  const isPerRow = !scales || scales.groups === 1;
  return isPerRow || scales.size % perVector(packing) === 0 ? 'halves' : undefined;
}

class MatrixWriter {
  readonly linear: LinearStep;
  readonly kind: MatrixKind;
  readonly rows: number;
  readonly layouts: MatrixGroup['layouts'];
  readonly #scales: MatrixMatmulSpec['scales'];

  constructor(
    readonly group: MatrixGroup,
    readonly input: MatrixInput,
    /** What begins with the next step. */
    readonly next: MatrixGroup | undefined,
    /** What some later product of few rows asks of the first output. */
    readonly wanted: () => SideRequest | undefined,
    readonly context: LowerContext,
  ) {
    const { linear, layouts, spec } = group;
    const { kind, rows } = spec;
    this.linear = linear;
    this.layouts = layouts;
    this.kind = kind;
    this.rows = rows;
    const { scales } = layouts[0];
    this.#scales = !scales ? 'none' : scales.groups === 1 ? 'row' : { groupSize: scales.size };
  }

  /** @returns undefined where the adapter or an operand does not allow it */
  write(): Dispatch[] | undefined {
    const { kind, rows, layouts, input, context } = this;
    const { tile, splits, products } = this.group.cut;
    const { features } = context;
    const [layout] = layouts;
    const threads = matrixTileThreads(tile);
    if (matrixSharedBytes(kind, tile, products) > features.maxSharedBytes || threads > features.maxThreads)
      return undefined;
    const writer = context.writer(`matrices ${layout.packing} ${kind} ${rows}x${layout.width}`, threads);
    const pieces = splits === 1 ? null : this.#pieces();
    const parts = this.linear.node.outputs.map((_, i) => this.#part(writer, i, pieces));
    if (parts.some((part) => !part)) return undefined;
    // With few rows every workgroup reads the same input (8 rows of gate and up, H200: 38 us for 44); with many it is
    // read past the fast cache as fast.
    const bind = rows <= fewMatrixRows ? 'bindRead' : 'bind';
    const spec: MatrixMatmulSpec = {
      ...{ kind, rows, inDim: layout.width, packing: layout.packing, rowVectors: layout.rowWords / 4 },
      left: {
        words: writer[bind]('xWords', input.words, 'u32x4'),
        scales: writer[bind]('xScales', input.scales, 'f32'),
        pieces: this.group.spec.pieces,
      },
      ...{ scales: this.#scales, splits, f16: features.f16, parts: parts as MatrixPart[] },
    };
    writeMatrixMatmul(writer.k, spec, tile);
    const count = matrixTiles(spec.parts, rows, tile) * splits;
    if (writer.bound > features.maxBuffers || foldWorkgroups(count)[1] > 1) return undefined;
    const dispatch = writer.in([count, 1, 1], context.step);
    if (!pieces) return [dispatch];
    const outputs = pieces.map((each, output) => ({ output, pieces: each }));
    const sums = { linear: this.linear, rows, splits, outputs };
    const joined = this.#joinForNext(sums) ?? joinPieces(sums, context, this.wanted());
    return joined && [dispatch, joined];
  }

  /** Adds the pieces up row by row, where a norm and another product on matrix units read the sum next. */
  #joinForNext(sums: Pieces): Dispatch | undefined {
    const { linear, next, context } = this;
    const isNext =
      next?.norm && linear.outputs.length === 1 && samePlace(next.norm.inputs[0]!, linear.outputs[0]!);
    return isNext ? joinRows(sums, next, context) : undefined;
  }

  /** Memory of an output's pieces: [splits, products, rows, width]. */
  #pieces(): BufferUse[] {
    const { linear, context } = this;
    const { splits } = this.group.cut;
    return linear.node.outputs.map(({ shape }, i) => {
      const products = linear.node.attrs.epilogues[i]!.products.length;
      return context.scratch(4 * splits * products * this.rows * shape.at(-1)!);
    });
  }

  #part(writer: DispatchWriter, index: number, pieces: readonly BufferUse[] | null): MatrixPart | undefined {
    const { linear, rows, context } = this;
    const { k } = writer;
    const { shape } = linear.node.outputs[index]!;
    const width = shape.at(-1)!;
    const epilogue = linear.node.attrs.epilogues[index]!;
    const products = epilogue.products.map((product) =>
      bindWeights(writer, linear.node.attrs.products[product]!, this.layouts[product]!, 'u32x4'),
    );
    if (pieces) {
      const array = writer.bind('pieces', pieces[index]!, width % 4 === 0 ? 'f32x4' : 'f32');
      return {
        ...{ width, products },
        finish: (row, column, values, count, split) => () => {
          for (const [p, value] of values.entries()) {
            const piece = split
              .mul(values.length)
              .add(p)
              .mul(rows * width);
            storeColumns(k, array, piece.add(row.mul(width)).add(column), value, count);
          }
        },
      };
    }
    const operands = readOperands(writer, context, linear, epilogue, shape, rows);
    if (!operands) return undefined;
    const { use } = context.output(linear, index);
    const isVector = width % 4 === 0 && !readsMemory(context, linear, use);
    const y = writer.bind('y', use, isVector ? 'f32x4' : 'f32');
    return {
      ...{ width, products },
      finish: (row, column, values, count) => {
        const results = Array.from({ length: count }, (_, i) => {
          const own = i === 0 ? column : k.let('column', column.add(i));
          const read = operands.map((operand) => operand(row, own));
          return writeProgram(k, epilogue.program, [...values.map((value) => value.lane(i)), ...read]);
        });
        const place = row.mul(width).add(column);
        const value = k.let('result', count === 4 ? vector(...results) : splat(results[0]!, 4));
        return () => storeColumns(k, y, place, value, count);
      },
    };
  }
}

/** Stores four columns, or the first alone; the array's elements are f32 or, where all rows are whole vectors, f32x4. */
function storeColumns(k: KernelBuilder, array: ArrayRef, place: Expr, value: Expr, count: 1 | 4): void {
  if (array.element === 'f32x4') k.store(array, place.div(4), value);
  else for (let i = 0; i < count; i++) k.store(array, place.add(i), value.lane(i));
}
