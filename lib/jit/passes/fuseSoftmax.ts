// lib/jit/passes/fuseSoftmax.ts: graph -> graph. exp(x - max) / sum(exp(x - max)) and its logarithm, composed from tfjs
// operations -> Softmax; a number that multiplies its input becomes its scale.

import { sameShape } from '../build.js';
import type { Graph, Node, ReduceKind, StructuredNode, Value } from '../graph.js';
import { removeDead } from './removeDead.js';
import type { Links } from './rewrite.js';
import { literalOf, onEveryLevel, pairs, replaceNodes, throughReshapes } from './rewrite.js';

/** Recognises softmax over the last axis, then its scale. */
export function fuseSoftmax(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => {
    const composed = replaceNodes(level, (node, links) => {
      const found = matchSoftmax(node, links);
      return found && [found];
    });
    // Without what is now unread, so that a scale which only the softmax reads is seen as such.
    return replaceNodes(removeDead(composed), (node, links) =>
      node.op === 'Softmax' ? [withScale(node, links)] : undefined,
    );
  });
}

function matchSoftmax(node: Node, links: Links): StructuredNode<'Softmax'> | undefined {
  const [output] = node.outputs as [Value];
  const [above, below] = pairs(node, 'Div')[0] ?? pairs(node, 'Sub')[0] ?? [];
  if (!above || !below) return undefined;
  const log = node.op === 'Sub';
  const logarithm = log ? links.producer(throughReshapes(below, links)) : undefined;
  if (log && logarithm?.op !== 'Log') return undefined;
  const total = log ? logarithm!.inputs[0]! : below;
  const exponentials = reduced(total, 'Sum', links);
  const exp = exponentials && links.producer(exponentials);
  if (exp?.op !== 'Exp' || (log ? exp.inputs[0] : exponentials) !== above || !isColumn(below, above))
    return undefined;
  const x = shiftedByMax(exp.inputs[0]!, links);
  if (!x || !sameShape(x.shape, output.shape)) return undefined;
  return { ...node, op: 'Softmax', inputs: [x], outputs: [output], attrs: { log, scale: 1 } };
}

/** x of x - max(x), the maximum taken along the last axis. */
function shiftedByMax(value: Value, links: Links): Value | undefined {
  const [x, max] = pairs(links.producer(value), 'Sub')[0] ?? [];
  return x && max && reduced(max, 'Max', links) === x && isColumn(max, x) ? x : undefined;
}

/** What is reduced along its last axis to give this value. */
function reduced(value: Value, kind: ReduceKind, links: Links): Value | undefined {
  const node = links.producer(throughReshapes(value, links));
  if (node?.op !== 'Reduce' || node.attrs.kind !== kind) return undefined;
  const [x] = node.inputs as [Value];
  return node.attrs.first === node.attrs.last && node.attrs.last === x.shape.length - 1 ? x : undefined;
}

function isColumn(value: Value, x: Value): boolean {
  return sameShape(value.shape, [...x.shape.slice(0, -1), 1]);
}

function withScale(node: StructuredNode<'Softmax'>, links: Links): StructuredNode<'Softmax'> {
  const [input] = node.inputs as [Value];
  for (const [x, factor] of pairs(links.producer(input), 'Mul')) {
    const scale = literalOf(factor, links);
    if (scale !== undefined && sameShape(x.shape, input.shape) && links.reads(input) === 1)
      return { ...node, inputs: [x], attrs: { ...node.attrs, scale: node.attrs.scale * scale } };
  }
  return node;
}
