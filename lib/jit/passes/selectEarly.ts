// lib/jit/passes/selectEarly.ts: graph -> graph. Rows that nobody reads are not computed: where few rows of a result are
// taken (a prompt's last token), they are taken of what the result is made of instead, as far up as operations work on
// each row by itself. Source: selections pushed below projections, as in databases.

import type { Shape } from '../../tensor.js';
import { sizeOf } from '../../tensor.js';
import type { Attributes, Graph, Node, StructuredNode, Value } from '../graph.js';
import { newValue } from '../graph.js';
import { onEveryLevel, reshaped, sortNodes, substitute } from './rewrite.js';
import { type RowWise, rowAxes, rowWise } from './rowWise.js';

/** So many rows at least for each that is taken: to copy those costs little beside a product of the others. */
const rowsPerTaken = 4;

/** What Nodes that take the same rows, maybe of different values, have in common. */
interface Selection {
  /** The first of them. */
  readonly node: StructuredNode<'Gather' | 'GatherNd' | 'Slice'>;
  /** [lead..., inner...] -> [taken..., inner...], whatever the inner axes are */
  readonly lead: Shape;
  readonly taken: Shape;
  /** Their operation, attributes, indices, lead and taken as text. */
  readonly key: string;
}

/** Takes rows before they are worked on, where all that reads the work takes the same ones. */
export function selectEarly(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => {
    const selections = new Map(level.nodes.flatMap(selectionOf).map((each) => [each.key, each]));
    return [...selections.values()].reduce(moveUp, level);
  });
}

/** The rows that a Node takes: one Selection, or none where they are too many. */
function selectionOf(node: Node): Selection[] {
  if (node.op !== 'Gather' && node.op !== 'GatherNd' && node.op !== 'Slice') return [];
  const [x, ...indices] = node.inputs as [Value, ...Value[]];
  const [output] = node.outputs as [Value];
  const axes = leadAxes(node, x);
  const lead = x.shape.slice(0, axes);
  const taken = output.shape.slice(0, output.shape.length - (x.shape.length - axes));
  if (sizeOf(taken) === 0 || sizeOf(lead) < sizeOf(taken) * rowsPerTaken) return [];
  const attrs = node.op === 'Slice' ? cutFirst(node.attrs, axes, axes) : node.attrs;
  const key = JSON.stringify([node.op, attrs, indices.map(({ id }) => id), lead, taken]);
  return [{ node, lead, taken, key }];
}

/** How many of the first axes of x a Node takes something along. */
function leadAxes({ op, attrs, outputs, inputs }: Selection['node'], x: Value): number {
  if (op === 'Gather') return attrs.axis + 1;
  if (op === 'GatherNd') return inputs[1]!.shape.at(-1)!;
  const isCut = (size: number, axis: number): boolean =>
    size !== outputs[0]!.shape[axis] || attrs.strides[axis] !== 1;
  return x.shape.findLastIndex(isCut) + 1;
}

/** A Slice's attributes for another rank: its first axes as they are, all of the others. */
function cutFirst({ begin, strides }: Attributes['Slice'], axes: number, rank: number): Attributes['Slice'] {
  const rest = new Array<number>(rank - axes);
  return {
    begin: [...begin.slice(0, axes), ...rest.fill(0)],
    strides: [...strides.slice(0, axes), ...rest.fill(1)],
  };
}

/** The level with a selection as far up as it can go, if a product comes to work on fewer rows by that. */
function moveUp(level: Graph, selection: Selection): Graph {
  const ends = new Set(level.nodes.filter((node) => selectionOf(node)[0]?.key === selection.key));
  const passed = passedBy(level, ends, sizeOf(selection.lead));
  const products = [...passed.values()].filter(({ work }) => work === 'product').length;
  const nodes: Node[] = [];
  const known = new Map<Value, Value>(); // a value -> its rows that are taken, [count, inner...]
  let takes = 0;
  const rowsOf = (value: Value): Value => {
    const rows = known.get(value);
    if (rows) return rows;
    takes++;
    const taken = take(selection, value, nodes);
    known.set(value, taken);
    return taken;
  };
  const results = new Map<Value, Value>();
  for (const node of level.nodes) {
    const wise = passed.get(node);
    const [output] = node.outputs as [Value];
    if (wise) known.set(output, wise.on(sizeOf(selection.taken), rowsOf, nodes));
    else if (ends.has(node)) results.set(output, reshaped(rowsOf(node.inputs[0]!), output.shape, nodes));
    else nodes.push(node);
  }
  // As many takes as ends were there before; a product pays for each further one.
  if (products === 0 || takes > products + ends.size) return level;
  // What says which rows may have been computed later than what they are taken of now.
  return sortNodes(substitute({ ...level, nodes }, results)) ?? level;
}

/** What a selection can pass from `ends` upwards: Nodes whose results are read for its rows alone. */
function passedBy(level: Graph, ends: ReadonlySet<Node>, rows: number): Map<Node, RowWise> {
  const whole = new Set<Value>(level.outputs); // read for other rows too
  const wanted = new Set<Value>();
  const found: [Node, RowWise][] = [];
  for (const node of [...level.nodes].reverse()) {
    const [output] = node.outputs as [Value];
    const isEnd = ends.has(node);
    const wise = !isEnd && wanted.has(output) && !whole.has(output) ? rowWise(node, rows) : undefined;
    if (wise) found.unshift([node, wise]);
    const operands = isEnd ? node.inputs.slice(0, 1) : (wise?.operands ?? []);
    const others = isEnd ? node.inputs.slice(1) : (wise?.others ?? node.inputs);
    for (const value of operands) wanted.add(value);
    for (const value of others) whole.add(value);
  }
  // A Reshape above all work costs nothing either way: what it reads may be part of something that is fused.
  const worked = new Set<Value>();
  for (const [node, { operands, work }] of found)
    if (work !== 'none' || operands.some((value) => worked.has(value))) worked.add(node.outputs[0]!);
  return new Map(found.filter(([node]) => worked.has(node.outputs[0]!)));
}

/** Adds the Nodes that take rows of a value. @returns [count, inner...] */
function take({ node, lead, taken }: Selection, value: Value, nodes: Node[]): Value {
  const inner = value.shape.slice(rowAxes(value.shape, sizeOf(lead)));
  const from = reshaped(value, [...lead, ...inner], nodes);
  const to = newValue(value.dtype, [...taken, ...inner]);
  const attrs = node.op === 'Slice' ? cutFirst(node.attrs, lead.length, from.shape.length) : node.attrs;
  nodes.push({ ...node, inputs: [from, ...node.inputs.slice(1)], outputs: [to], attrs } as Node);
  return reshaped(to, [sizeOf(taken), ...inner], nodes);
}
