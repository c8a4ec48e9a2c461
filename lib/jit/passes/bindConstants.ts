// lib/jit/passes/bindConstants.ts: graph -> graph. A product with a constant matrix -> Linear: the matrix becomes a
// Weight, which targets pack for their fastest loop when they bind it.

import type { FloatWeight } from '../../tensor.js';
import { floatWeight } from '../../tensor.js';
import type { ElementValues, Graph, Node, StructuredNode, Value, WeightSlot } from '../graph.js';
import { formatOf } from '../graph.js';
import { asOp, linksOf } from './rewrite.js';

/** Makes a Linear of each BatchMatMul whose second factor is a two-dimensional constant. */
export function bindConstants(graph: Graph): Graph {
  const weights: WeightSlot[] = [...graph.weights];
  const known = new Map<ElementValues, number>();
  const indexOf = (values: Float32Array, shape: readonly number[]): number => {
    const found = known.get(values);
    if (found !== undefined) return found;
    const weight: FloatWeight = floatWeight(values, shape);
    const index = weights.push({ format: formatOf(weight), path: 'captured', weight }) - 1;
    known.set(values, index);
    return index;
  };
  const visit = (level: Graph): Graph => {
    const links = linksOf(level);
    const nodes = level.nodes.map((node): Node => {
      if (node.op === 'Scan') return { ...node, attrs: { ...node.attrs, body: visit(node.attrs.body) } };
      if (node.op !== 'BatchMatMul' || node.attrs.transposeA) return node;
      const constant = asOp(links.producer(node.inputs[1]!), 'Constant');
      if (!constant) return node;
      const [{ shape }] = constant.outputs as [Value];
      const { values } = constant.attrs;
      const isMatrix = shape.length === 2 && values instanceof Float32Array;
      return isMatrix ? toLinear(node, indexOf(values, shape)) : node;
    });
    return { ...level, nodes };
  };
  const visited = visit(graph);
  return { ...visited, weights };
}

function toLinear(node: StructuredNode<'BatchMatMul'>, weight: number): StructuredNode<'Linear'> {
  const { transposeB, epilogue } = node.attrs;
  const [x, , ...operands] = node.inputs;
  return {
    ...node,
    op: 'Linear',
    inputs: [x!, ...operands],
    attrs: { products: [{ weight, transposed: transposeB, columns: null }], epilogues: [epilogue] },
  };
}
