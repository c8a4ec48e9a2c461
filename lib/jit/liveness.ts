// lib/jit/liveness.ts: a graph, one level of it -> until when each value's memory is needed: what plan.ts gives back or
// writes over, and when.

import type { Graph, Node, Value } from './graph.js';

/** First and last of the Nodes that may run at the same time. */
interface Span {
  readonly first: number;
  readonly last: number;
}

/** Nodes go by their index in the graph, values by their storage: one of those that share its memory. */
export class Liveness {
  /** Index of the last Node that reads the memory; Infinity for the graph's outputs. */
  readonly #lastUse = new Map<Value, number>();
  /** For each Node its group's; the Node alone, if it is in none. */
  readonly #spans: readonly Span[];
  readonly #nodes: readonly Node[];
  readonly #storageOf: (value: Value) => Value;

  /** @param groups number of each grouped Node's group; a group's Nodes follow each other */
  constructor(graph: Graph, groups: ReadonlyMap<Node, number>, storageOf: (value: Value) => Value) {
    this.#nodes = graph.nodes;
    this.#storageOf = storageOf;
    this.#spans = spansOf(graph.nodes, groups);
    graph.nodes.forEach((node, index) => {
      for (const input of node.inputs) this.#lastUse.set(storageOf(input), index);
    });
    for (const output of graph.outputs) this.#lastUse.set(storageOf(output), Number.POSITIVE_INFINITY);
  }

  /** True if no Node after this one reads the memory, and this one does. */
  endsAt(storage: Value, index: number): boolean {
    return this.#lastUse.get(storage) === index;
  }

  /** True if a Node may write over memory that it reads: that ends here, and nothing at the same time reads it. */
  isReadLastBy(storage: Value, index: number): boolean {
    const inputs = this.#together(index).flatMap((node) => node.inputs);
    const readers = inputs.filter((input) => this.#storageOf(input) === storage).length;
    return this.endsAt(storage, index) && readers === 1;
  }

  /** Memory that nothing needs any more once a Node has run. In a group all of it lives until the last one has. */
  endedBy(index: number): Value[] {
    if (index < this.#spans[index]!.last) return [];
    const used = this.#together(index).flatMap((node) => [...node.inputs, ...node.outputs]);
    const storages = new Set(used.map((value) => this.#storageOf(value)));
    return [...storages].filter((storage) => (this.#lastUse.get(storage) ?? -1) <= index);
  }

  /** The Nodes that may run at the same time as this one, it too. */
  #together(index: number): readonly Node[] {
    const { first, last } = this.#spans[index]!;
    return this.#nodes.slice(first, last + 1);
  }
}

function spansOf(nodes: readonly Node[], groups: ReadonlyMap<Node, number>): Span[] {
  const spans: Span[] = [];
  for (let first = 0; first < nodes.length; ) {
    const group = groups.get(nodes[first]!);
    const isSame = (node: Node | undefined): boolean =>
      group !== undefined && node !== undefined && groups.get(node) === group;
    let last = first;
    while (isSame(nodes[last + 1])) last++;
    for (; spans.length <= last; ) spans.push({ first, last });
    first = last + 1;
  }
  return spans;
}
