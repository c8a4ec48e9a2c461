// lib/jit/passes/groupKernels.ts: graph (kernel level) -> the same graph, its Nodes in an order in which those that one
// dispatch can do together stand together, and which those are. For targets where a dispatch costs more than its work;
// what a Node computes does not change, so a target may still run each by itself. plan.ts keeps what a group reads
// until its last Node has run.
//
// Around a Linear: the Norm that only it reads, before; rotary positions and the write to a cache, after, where they
// take its result element by element (one query a row). After a Linear: the choice of its largest element. A change of
// layout alone (a transpose), which takes no dispatch of its own: with what it is made for, rotary positions and the write
// to a cache, or after attention.

import type { Graph, Node, StructuredNode, Value } from '../graph.js';
import type { Links } from './rewrite.js';
import { linksOf } from './rewrite.js';

/** A graph in the groups' order, and the number of each grouped Node's group; Reshapes inside belong to it too. */
export interface GroupedGraph {
  readonly graph: Graph;
  readonly groups: ReadonlyMap<Node, number>;
}

/** Finds groups on every level of a graph. */
export function groupKernels(graph: Graph): GroupedGraph {
  const groups = new Map<Node, number>();
  let count = 0;
  const visit = (level: Graph): Graph => {
    const nodes = level.nodes.map((node): Node => {
      return node.op === 'Scan' ? { ...node, attrs: { ...node.attrs, body: visit(node.attrs.body) } } : node;
    });
    const inner = { ...level, nodes };
    const { graph: ordered, accepted } = orderGroups(inner, findGroups(inner));
    for (const group of accepted) {
      for (const node of group) groups.set(node, count);
      count++;
    }
    return ordered;
  };
  return { graph: visit(graph), groups };
}

function findGroups(level: Graph): Node[][] {
  const links = linksOf(level);
  return level.nodes.flatMap((node) => {
    if (node.op === 'Elementwise') return movedTo(node, links);
    if (node.op === 'CachedAttention') return movedAfter(node, links);
    if (node.op !== 'Linear') return [];
    const before = normBefore(node, links);
    const after = node.outputs.flatMap((output) => chainAfter(output, links));
    return before.length + after.length > 0 ? [[...before, node, ...after]] : [];
  });
}

/** True for a Node that reads one value through a view and changes nothing in it. */
export function isMove(node: Node): node is StructuredNode<'Elementwise'> {
  return node.op === 'Elementwise' && node.attrs.program.length === 1 && node.inputs.length === 1;
}

/** A change of layout and what alone reads it: Rotary, CacheAppend, or both. */
function movedTo(move: Node, links: Links): Node[][] {
  if (!isMove(move)) return [];
  const group: Node[] = [move];
  for (let value = move.outputs[0]!; links.reads(value) === 1 && !links.isOutput(value); ) {
    const [node] = links.users(value) as [Node];
    const isRotary = node.op === 'Rotary' && node.inputs[0] === value;
    if (!isRotary && !(node.op === 'CacheAppend' && node.inputs[1] === value)) break;
    group.push(node);
    if (!isRotary) break;
    value = node.outputs[0]!;
  }
  return group.length > 1 ? [group] : [];
}

/** Attention and the change of its result's layout. */
function movedAfter(attention: Node, links: Links): Node[][] {
  const [mixed] = attention.outputs as [Value];
  if (links.reads(mixed) !== 1 || links.isOutput(mixed)) return [];
  const [user] = links.users(mixed) as [Node];
  return isMove(user) ? [[attention, user]] : [];
}

/** The Norm that only this Linear reads, and the Reshapes between. */
function normBefore(linear: StructuredNode<'Linear'>, links: Links): Node[] {
  const path: Node[] = [];
  for (let value = linear.inputs[0]!; links.reads(value) === 1 && !links.isOutput(value); ) {
    const node = links.producer(value);
    if (node?.op === 'Norm') return [node, ...path];
    if (node?.op !== 'Reshape') break;
    path.unshift(node);
    value = node.inputs[0]!;
  }
  return [];
}

/** What a Linear's output goes through on its way: Rotary, CacheAppend, or the largest of each row. */
function chainAfter(output: Value, links: Links): Node[] {
  const taken: Node[] = [];
  let pending: Node[] = []; // Reshapes that only count if something follows
  for (let value = output; links.reads(value) === 1 && !links.isOutput(value); ) {
    const [node] = links.users(value) as [Node];
    if (node.op === 'Reshape') pending.push(node);
    else if (isElementChain(node, value) || isRowMaximum(node, value)) {
      taken.push(...pending, node);
      pending = [];
      if (node.op !== 'Rotary') break;
    } else break;
    value = node.outputs[0]!;
  }
  return taken;
}

/** Rotary and CacheAppend of one query a row: then [batch, heads, 1, headDim] is the Linear's own order. */
function isElementChain(node: Node, value: Value): boolean {
  if (node.op === 'Rotary') return node.inputs[0] === value && value.shape[2] === 1;
  return node.op === 'CacheAppend' && node.inputs[1] === value && value.shape[2] === 1;
}

function isRowMaximum(node: Node, value: Value): boolean {
  if (node.op !== 'Reduce' || node.attrs.kind !== 'ArgMax') return false;
  return node.attrs.first === value.shape.length - 1 && node.attrs.last === node.attrs.first;
}

/** Accepts groups whose Nodes can stand together; one that would need its own result from outside is left out. */
function orderGroups(
  level: Graph,
  candidates: readonly (readonly Node[])[],
): { graph: Graph; accepted: readonly (readonly Node[])[] } {
  const all = orderWith(level, candidates);
  if (all) return { graph: all, accepted: candidates };
  let [graph, accepted] = [level, [] as (readonly Node[])[]];
  for (const candidate of candidates) {
    const ordered = orderWith(level, [...accepted, candidate]);
    if (ordered) [graph, accepted] = [ordered, [...accepted, candidate]];
  }
  return { graph, accepted };
}

/** The level with each group's Nodes in a row, what they need before them; undefined if there is no such order. */
function orderWith(level: Graph, groups: readonly (readonly Node[])[]): Graph | undefined {
  const groupOf = new Map(groups.flatMap((group) => group.map((node) => [node, group] as const)));
  const producers = new Map(level.nodes.flatMap((node) => node.outputs.map((output) => [output, node])));
  const state = new Map<object, 'open' | 'placed'>(); // by group, or Node without one
  const order: Node[] = [];
  const place = (node: Node): boolean => {
    const unit = groupOf.get(node) ?? node;
    const known = state.get(unit);
    if (known) return known === 'placed';
    state.set(unit, 'open');
    const members = groupOf.get(node) ?? [node];
    for (const input of members.flatMap((member) => member.inputs)) {
      const producer = producers.get(input);
      if (producer && (groupOf.get(producer) ?? producer) !== unit && !place(producer)) return false;
    }
    state.set(unit, 'placed');
    order.push(...members);
    return true;
  };
  return level.nodes.every(place) ? { ...level, nodes: order } : undefined;
}
