// lib/jit/passes/foldConstants.ts: graph -> graph in which what depends on small constants alone is a constant.

import { sizeOf } from '../../tensor.js';
import type { Graph, Node, Op, StructuredNode, Value } from '../graph.js';
import { isScalarNode } from '../graph.js';
import { runNode } from '../targets/reference/interpret.js';
import { onEveryLevel } from './rewrite.js';

const maxElements = 4096; // larger ones cost more in memory than they save in time
const maxCopies = 64; // a broadcast number is best left one, but what no program reads (a cache's count) has to be stored
const foldable: ReadonlySet<Op> = new Set<Op>([
  ...(['Reshape', 'Transpose', 'Slice', 'Concat', 'Reduce', 'Cumulative', 'Gather'] as const),
]);

/** Computes Nodes whose inputs are all constants, with the reference target's arithmetic. */
export function foldConstants(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => {
    const constants = new Map<Value, StructuredNode<'Constant'>>();
    const nodes = level.nodes.map((node): Node => {
      const folded = node.op === 'Constant' ? node : fold(node, constants);
      if (folded?.op === 'Constant') constants.set(folded.outputs[0]!, folded);
      return folded ?? node;
    });
    return { ...level, nodes };
  });
}

function fold(
  node: Node,
  constants: ReadonlyMap<Value, StructuredNode<'Constant'>>,
): StructuredNode<'Constant'> | undefined {
  const [output] = node.outputs as [Value];
  const inputs = node.inputs.map((input) => constants.get(input));
  const isKnown = inputs.length > 0 && inputs.every((input) => input !== undefined);
  const isFoldable = isScalarNode(node) || foldable.has(node.op);
  const most = node.op === 'Broadcast' ? maxCopies : isFoldable ? maxElements : -1;
  if (!isKnown || sizeOf(output.shape) > most) return undefined;
  const tensors = node.inputs.map(({ dtype, shape }, i) => ({
    dtype,
    shape,
    values: inputs[i]!.attrs.values,
  }));
  const { values } = runNode(node, tensors, [])[0]!;
  return { op: 'Constant', inputs: [], outputs: [output], attrs: { values } };
}
