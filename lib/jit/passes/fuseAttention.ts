// lib/jit/passes/fuseAttention.ts: graph -> graph. softmax(q k^T * scale + mask) v, composed from tfjs operations ->
// Attention, which never writes the scores to memory. Over a cache, ops.ts says CachedAttention itself.

import { sameShape } from '../build.js';
import type { Graph, Node, StructuredNode, Value, View } from '../graph.js';
import { newValue } from '../graph.js';
import type { Links } from './rewrite.js';
import { asOp, linksOf, literalOf, onEveryLevel, pairs, throughReshapes } from './rewrite.js';
import { broadcastThrough, plainView, reshapeThrough } from './views.js';

/** A mask added to the scores, and the shape of the scores where it is added. */
interface Mask {
  readonly value: Value;
  readonly over: Value;
}

/** Recognises attention; what it cannot express (other axes, several readers of the weights) stays as it is. */
export function fuseAttention(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => {
    const links = linksOf(level);
    return { ...level, nodes: level.nodes.flatMap((node) => matchAttention(node, links) ?? [node]) };
  });
}

function matchAttention(node: Node, links: Links): Node[] | undefined {
  const product = asOp(node, 'BatchMatMul');
  if (!product || product.attrs.transposeA || product.attrs.transposeB || !isPlainProduct(product))
    return undefined;
  const [weights, v] = product.inputs as [Value, Value];
  const softmax = asOp(links.producer(onlyRead(weights, links)), 'Softmax');
  if (!softmax || softmax.attrs.log) return undefined;
  return (
    matchScores(product, softmax, softmax.inputs[0]!, undefined, v, links) ??
    matchMasked(product, softmax, v, links)
  );
}

/** Tries both operands of an addition before the softmax as the mask, and a choice between scores and a number. */
function matchMasked(
  product: StructuredNode<'BatchMatMul'>,
  softmax: StructuredNode<'Softmax'>,
  v: Value,
  links: Links,
): Node[] | undefined {
  const sum = onlyRead(softmax.inputs[0]!, links);
  if (softmax.attrs.scale !== 1) return undefined;
  for (const [scores, value] of pairs(links.producer(sum), 'Add')) {
    const found = matchScores(product, softmax, scores, { value, over: sum }, v, links);
    if (found) return found;
  }
  const choice = links.producer(sum);
  if (choice?.op !== 'Select') return undefined;
  const [condition, scores, other] = choice.inputs as [Value, Value, Value];
  const low = literalOf(other, links);
  if (low === undefined || low > -1e4) return undefined; // what is not chosen has to vanish in the softmax
  const zero = newValue('f32', []);
  const value = newValue('f32', condition.shape);
  const found = matchScores(product, softmax, scores, { value, over: sum }, v, links);
  return (
    found && [
      { op: 'Constant', inputs: [], outputs: [zero], attrs: { values: Float32Array.of(0) } },
      ...lowNodes(condition, zero, value, low),
      ...found,
    ]
  );
}

function lowNodes(condition: Value, zero: Value, value: Value, low: number): Node[] {
  const literal = newValue('f32', []);
  return [
    { op: 'Constant', inputs: [], outputs: [literal], attrs: { values: Float32Array.of(low) } },
    { op: 'Select', inputs: [condition, zero, literal], outputs: [value], attrs: {} },
  ];
}

function matchScores(
  product: StructuredNode<'BatchMatMul'>,
  softmax: StructuredNode<'Softmax'>,
  scores: Value,
  mask: Mask | undefined,
  v: Value,
  links: Links,
): Node[] | undefined {
  const { value, scale } = unscaled(onlyRead(scores, links), links);
  const first = asOp(links.producer(onlyRead(value, links)), 'BatchMatMul');
  if (!first || first.attrs.transposeA || !isPlainProduct(first)) return undefined;
  const [q, right] = first.inputs as [Value, Value];
  const k = first.attrs.transposeB ? right : untransposed(right, links);
  const leading = bracketless(q);
  if (!k || !sameShape(bracketless(k), leading) || !sameShape(bracketless(v), leading)) return undefined;
  const scoresShape = first.outputs[0]!.shape;
  const keepsRows = softmax.inputs[0]!.shape.at(-1) === scoresShape.at(-1);
  const view = mask && maskView(mask, scoresShape);
  if (!keepsRows || (mask && !view) || !sameShape(product.inputs[0]!.shape, scoresShape)) return undefined;
  const attention: StructuredNode<'Attention'> = {
    ...product,
    op: 'Attention',
    inputs: [q, k, v, ...(mask ? [mask.value] : [])],
    attrs: { scale: scale * softmax.attrs.scale, mask: view ?? null },
  };
  return [attention];
}

/** How attention reads the mask: over [..., query, keys] of the first product. */
function maskView({ value, over }: Mask, scores: readonly number[]): View | undefined {
  if (value.dtype !== 'f32') return undefined;
  const spread = broadcastThrough(plainView(value.shape), value.shape, over.shape);
  return reshapeThrough(spread, over.shape, scores);
}

/** A product's scores and the numbers that multiply or divide them. */
function unscaled(value: Value, links: Links): { value: Value; scale: number } {
  const node = links.producer(value);
  for (const [x, factor] of [...pairs(node, 'Mul'), ...pairs(node, 'Div')]) {
    const number = literalOf(factor, links);
    if (number === undefined || !sameShape(x.shape, value.shape)) continue;
    const inner = unscaled(onlyRead(x, links), links);
    return { value: inner.value, scale: inner.scale * (node?.op === 'Div' ? 1 / number : number) };
  }
  return { value, scale: 1 };
}

/** Follows Reshapes down as long as nothing else reads what they read. */
function onlyRead(value: Value, links: Links): Value {
  if (links.reads(value) !== 1) return newValue('f32', []); // no producer: nothing matches it
  const node = links.producer(value);
  return node?.op === 'Reshape' ? onlyRead(node.inputs[0]!, links) : value;
}

function untransposed(value: Value, links: Links): Value | undefined {
  const node = asOp(links.producer(throughReshapes(value, links)), 'Transpose');
  if (!node || node.outputs[0] !== value) return undefined;
  const { perm } = node.attrs;
  const last = perm.length - 1;
  const swaps = perm.every((axis, i) => axis === (i === last ? last - 1 : i === last - 1 ? last : i));
  return swaps ? node.inputs[0] : undefined;
}

function isPlainProduct(node: StructuredNode<'BatchMatMul'>): boolean {
  return node.attrs.epilogue.program.length === 1;
}

function bracketless(value: Value): readonly number[] {
  return value.shape.slice(0, -2);
}
