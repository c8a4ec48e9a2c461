// lib/jit/passes/removeDead.ts: graph -> graph without the Nodes whose results nothing reads.

import type { Graph, Node, StructuredNode, Value } from '../graph.js';

/** Removes Nodes that no output depends on, in Scans' bodies too, and what Scans capture without need. */
export function removeDead(graph: Graph): Graph {
  const needed = new Set<Value>(graph.outputs);
  const kept: Node[] = [];
  for (const node of [...graph.nodes].reverse()) {
    if (!node.outputs.some((output) => needed.has(output))) continue;
    const live = node.op === 'Scan' ? pruneCaptures(node) : node;
    for (const input of live.inputs) needed.add(input);
    kept.push(live);
  }
  return { ...graph, nodes: kept.reverse() };
}

/** A Scan whose body is pruned, without the captured values that the body no longer reads. */
function pruneCaptures(node: StructuredNode<'Scan'>): StructuredNode<'Scan'> {
  const { carry } = node.attrs;
  const body = removeDead(node.attrs.body);
  const read = new Set([...body.nodes.flatMap((each) => each.inputs), ...body.outputs]);
  const stays = (at: number): boolean => at < carry || read.has(body.inputs[at]!);
  return {
    ...node,
    inputs: node.inputs.filter((_, at) => stays(at)),
    attrs: { ...node.attrs, body: { ...body, inputs: body.inputs.filter((_, at) => stays(at)) } },
  };
}
