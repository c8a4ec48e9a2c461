// lib/jit/passes/ownFills.ts: graph (kernel level) -> graph. Memory full of one number that several Nodes update in place
// (an empty cache: mergeEqual made one of all layers') -> one for each of them, so that the plan need not copy it.

import type { Graph, Node, Value } from '../graph.js';
import { newValue } from '../graph.js';
import { filledWith, updatedInput } from '../inPlace.js';
import { linksOf, onEveryLevel } from './rewrite.js';

/** Gives each Node that updates a fill in place a fill of its own, just before it. */
export function ownFills(graph: Graph): Graph {
  return onEveryLevel(graph, fillsOfLevel);
}

function fillsOfLevel(graph: Graph): Graph {
  const links = linksOf(graph);
  const left = new Map<Value, number>(); // readers that still read the shared one
  const nodes = graph.nodes.flatMap((node): Node[] => {
    const fills: Node[] = [];
    const own = (value: Value): Value => {
      const fill = links.producer(value);
      const readers = left.get(value) ?? links.reads(value);
      if (!fill || filledWith(fill) === undefined || readers === 1) return value;
      left.set(value, readers - 1);
      const output = newValue(value.dtype, value.shape);
      fills.push({ ...fill, outputs: [output] } as Node);
      return output;
    };
    // Those that are updated stand first, in the outputs' order.
    const inputs = node.inputs.map((input, i) => (updatedInput(node, i) === input ? own(input) : input));
    return [...fills, { ...node, inputs } as Node];
  });
  return { ...graph, nodes };
}
