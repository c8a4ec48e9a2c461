// lib/jit/passes/fuseElementwise.ts: graph -> graph. Scalar operations and changes of layout -> Elementwise Nodes: one
// write for a whole chain. Never left out: it takes the graph from the traced level to that of kernels.

import type { Shape } from '../../tensor.js';
import { sizeOf } from '../../tensor.js';
import type { Graph, Node, Op, ScalarNode, StructuredNode, Value } from '../graph.js';
import { isScalarNode } from '../graph.js';
import type { Expression } from './expression.js';
import {
  broadcastExpression,
  combine,
  leafExpression,
  literalExpression,
  throughViews,
} from './expression.js';
import type { Links } from './rewrite.js';
import { linksOf, onEveryLevel, onlyNumber } from './rewrite.js';
import { isPlain, reshapeThrough, sliceThrough, transposeThrough } from './views.js';

type LayoutNode = StructuredNode<'Broadcast' | 'Transpose' | 'Slice' | 'Reshape'>;
type FusibleNode = ScalarNode | LayoutNode;

const layoutOps: ReadonlySet<Op> = new Set<Op>(['Broadcast', 'Transpose', 'Slice', 'Reshape']);
/** Operations that cost no more than reading a stored result would. */
const cheapOps: ReadonlySet<Op> = new Set<Op>([
  ...(['Neg', 'Abs', 'Not', 'Cast', 'Add', 'Sub', 'Mul', 'Max', 'Min', 'Select', 'And', 'Or'] as const),
  ...(['Equal', 'NotEqual', 'Less', 'LessEqual', 'Greater', 'GreaterEqual'] as const),
]);

// Bounds for what code generation has to hold at once. Cutting a long program costs more than its spilled registers:
// what both parts need is computed twice (a random number generator of 130 steps, cut at 64, became ten kernels).
const maxLeaves = 16;
const maxInstructions = 512;

/** Makes one Elementwise Node of every chain of scalar operations and changes of layout, in Scans' bodies too. */
export function fuseElementwise(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => new Fusion(level).run());
}

function isFusible(node: Node): node is FusibleNode {
  return isScalarNode(node) || layoutOps.has(node.op);
}

class Fusion {
  readonly #graph: Graph;
  readonly #stored: ReadonlySet<Node>;
  readonly #expressions = new Map<Value, Expression>();
  readonly #nodes: Node[] = [];

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#stored = nodesToStore(graph, linksOf(graph));
  }

  run(): Graph {
    for (const node of this.#graph.nodes) {
      if (isFusible(node)) this.#fuse(node);
      else this.#keep(node);
    }
    for (const output of this.#graph.outputs) this.#store(output);
    return { ...this.#graph, nodes: this.#nodes };
  }

  #keep(node: Node): void {
    for (const input of node.inputs) this.#store(input);
    this.#nodes.push(node);
    const [output] = node.outputs;
    const number = node.op === 'Constant' ? onlyNumber(node.attrs.values) : undefined;
    if (number === undefined) return;
    this.#expressions.set(output!, literalExpression(number, output!.dtype, output!.shape));
    this.#written.add(output!);
  }

  readonly #written = new Set<Value>();

  #fuse(node: FusibleNode): void {
    const [output] = node.outputs as [Value];
    this.#expressions.set(output, this.#expressionOf(node));
    if (this.#stored.has(node)) this.#store(output, node);
  }

  #read(value: Value): Expression {
    return this.#expressions.get(value) ?? leafExpression(value);
  }

  #expressionOf(node: FusibleNode): Expression {
    const expression = this.#tryExpression(node);
    const fits =
      expression && expression.leaves.length <= maxLeaves && expression.program.length <= maxInstructions;
    if (fits) return expression;
    for (const input of node.inputs) this.#store(input);
    return this.#tryExpression(node)!;
  }

  #tryExpression(node: FusibleNode): Expression | undefined {
    const [output] = node.outputs as [Value];
    const { shape } = output;
    const args = node.inputs.map((input) => this.#read(input));
    if (isScalarNode(node)) return combine(node.op, args, output.dtype, shape);
    const [arg] = args as [Expression];
    return readInLayout(node, arg, shape);
  }

  /** Writes a value to memory, if it is not there yet; from then on it is read from there. */
  #store(value: Value, node?: Node): void {
    const expression = this.#expressions.get(value);
    if (!expression || this.#written.has(value)) return;
    this.#written.add(value);
    this.#expressions.set(value, leafExpression(value));
    this.#nodes.push(storeNode(value, expression, node?.source));
  }
}

/** What a change of layout reads; undefined for a Reshape that no strides can say. */
function readInLayout(node: LayoutNode, arg: Expression, shape: Shape): Expression | undefined {
  switch (node.op) {
    case 'Broadcast':
      return broadcastExpression(arg, shape);
    case 'Transpose':
      return throughViews(arg, shape, (view) => transposeThrough(view, node.attrs.perm));
    case 'Slice':
      return throughViews(arg, shape, (view) => sliceThrough(view, node.attrs));
    default:
      return throughViews(arg, shape, (view) => reshapeThrough(view, arg.shape, shape));
  }
}

/** The Node that writes an expression: a Reshape where it reads all of one value in order. */
function storeNode(value: Value, { leaves, program }: Expression, source: Node['source']): Node {
  const [leaf] = leaves;
  const origin = source === undefined ? {} : { source };
  const isName = program.length === 1 && leaf && isPlain(leaf.view, value.shape, sizeOf(leaf.value.shape));
  if (isName) return { op: 'Reshape', inputs: [leaf.value], outputs: [value], attrs: {}, ...origin };
  return {
    op: 'Elementwise',
    inputs: leaves.map((each) => each.value),
    outputs: [value],
    attrs: { views: leaves.map((each) => each.view), program },
    ...origin,
  };
}

/**
 * Decides which results are written to memory: those that another kind of Node or the caller reads, those that several
 * kernels would compute again, and costly ones that a broadcast would compute again for each copy.
 */
function nodesToStore(graph: Graph, links: Links): Set<Node> {
  const stored = new Set<Node>();
  const sinks = new Map<Node, Set<Node>>(); // the stored Nodes that a Node becomes part of
  for (const node of [...graph.nodes].reverse()) {
    if (!isFusible(node)) continue;
    const [output] = node.outputs as [Value];
    const users = links.users(output);
    const own = new Set<Node>(users.flatMap((user) => [...(sinks.get(user) ?? [])]));
    const size = sizeOf(output.shape);
    const isLayout = layoutOps.has(node.op);
    const again = own.size > 1 && !isLayout && node.op !== 'Cast';
    const spread =
      !cheapOps.has(node.op) && !isLayout && [...own].some((sink) => sizeOf(sink.outputs[0]!.shape) > size);
    if (links.isOutput(output) || again || spread || users.some((user) => !isFusible(user))) {
      stored.add(node);
      sinks.set(node, new Set([node]));
    } else sinks.set(node, own);
  }
  return stored;
}
