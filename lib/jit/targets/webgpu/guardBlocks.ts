// lib/jit/targets/webgpu/guardBlocks.ts: a plan's attention with the products around it -> a small graph of the same kind.
// The kernels that do several operations at once stand in no graph of one operation: a product with the norm before it and
// rotary positions and the write to a cache after it, heads that change places beside one another, a product that reads
// what attention left.

import { sizeOf, type Weight } from '../../../tensor.js';
import type { ElementValues, Graph, Node, StructuredNode, Value, WeightFormat } from '../../graph.js';
import { formatOf, newValue, plainEpilogue } from '../../graph.js';
import { plainView } from '../../passes/views.js';
import type { Plan } from '../../steps.js';
import type { GuardCase } from './guardCases.js';
import { formatText, integers, numbers, weightLike } from './guardCases.js';

const headDim = 32;
const capacity = 24;
/** Rows of a prompt: more than a matrix-vector kernel takes. */
const manyQueries = 17;

/** What of a plan's attention makes a kind. */
interface BlockKind {
  readonly batch: number;
  readonly query: number;
  readonly norm: StructuredNode<'Norm'>['attrs'] | null;
  readonly rotary: StructuredNode<'Rotary'>['attrs'] | null;
  readonly format: WeightFormat;
  readonly transposed: boolean;
  readonly window: boolean;
}

/** One block for each kind of attention over a cache that the plan has. */
export function guardBlocks(plan: Plan): GuardCase[] {
  const found = new Map<string, GuardCase>();
  const visit = ({ nodes }: Graph): void => {
    for (const node of nodes) {
      if (node.op === 'Scan') visit(node.attrs.body);
      const kind = node.op === 'CachedAttention' ? kindOf(node, nodes, plan) : undefined;
      if (!kind) continue;
      const made = blockOf(kind);
      if (!found.has(made.kind)) found.set(made.kind, made);
    }
  };
  visit(plan.graph);
  return [...found.values()];
}

/** @returns undefined where no product makes the queries */
function kindOf(
  attention: StructuredNode<'CachedAttention'>,
  nodes: readonly Node[],
  plan: Plan,
): BlockKind | undefined {
  const producer = (value: Value): Node | undefined => nodes.find(({ outputs }) => outputs.includes(value));
  const [q] = attention.inputs as readonly [Value, ...Value[]];
  const [batch, , query] = q.shape as [number, number, number, number];
  let rotary: BlockKind['rotary'] = null;
  let node = producer(q);
  // Up to the product: rotary positions, changes of layout.
  while (node?.op === 'Rotary' || node?.op === 'Reshape' || node?.op === 'Elementwise') {
    if (node.op === 'Rotary') rotary = node.attrs;
    node = node.inputs[0] && producer(node.inputs[0]);
  }
  if (node?.op !== 'Linear') return undefined;
  const before = producer(node.inputs[0]!);
  const [{ weight, transposed }] = node.attrs.products as [(typeof node.attrs.products)[0]];
  return {
    ...{ batch: query === 1 ? Math.min(8, batch) : 1, query: query === 1 ? 1 : manyQueries, transposed },
    ...{ rotary, norm: before?.op === 'Norm' ? before.attrs : null },
    ...{ format: plan.weights[weight]!.format, window: attention.attrs.window !== null },
  };
}

class BlockGraph {
  readonly inputs: Value[] = [];
  readonly values: ElementValues[] = [];
  readonly nodes: Node[] = [];

  input(shape: readonly number[], values: ElementValues): Value {
    const value = newValue(values instanceof Float32Array ? 'f32' : 'i32', shape);
    this.inputs.push(value);
    this.values.push(values);
    return value;
  }

  /** The parts belong together by construction, which the union of all Nodes cannot say. */
  add(
    op: Node['op'],
    attrs: object,
    inputs: readonly Value[],
    shapes: readonly (readonly number[])[],
  ): Value[] {
    const outputs = shapes.map((shape) => newValue('f32', shape));
    this.nodes.push({ op, attrs, inputs, outputs } as unknown as Node);
    return outputs;
  }

  one(op: Node['op'], attrs: object, inputs: readonly Value[], shape: readonly number[]): Value {
    return this.add(op, attrs, inputs, [shape])[0]!;
  }
}

function blockOf(kind: BlockKind): GuardCase {
  const { batch, query, norm, rotary, format, transposed, window } = kind;
  const group = format.kind !== 'float' && format.granularity.per === 'group' ? format.granularity.size : 64;
  const dim = Math.max(128, 2 * group);
  const heads = dim / headDim;
  const kvHeads = heads / 2;
  const g = new BlockGraph();
  const x = g.input([batch, query, dim], numbers(batch * query * dim, 1));
  const sides = norm ? [norm.scaled, norm.biased].filter(Boolean).map((_, i) => g.input([dim], numbers(dim, i + 2))) : []; // biome-ignore format: short
  const positions = integers(batch * query, 1).map((_, i) => 3 + (i % query));
  const turns = rotary ? g.input([batch, query], positions) : null;
  const [keys, values] = [4, 5].map((seed) => g.input([batch, kvHeads, capacity, headDim], numbers(batch * kvHeads * capacity * headDim, seed))) as [Value, Value]; // biome-ignore format: short
  const start = g.input([batch], new Int32Array(batch).fill(3));
  const count = g.input([batch], new Int32Array(batch).fill(query));
  const weights = [[dim, 2 * dim] as const, [dim, dim] as const].map(([from, to]) =>
    weightLike(format, transposed ? [to, from] : [from, to]),
  );

  const normed = norm ? g.one('Norm', norm, [x, ...sides], [batch, query, dim]) : x;
  const widths = [dim, dim / 2, dim / 2];
  let begin = 0;
  const products = widths.map((width) => {
    begin += width;
    return { weight: 0, transposed, columns: { begin: begin - width, end: begin } };
  });
  const epilogues = widths.map((_, i) => plainEpilogue(i));
  const made = g.add('Linear', { products, epilogues }, [normed], widths.map((width) => [batch, query, width])); // biome-ignore format: short
  const inHeads = made.map((value, i) => {
    const own = i === 0 ? heads : kvHeads;
    const shape = [batch, own, query, headDim];
    if (query === 1) return g.one('Reshape', {}, [value], shape);
    const view = { offset: 0, strides: [query * own * headDim, headDim, own * headDim, 1] };
    return g.one('Elementwise', { views: [view], program: [{ op: 'Input', index: 0, dtype: 'f32' }] }, [value], shape); // biome-ignore format: short
  });
  const turned = inHeads.map((value, i) => {
    if (!rotary || !turns || i === 2) return value;
    const inverseFrequencies = Array.from({ length: headDim / 2 }, (_, f) => 1e4 ** (-f / 16));
    return g.one('Rotary', { ...rotary, inverseFrequencies }, [value, turns], value.shape);
  });
  const written = [keys, values].map((cache, i) => g.one('CacheAppend', {}, [cache, turned[i + 1]!, start, count], cache.shape)); // biome-ignore format: short
  const attrs = { scale: 0.2, window: window ? 12 : null };
  const mixed = g.one('CachedAttention', attrs, [turned[0]!, ...written, start, count], turned[0]!.shape);
  const together = joined(g, mixed, query, [batch, query, dim]);
  const whole = plainView([batch, query, dim]);
  const residual = {
    products: [0],
    operands: [{ input: 1, view: whole }],
    program: [
      { op: 'Input', index: 0, dtype: 'f32' },
      { op: 'Input', index: 1, dtype: 'f32' },
      { op: 'Add', args: [0, 1], dtype: 'f32' },
    ],
  };
  const output = { products: [{ weight: 1, transposed, columns: null }], epilogues: [residual] };
  const y = g.one('Linear', output, [together, x], [batch, query, dim]);
  const name = `block ${formatText(format)} ${transposed ? 'transposed' : ''} ${norm?.kind ?? ''} ${rotary?.layout ?? ''}`;
  return {
    kind: `${name} ${window ? 'window' : ''} ${batch}x${query}`,
    stages: 2,
    inputs: g.values,
    graph: {
      ...{ inputs: g.inputs, nodes: g.nodes, outputs: [y, ...written] },
      weights: weights.map((weight: Weight) => ({ format: formatOf(weight), path: 'guard', weight })),
    },
  };
}

/** Heads side by side, as the next product reads them. */
function joined(g: BlockGraph, mixed: Value, query: number, shape: readonly number[]): Value {
  if (query === 1) return g.one('Reshape', {}, [mixed], shape);
  const [batch, heads, , width] = mixed.shape as [number, number, number, number];
  const view = { offset: 0, strides: [sizeOf(mixed.shape) / batch, width, query * width, 1] };
  const program = [{ op: 'Input', index: 0, dtype: 'f32' }];
  const turned = g.one('Elementwise', { views: [view], program }, [mixed], [batch, query, heads, width]);
  return g.one('Reshape', {}, [turned], shape);
}
