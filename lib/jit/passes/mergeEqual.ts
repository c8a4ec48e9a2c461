// lib/jit/passes/mergeEqual.ts: graph -> graph in which what was computed twice is computed once. Source: common
// subexpression elimination.

import type { Graph, Node, Value } from '../graph.js';
import { onEveryLevel, substitute } from './rewrite.js';

/** Merges Nodes that do the same to the same values. */
export function mergeEqual(graph: Graph): Graph {
  return onEveryLevel(graph, mergeLevel);
}

function mergeLevel(graph: Graph): Graph {
  const first = new Map<string, Node>();
  const replacements = new Map<Value, Value>();
  const numbers = new Map<object, number>();
  const numberOf = (thing: object): number => {
    const number = numbers.get(thing) ?? numbers.size;
    numbers.set(thing, number);
    return number;
  };
  const nodes: Node[] = [];
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((input) => replacements.get(input) ?? input);
    const key = `${node.op}(${inputs.map(numberOf)})${typesOf(node)}${attributesOf(node, numberOf)}`;
    const earlier = node.op === 'Scan' ? undefined : first.get(key);
    if (!earlier) {
      first.set(key, node);
      nodes.push(node);
      continue;
    }
    for (const [i, output] of node.outputs.entries()) replacements.set(output, earlier.outputs[i]!);
  }
  return substitute({ ...graph, nodes }, replacements);
}

function typesOf(node: Node): string {
  return node.outputs.map(({ dtype, shape }) => `${dtype}[${shape}]`).join();
}

const comparedElements = 64;

/** Attributes as text; large constants are the same only if they are the same array. */
function attributesOf(node: Node, numberOf: (thing: object) => number): string {
  if (node.op !== 'Constant') return JSON.stringify(node.attrs);
  const { values } = node.attrs;
  if (values.length > comparedElements) return `array ${numberOf(values)}`;
  return Array.from(values, (value) => (Object.is(value, -0) ? '-0' : String(value))).join();
}
