// lib/jit/passes/rewrite.ts: what passes share: who reads and who writes a value, replacing Nodes, and descending into
// the bodies of Scans.

import type { Shape } from '../../tensor.js';
import { sameShape } from '../build.js';
import type { BinaryOp, ElementValues, Graph, Node, StructuredNode, StructuredOp, Value } from '../graph.js';
import { newValue } from '../graph.js';

/** A pure function on graphs, with the name that debug output and `--after` use. */
export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph) => Graph;
}

/** Readers and writers of the values of one level of a graph. */
export interface Links {
  /** The Node that writes a value; undefined for an input. */
  producer(value: Value): Node | undefined;
  /** Nodes that read a value, each once. */
  users(value: Value): readonly Node[];
  /** How often a value is read, as a result of the graph too. */
  reads(value: Value): number;
  isOutput(value: Value): boolean;
}

export function linksOf(graph: Graph): Links {
  const producers = new Map<Value, Node>();
  const users = new Map<Value, Set<Node>>();
  const reads = new Map<Value, number>();
  const outputs = new Set(graph.outputs);
  const count = (value: Value): void => void reads.set(value, (reads.get(value) ?? 0) + 1);
  for (const node of graph.nodes) {
    for (const output of node.outputs) producers.set(output, node);
    for (const input of node.inputs) {
      count(input);
      const known = users.get(input) ?? new Set();
      users.set(input, known.add(node));
    }
  }
  graph.outputs.forEach(count);
  return {
    producer: (value) => producers.get(value),
    users: (value) => [...(users.get(value) ?? [])],
    reads: (value) => reads.get(value) ?? 0,
    isOutput: (value) => outputs.has(value),
  };
}

/** Runs a pass on the bodies of a graph's Scans, then on the graph itself. */
export function onEveryLevel(graph: Graph, pass: (graph: Graph) => Graph): Graph {
  const nodes = graph.nodes.map((node): Node => {
    if (node.op !== 'Scan') return node;
    return { ...node, attrs: { ...node.attrs, body: onEveryLevel(node.attrs.body, pass) } };
  });
  return pass({ ...graph, nodes });
}

/**
 * Replaces Nodes where they stand. Values that a replacement does not write any more have to be unused.
 * @param replace the Nodes to put in a Node's place; undefined keeps it
 */
export function replaceNodes(
  graph: Graph,
  replace: (node: Node, links: Links) => readonly Node[] | undefined,
): Graph {
  const links = linksOf(graph);
  return { ...graph, nodes: graph.nodes.flatMap((node) => replace(node, links) ?? [node]) };
}

/** The graph with values replaced wherever they are read. */
export function substitute(graph: Graph, replacements: ReadonlyMap<Value, Value>): Graph {
  if (replacements.size === 0) return graph;
  const follow = (value: Value): Value => {
    let at = value;
    for (let next = replacements.get(at); next; next = replacements.get(at)) at = next;
    return at;
  };
  return {
    ...graph,
    nodes: graph.nodes.map((node) => ({ ...node, inputs: node.inputs.map(follow) }) as Node),
    outputs: graph.outputs.map(follow),
  };
}

/**
 * Brings Nodes into an order in which every input is ready, as close to the given one as that allows.
 * @returns undefined if there is none: some depend on each other in a circle
 */
export function sortNodes(graph: Graph): Graph | undefined {
  const writers = new Map<Value, number>();
  for (const [at, node] of graph.nodes.entries()) for (const output of node.outputs) writers.set(output, at);
  const order: Node[] = [];
  const state = new Uint8Array(graph.nodes.length); // 1: being placed, 2: placed
  const place = (at: number): boolean => {
    if (state[at] === 2) return true;
    if (state[at] === 1) return false;
    state[at] = 1;
    const node = graph.nodes[at]!;
    for (const input of node.inputs) {
      const writer = writers.get(input);
      if (writer !== undefined && !place(writer)) return false;
    }
    state[at] = 2;
    order.push(node);
    return true;
  };
  const isSorted = graph.nodes.every((_, at) => place(at));
  return isSorted ? { ...graph, nodes: order } : undefined;
}

/** A value under another shape; where that is not its own, adds the Reshape. */
export function reshaped(value: Value, shape: Shape, nodes: Node[]): Value {
  if (sameShape(value.shape, shape)) return value;
  const output = newValue(value.dtype, shape);
  nodes.push({ op: 'Reshape', inputs: [value], outputs: [output], attrs: {} });
  return output;
}

/** The value whose memory this one names, through Reshapes. */
export function throughReshapes(value: Value, links: Links): Value {
  const node = links.producer(value);
  return node?.op === 'Reshape' ? throughReshapes(node.inputs[0]!, links) : value;
}

/** The two inputs of a Node of this operation, both ways round where it does not matter. */
export function pairs(node: Node | undefined, op: BinaryOp): readonly (readonly [Value, Value])[] {
  if (node?.op !== op) return [];
  const [a, b] = node.inputs as [Value, Value];
  return op === 'Add' || op === 'Mul' || op === 'Max' || op === 'Min'
    ? [
        [a, b],
        [b, a],
      ]
    : [[a, b]];
}

/** A Node of the given operation; undefined for any other. */
export function asOp<Name extends StructuredOp>(
  node: Node | undefined,
  op: Name,
): StructuredNode<Name> | undefined {
  return node?.op === op ? (node as StructuredNode<Name>) : undefined;
}

/** The number that all of a constant's elements are; undefined if they differ. */
export function onlyNumber(values: ElementValues): number | undefined {
  const [first] = values;
  return values.every((value) => Object.is(value, first)) ? first : undefined;
}

/** The one number of a Constant, through Reshape and Broadcast; undefined for anything else. */
export function literalOf(value: Value | undefined, links: Links): number | undefined {
  const node = value && links.producer(value);
  if (node?.op === 'Constant') return onlyNumber(node.attrs.values);
  if (node?.op === 'Broadcast' || node?.op === 'Reshape') return literalOf(node.inputs[0], links);
  return undefined;
}
