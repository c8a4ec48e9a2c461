// lib/jit/targets/webgpu/kernels/problem.ts: a group around a Linear -> what a matrix-vector kernel has to do for it, if
// it can, and whether it may read its input as signed bytes.

import { sizeOf } from '../../../../tensor.js';
import type { Mode } from '../../../target.js';
import type { LowerContext } from '../context.js';
import type { MatrixLayout } from '../layout.js';
import { blockSize, type Limbs } from './activations.js';
import { perVector } from './dots.js';
import type { LinearGroup } from './group.js';
import { commonLayouts } from './linearParts.js';
import { leastMatrixRows } from './tuning.js';

/** More rows than this are a matrix-matrix product. */
export const maxRows = 8;

/** What all products of a group share. */
export interface Problem {
  readonly rows: number;
  readonly inDim: number;
  readonly layout: MatrixLayout;
  readonly layouts: readonly MatrixLayout[]; // one a product
  /** The input may come as integers, each of so many signed bytes. */
  readonly takesBytes: boolean;
  readonly limbs: Limbs;
}

/** @returns undefined for what matvec.ts does not do: many rows, rows of odd lengths, Weights of different kinds */
export function problemOf(group: LinearGroup, context: LowerContext): Problem | undefined {
  const { norm, linear, chains } = group;
  const { products } = linear.node.attrs;
  const x = (norm ?? linear).node.inputs[0]!;
  const inDim = linear.node.inputs[0]!.shape.at(-1)!;
  const rows = sizeOf(x.shape) / Math.max(1, inDim);
  const layouts = commonLayouts(products, context);
  if (!layouts) return undefined;
  const [layout] = layouts;
  const vector = perVector(layout.packing);
  const isWhole = inDim > 0 && inDim % vector === 0 && (!layout.scales || isWholeScale(layout, vector));
  const fitsNorm = !norm || x.shape.at(-1) === inDim;
  const fitsPairs = chains.every(({ rotary }) => !rotary || rotary.node.inputs[0]!.shape[2] === 1);
  const few = rows >= 1 && rows <= maxRows && !prefersMatrices(group, rows, layouts, context);
  if (!few || !isWhole || !fitsNorm || !fitsPairs) return undefined;
  const limbs = context.mode === 'fast' ? 1 : 3;
  return { rows, inDim, layout, layouts, takesBytes: takesBytes(group, layout, inDim, context), limbs };
}

/** True where matrix units may be given a product's input in signed bytes: each Weight row has one scale. */
export function roundsRows({ packing, scales }: MatrixLayout, mode: Mode): boolean {
  return mode === 'fast' && packing === 'int8' && scales?.groups === 1;
}

/**
 * True for few rows that matrix units do faster all the same, though their input and their sums take dispatches of their
 * own: those of the largest products.
 */
export function prefersMatrices(
  { linear, chains }: Pick<LinearGroup, 'linear' | 'chains'>,
  rows: number,
  layouts: readonly MatrixLayout[],
  { features, mode, matrixWeights }: LowerContext,
): boolean {
  const isPlain = chains.every(({ rotary, append, largest }) => !rotary && !append && !largest);
  const { epilogues } = linear.node.attrs;
  const columns = linear.node.outputs.map(({ shape }, i) => shape.at(-1)! * epilogues[i]!.products.length);
  const weights = columns.reduce((sum, count) => sum + count) * layouts[0]!.width;
  return (
    features.matrices &&
    roundsRows(layouts[0]!, mode) &&
    isPlain &&
    rows >= leastMatrixRows &&
    weights >= matrixWeights
  );
}

function isWholeScale({ scales }: MatrixLayout, vector: number): boolean {
  return !scales || scales.groups === 1 || scales.size % vector === 0;
}

function takesBytes(
  { norm }: LinearGroup,
  { packing }: MatrixLayout,
  inDim: number,
  context: LowerContext,
): boolean {
  const isInteger = packing === 'int8' || packing === 'int4';
  const comesOut = !norm || (norm.node.attrs.kind === 'rms' && !norm.node.attrs.biased);
  return context.features.packedDot && isInteger && comesOut && inDim % blockSize === 0;
}
