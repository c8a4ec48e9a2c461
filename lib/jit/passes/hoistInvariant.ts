// lib/jit/passes/hoistInvariant.ts: graph -> graph. What a loop's body computes from values that no round changes -> once,
// before the loop.

import type { Graph, Node, Op, StructuredNode, Value } from '../graph.js';
import { newValue } from '../graph.js';

/** Repeated in the body at no cost: a captured value would be larger, or read from memory instead of known. */
const free: ReadonlySet<Op> = new Set<Op>([
  ...(['Constant', 'WeightTensor', 'Broadcast', 'Reshape', 'Transpose', 'Slice'] as const),
]);

/** Moves Nodes that depend on captured values and constants alone out of Scans, from the inside out. */
export function hoistInvariant(graph: Graph): Graph {
  const nodes = graph.nodes.flatMap((node): Node[] => {
    if (node.op !== 'Scan') return [node];
    return hoist({ ...node, attrs: { ...node.attrs, body: hoistInvariant(node.attrs.body) } });
  });
  return { ...graph, nodes };
}

function hoist(scan: StructuredNode<'Scan'>): Node[] {
  const { body, carry } = scan.attrs;
  // Values of the body that are the same in each round, and what each is called outside.
  const outside = new Map<Value, Value>(
    body.inputs.slice(carry).map((input, i) => [input, scan.inputs[carry + i]!]),
  );
  const moved: Node[] = [];
  const kept: Node[] = [];
  for (const node of body.nodes) {
    const isSame = node.op !== 'Scan' && node.inputs.every((input) => outside.has(input));
    if (!isSame) kept.push(node);
    else if (free.has(node.op)) {
      kept.push(node);
      moved.push(renamed(node, outside));
    } else moved.push(renamed(node, outside));
  }
  if (moved.every((node) => free.has(node.op))) return [scan];
  return [...moved, withCaptures(scan, kept, outside)];
}

/** The Node outside of the loop: it reads and writes what its values are called there. */
function renamed(node: Node, outside: Map<Value, Value>): Node {
  const inputs = node.inputs.map((input) => outside.get(input)!);
  const isFree = free.has(node.op);
  // A Node that stays in the body as well needs another name here; one that moves keeps its own.
  const outputs = node.outputs.map((output) => (isFree ? newValue(output.dtype, output.shape) : output));
  for (const [i, output] of node.outputs.entries()) outside.set(output, outputs[i]!);
  return { ...node, inputs, outputs } as Node;
}

/** The loop, with an input for each moved value that its body still reads. */
function withCaptures(
  scan: StructuredNode<'Scan'>,
  nodes: readonly Node[],
  outside: ReadonlyMap<Value, Value>,
): StructuredNode<'Scan'> {
  const { body } = scan.attrs;
  const written = new Set<Value>([...body.inputs, ...nodes.flatMap((node) => node.outputs)]);
  const read = new Set<Value>([...nodes.flatMap((node) => node.inputs), ...body.outputs]);
  const missing = [...read].filter((value) => !written.has(value));
  // Inside, each is a value of its own: a value is written once in a whole graph.
  const inner = new Map(missing.map((value) => [value, newValue(value.dtype, value.shape)]));
  const rename = (value: Value): Value => inner.get(value) ?? value;
  const renamedBody: Graph = {
    ...body,
    inputs: [...body.inputs, ...inner.values()],
    nodes: nodes.map((node) => ({ ...node, inputs: node.inputs.map(rename) }) as Node),
    outputs: body.outputs.map(rename),
  };
  return {
    ...scan,
    inputs: [...scan.inputs, ...missing.map((value) => outside.get(value)!)],
    attrs: { ...scan.attrs, body: renamedBody },
  };
}
