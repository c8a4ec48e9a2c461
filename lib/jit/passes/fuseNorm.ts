// lib/jit/passes/fuseNorm.ts: graph -> graph. The dozen tfjs operations of a LayerNorm or RMSNorm -> one Norm.
// Matches (x - mean) * rsqrt(mean(square(x - mean)) + epsilon), x * rsqrt(mean(square(x)) + epsilon), both also as a
// division by a square root, and the scale and bias that follow.

import { sameShape } from '../build.js';
import type { Graph, Node, StructuredNode, Value } from '../graph.js';
import type { Links } from './rewrite.js';
import { linksOf, literalOf, onEveryLevel, pairs, reshaped, throughReshapes } from './rewrite.js';

/** A norm that was recognised, and the value that it computes. */
interface Match {
  readonly kind: 'layer' | 'rms';
  readonly x: Value;
  readonly epsilon: number;
  readonly scale?: Value | undefined;
  readonly bias?: Value | undefined;
  readonly output: Value;
}

/** Recognises norms over the last axis. */
export function fuseNorm(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => {
    const links = linksOf(level);
    const byOutput = new Map<Value, Match>();
    for (const node of level.nodes) {
      const core = matchCore(node, links);
      if (!core) continue;
      const match = withBias(withScale(core, links), links);
      byOutput.set(match.output, match);
    }
    const nodes = level.nodes.flatMap((node) => {
      const match = byOutput.get(node.outputs[0]!);
      return match ? normNodes(match, node.source) : [node];
    });
    return { ...level, nodes };
  });
}

function normNodes({ kind, x, epsilon, scale, bias, output }: Match, source: Node['source']): Node[] {
  const dim = x.shape.at(-1)!;
  const nodes: Node[] = [];
  const asVector = (value: Value): Value => reshaped(value, [dim], nodes);
  const inputs = [x, ...(scale ? [asVector(scale)] : []), ...(bias ? [asVector(bias)] : [])];
  const attrs = { kind, epsilon, scaled: scale !== undefined, biased: bias !== undefined };
  const norm: StructuredNode<'Norm'> = { op: 'Norm', inputs, outputs: [output], attrs };
  return [...nodes, source === undefined ? norm : { ...norm, source }];
}

/** The norm without what follows it: a product with a reciprocal root, or a quotient by a root. */
function matchCore(node: Node, links: Links): Match | undefined {
  const candidates = [
    ...pairs(node, 'Mul').map(([above, below]) => [above, rootOf(below, 'Rsqrt', links)] as const),
    ...pairs(node, 'Div').map(([above, below]) => [above, rootOf(below, 'Sqrt', links)] as const),
  ];
  for (const [above, root] of candidates) {
    if (!root) continue;
    for (const [core, scale] of numerators(above, links)) {
      const normal = normalOf(core, root.variance, links);
      const output = node.outputs[0]!;
      if (normal && isColumn(root.value, normal.x) && sameShape(output.shape, normal.x.shape))
        return { ...normal, epsilon: root.epsilon, output, scale };
    }
  }
  return undefined;
}

/** What the root divides: the value itself, or the factor of a scale that was applied before. */
function numerators(above: Value, links: Links): readonly (readonly [Value, Value | undefined])[] {
  const scaled = pairs(links.producer(above), 'Mul').filter(([core, scale]) => isVector(scale, core));
  return [[above, undefined], ...scaled];
}

/** rsqrt(variance + epsilon) or sqrt(variance + epsilon). */
function rootOf(
  value: Value,
  op: 'Rsqrt' | 'Sqrt',
  links: Links,
): { value: Value; variance: Value; epsilon: number } | undefined {
  const node = links.producer(throughReshapes(value, links));
  if (node?.op !== op) return undefined;
  for (const [variance, literal] of pairs(links.producer(throughReshapes(node.inputs[0]!, links)), 'Add')) {
    const epsilon = literalOf(literal, links);
    if (epsilon !== undefined) return { value, variance, epsilon };
  }
  return undefined;
}

/** Tells layer from rms: the variance is the mean of the square of what is divided. */
function normalOf(core: Value, variance: Value, links: Links): Pick<Match, 'kind' | 'x'> | undefined {
  const square = meanOf(variance, links);
  const [a, b] = pairs(square && links.producer(square), 'Mul')[0] ?? [];
  if (a === undefined || a !== b) return undefined;
  const [x, mean] = pairs(links.producer(core), 'Sub')[0] ?? [];
  const isCentred = x && mean && a === core && meanOf(mean, links) === x && isColumn(mean, x);
  if (isCentred) return { kind: 'layer', x };
  return a === core ? { kind: 'rms', x: core } : undefined;
}

/** The value whose mean over the last axis this is. */
function meanOf(value: Value, links: Links): Value | undefined {
  const [total, count] = pairs(links.producer(throughReshapes(value, links)), 'Div')[0] ?? [];
  const reduce = total && links.producer(throughReshapes(total, links));
  if (reduce?.op !== 'Reduce' || reduce.attrs.kind !== 'Sum') return undefined;
  const [x] = reduce.inputs as [Value];
  const { first, last } = reduce.attrs;
  const isLast = first === last && last === x.shape.length - 1;
  return isLast && literalOf(count, links) === x.shape.at(-1) ? x : undefined;
}

function withScale(match: Match, links: Links): Match {
  if (match.scale) return match;
  const [user, scale] = onlyUser(match, 'Mul', links);
  return user ? { ...match, scale, output: user.outputs[0]! } : match;
}

function withBias(match: Match, links: Links): Match {
  const [user, bias] = onlyUser(match, 'Add', links);
  return user ? { ...match, bias, output: user.outputs[0]! } : match;
}

/** The one Node that reads the norm, if it combines it with a vector. */
function onlyUser({ output }: Match, op: 'Mul' | 'Add', links: Links): readonly [Node, Value] | readonly [] {
  const [user] = links.users(output);
  if (!user || links.reads(output) !== 1 || links.isOutput(output)) return [];
  for (const [own, vector] of pairs(user, op)) {
    if (own === output && isVector(vector, output)) return [user, vector];
  }
  return [];
}

/** True for a value that is one number for each element of x's last axis. */
function isVector(value: Value, x: Value): boolean {
  const dim = x.shape.at(-1);
  const isRow = value.shape.at(-1) === dim && value.shape.slice(0, -1).every((size) => size === 1);
  return isRow && value.dtype === 'f32' && value.shape.length <= x.shape.length;
}

/** True for a value that is one number for each row of x: [..., 1]. */
function isColumn(value: Value, x: Value): boolean {
  return sameShape(value.shape, [...x.shape.slice(0, -1), 1]);
}
