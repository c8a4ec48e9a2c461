// lib/jit/passes/rowWise.ts: a Node -> what it does to a row by itself, if it does. A row is all that lies behind the
// first axes of a value: of [batch, query, dim] with batch * query rows, dim numbers that are neighbours in memory.

import type { Shape } from '../../tensor.js';
import { sizeOf } from '../../tensor.js';
import { sameShape } from '../build.js';
import type { Node, Op, StructuredNode, Value } from '../graph.js';
import { isScalarNode, newValue } from '../graph.js';
import { reshaped } from './rewrite.js';

/** A Node whose output's row i is made of row i of its `operands`, and of all of its other inputs. */
export interface RowWise {
  readonly operands: readonly Value[];
  readonly others: readonly Value[];
  /** What a row costs: its product with a matrix, anything less, or nothing (a Reshape). */
  readonly work: 'product' | 'other' | 'none';
  /**
   * Adds Nodes that do the same to other rows.
   * @param rowsOf an operand's other rows [count, inner...]
   * @returns the output's [count, inner...]
   */
  on(count: number, rowsOf: (operand: Value) => Value, nodes: Node[]): Value;
}

/** Operations that may make a number of NaN. */
const dropNan: ReadonlySet<Op> = new Set<Op>(['Select', 'Sign', 'Pow']);

/**
 * How many of the first axes count the rows.
 * @returns undefined if no number of them does
 */
export function rowAxes(shape: Shape, rows: number): number | undefined {
  const last = shape.findIndex((_, axis) => sizeOf(shape.slice(0, axis + 1)) === rows);
  return last >= 0 && sizeOf(shape) > 0 ? last + 1 : undefined;
}

/**
 * What a Node does to a row; undefined if rows mix in it. All of them make NaN of a row of NaN, so that what an index
 * outside gives is the same, whether it is looked up before or after.
 */
export function rowWise(node: Node, rows: number): RowWise | undefined {
  const [output] = node.outputs as [Value];
  const axes = rowAxes(output.shape, rows);
  if (axes === undefined || output.dtype !== 'f32' || dropNan.has(node.op)) return undefined;
  if (isScalarNode(node) || node.op === 'Broadcast') return broadcasting(node, axes);
  return node.op === 'Reshape' ? reshaping(node, axes, rows) : structured(node, axes);
}

function reshaping(node: Node, axes: number, rows: number): RowWise | undefined {
  const [x] = node.inputs as [Value];
  if (rowAxes(x.shape, rows) === undefined) return undefined;
  const inner = node.outputs[0]!.shape.slice(axes);
  const on: RowWise['on'] = (count, rowsOf, nodes) => reshaped(rowsOf(x), [count, ...inner], nodes);
  return { operands: [x], others: [], work: 'none', on };
}

/** Element by element: an input has the output's rows, or one row that all of them read. */
function broadcasting(node: Node, axes: number): RowWise | undefined {
  const [output] = node.outputs as [Value];
  const hasRows = ({ shape }: Value): boolean =>
    shape.length === output.shape.length && sameShape(shape.slice(0, axes), output.shape.slice(0, axes));
  const rowOf = ({ shape }: Value): Shape =>
    shape.slice(Math.max(0, axes + shape.length - output.shape.length));
  const operands = node.inputs.filter(hasRows);
  const others = node.inputs.filter((input) => !hasRows(input));
  const areShared = others.every((input) => sizeOf(rowOf(input)) === sizeOf(input.shape));
  const areFloat = node.inputs.every(({ dtype }) => dtype === 'f32');
  if (operands.length === 0 || !areShared || !areFloat) return undefined;
  const on: RowWise['on'] = (count, rowsOf, nodes) => {
    const inputs = node.inputs.map((input) =>
      hasRows(input) ? rowsOf(input) : reshaped(input, rowOf(input), nodes),
    );
    return pushed({ ...node, inputs } as Node, axes, count, nodes);
  };
  return { operands, others, work: 'other', on };
}

/** What its first input's rows go through; the other inputs are the same for all rows. */
function structured(node: Node, axes: number): RowWise | undefined {
  const [x, ...others] = node.inputs as [Value, ...Value[]];
  const hasRows =
    x?.dtype === 'f32' && sameShape(x.shape.slice(0, axes), node.outputs[0]!.shape.slice(0, axes));
  const attrs = hasRows ? onOneAxis(node, axes) : undefined;
  if (!attrs) return undefined;
  const isProduct = node.op === 'Linear' || node.op === 'BatchMatMul';
  const on: RowWise['on'] = (count, rowsOf, nodes) =>
    pushed({ ...node, inputs: [rowsOf(x), ...others], attrs } as Node, axes, count, nodes);
  return { operands: [x], others, work: isProduct ? 'product' : 'other', on };
}

/** Adds a Node whose output has so many rows on one axis instead of `axes`. */
function pushed(node: Node, axes: number, count: number, nodes: Node[]): Value {
  const [{ dtype, shape }] = node.outputs as [Value];
  const output = newValue(dtype, [count, ...shape.slice(axes)]);
  nodes.push({ ...node, outputs: [output] } as Node);
  return output;
}

/** A Node's attributes where its rows take one axis instead of `axes`; undefined if it mixes rows. */
function onOneAxis(node: Node, axes: number): Node['attrs'] | undefined {
  const isLastInside = axes < node.inputs[0]!.shape.length;
  switch (node.op) {
    case 'Norm':
    case 'Softmax':
      return isLastInside ? node.attrs : undefined;
    case 'Linear':
      return isLastInside && node.inputs.length === 1 ? node.attrs : undefined;
    case 'BatchMatMul':
      return isLastInside && isMatrixProduct(node) ? node.attrs : undefined;
    case 'Reduce': {
      const { kind, first, last } = node.attrs;
      return first >= axes ? { kind, first: first - axes + 1, last: last - axes + 1 } : undefined;
    }
    case 'Transpose': {
      const { perm } = node.attrs;
      const isApart = perm.slice(0, axes).every((from, axis) => from === axis);
      return isApart ? { perm: [0, ...perm.slice(axes).map((axis) => axis - axes + 1)] } : undefined;
    }
    case 'Slice': {
      const { begin, strides } = node.attrs;
      const isApart = begin.slice(0, axes).every((from, axis) => from === 0 && strides[axis] === 1);
      return isApart ? { begin: [0, ...begin.slice(axes)], strides: [1, ...strides.slice(axes)] } : undefined;
    }
    default:
      return undefined;
  }
}

/** x [rows, k] times one matrix, [k, n] or [n, k]. */
function isMatrixProduct({ inputs, attrs }: StructuredNode<'BatchMatMul'>): boolean {
  const [x, matrix, ...operands] = inputs as [Value, Value, ...Value[]];
  const areMatrices = x.shape.length === 2 && matrix.shape.length === 2;
  return areMatrices && operands.length === 0 && !attrs.transposeA;
}
