// lib/jit/passes/joinLinears.ts: graph -> graph, at the kernel level. Linears of the same x (Q, K and V) -> one with
// several outputs: x is read, and on integer Weights quantized, once, and threads meet once.

import type { Epilogue, Graph, Node, StructuredNode, Value, WeightFormat } from '../graph.js';
import { sortNodes } from './rewrite.js';

type Linear = StructuredNode<'Linear'>;

/** Joins Linears that read the same x and do not depend on each other. */
export function joinLinears(graph: Graph): Graph {
  return joinLevel(graph, graph);
}

function joinLevel(level: Graph, root: Graph): Graph {
  const nodes = level.nodes.map((node): Node => {
    if (node.op !== 'Scan') return node;
    return { ...node, attrs: { ...node.attrs, body: joinLevel(node.attrs.body, root) } };
  });
  let held: Graph = { ...level, nodes };
  const groups = new Map<Value, Linear[]>();
  for (const node of nodes) {
    if (node.op === 'Linear') groups.set(node.inputs[0]!, [...(groups.get(node.inputs[0]!) ?? []), node]);
  }
  for (const [, group] of groups) {
    let [joined] = group as [Linear];
    for (const next of group.slice(1)) {
      if (layoutOf(joined, root) !== layoutOf(next, root)) continue;
      const both = join(joined, next);
      const sorted = sortNodes({
        ...held,
        nodes: held.nodes.flatMap((node) => (node === joined ? [both] : node === next ? [] : [node])),
      });
      if (!sorted) continue; // one needs the other's result
      held = sorted;
      joined = both;
    }
  }
  return held;
}

/** How a Linear's Weights are stored: kernels for different layouts do not mix. */
function layoutOf(node: Linear, root: Graph): string {
  const texts = node.attrs.products.map(({ weight }) => formatText(root.weights[weight]!.format));
  return [...new Set(texts)].join();
}

function formatText(format: WeightFormat): string {
  if (format.kind === 'float') return format.dtype;
  const { granularity } = format;
  return `${format.kind} ${granularity.per} ${granularity.per === 'group' ? granularity.size : ''}`;
}

function join(a: Linear, b: Linear): Linear {
  const products = a.attrs.products.length;
  const inputs = a.inputs.length - 1; // b's x is a's
  const shifted = b.attrs.epilogues.map(
    (epilogue): Epilogue => ({
      ...epilogue,
      products: epilogue.products.map((product) => product + products),
      operands: epilogue.operands.map((operand) => ({
        ...operand,
        input: operand.input === 0 ? 0 : operand.input + inputs,
      })),
    }),
  );
  return {
    ...a,
    inputs: [...a.inputs, ...b.inputs.slice(1)],
    outputs: [...a.outputs, ...b.outputs],
    attrs: {
      products: [...a.attrs.products, ...b.attrs.products],
      epilogues: [...a.attrs.epilogues, ...shifted],
    },
  };
}
