// lib/jit/targets/webgpu/guardBlocks.ts: a plan's attention with the products around it -> a small graph of the same kind.
// The kernels that do several operations at once stand in no graph of one operation: a product with the norm before it and
// rotary positions and the write to a cache after it, heads that change places beside one another, a product that reads
// what attention left.

import { sizeOf } from '../../../tensor.js';
import type { ElementValues, Graph, Node, StructuredNode, Value, WeightFormat } from '../../graph.js';
import { formatOf, newValue, plainEpilogue } from '../../graph.js';
import { plainView } from '../../passes/views.js';
import type { Plan } from '../../steps.js';
import type { GuardCase } from './guardCases.js';
import { formatText, numbers, weightLike } from './guardCases.js';

const headDim = 32;
const capacity = 24;
/** Positions that the cache has already. */
const before = 3;
/** Of a prompt: more than a matrix-vector kernel takes. */
const manyQueries = 17;

type NormAttributes = StructuredNode<'Norm'>['attrs'];

/** What of a plan's attention makes a kind. */
interface BlockKind {
  readonly batch: number;
  readonly query: number;
  readonly norm: NormAttributes | null;
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
  const normal = producer(node.inputs[0]!);
  const [{ weight, transposed }] = node.attrs.products as [(typeof node.attrs.products)[0]];
  return {
    ...{ batch: query === 1 ? Math.min(8, batch) : 1, query: query === 1 ? 1 : manyQueries, transposed },
    ...{ rotary, norm: normal?.op === 'Norm' ? normal.attrs : null },
    ...{ format: plan.weights[weight]!.format, window: attention.attrs.window !== null },
  };
}

/** A graph as it is written. */
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

  floats(shape: readonly number[], seed: number): Value {
    return this.input(shape, numbers(sizeOf(shape), seed));
  }

  /** The parts belong together by construction, which the union of all Nodes cannot say. */
  nodeOf(
    op: Node['op'],
    attrs: object,
    inputs: readonly Value[],
    shapes: readonly (readonly number[])[],
  ): Value[] {
    const outputs = shapes.map((shape) => newValue('f32', shape));
    this.nodes.push({ op, attrs, inputs, outputs } as unknown as Node);
    return outputs;
  }

  add(op: Node['op'], attrs: object, inputs: readonly Value[], shape: readonly number[]): Value {
    return this.nodeOf(op, attrs, inputs, [shape])[0]!;
  }

  /** A change of layout: a name for the same memory, or a read through a view. */
  move(value: Value, shape: readonly number[], strides: readonly number[] | null): Value {
    if (!strides) return this.add('Reshape', {}, [value], shape);
    const attrs = { views: [{ offset: 0, strides }], program: plainEpilogue(0).program };
    return this.add('Elementwise', attrs, [value], shape);
  }
}

/** y = x + o(attention of q, k, v of norm(x)), with a cache that has three positions before. */
function blockOf(kind: BlockKind): GuardCase {
  const { batch, query, norm, rotary, format, transposed, window } = kind;
  const group = format.kind !== 'float' && format.granularity.per === 'group' ? format.granularity.size : 64;
  const dim = Math.max(128, 2 * group);
  const shape = [batch, query, dim];
  const g = new BlockGraph();
  const x = g.floats(shape, 1);
  const normed = norm ? g.add('Norm', norm, [x, ...normSides(g, norm, dim)], shape) : x;
  const start = g.input([batch], new Int32Array(batch).fill(before));
  const count = g.input([batch], new Int32Array(batch).fill(query));
  const [q, ...updates] = headsOf(g, kind, normed, dim) as [Value, Value, Value];
  const written = updates.map((update, i) => {
    const cache = g.floats([batch, update.shape[1]!, capacity, headDim], i + 4);
    return g.add('CacheAppend', {}, [cache, update, start, count], cache.shape);
  });
  const attrs = { scale: 0.2, window: window ? 12 : null };
  const mixed = g.add('CachedAttention', attrs, [q, ...written, start, count], q.shape);
  const heads = dim / headDim;
  const strides = query === 1 ? null : [query * dim, headDim, query * headDim, 1];
  const beside = query === 1 ? mixed : g.move(mixed, [batch, query, heads, headDim], strides);
  const y = g.add('Linear', residual(shape, transposed), [g.move(beside, shape, null), x], shape);
  const weights = [2 * dim, dim].map((width) => weightLike(format, transposed ? [width, dim] : [dim, width]));
  const names = [formatText(format), transposed && 'transposed', norm?.kind, rotary?.layout, window && 'window']; // biome-ignore format: short
  return {
    kind: `block ${names.filter(Boolean).join(' ')} ${batch}x${query}`,
    stages: 2,
    inputs: g.values,
    graph: {
      ...{ inputs: g.inputs, nodes: g.nodes, outputs: [y, ...written] },
      weights: weights.map((weight) => ({ format: formatOf(weight), path: 'guard', weight })),
    },
  };
}

function normSides(g: BlockGraph, { scaled, biased }: NormAttributes, dim: number): Value[] {
  return [scaled, biased].filter(Boolean).map((_, i) => g.floats([dim], i + 2));
}

/** Queries, and keys and values of half as many heads: [batch, heads, query, headDim], turned where the plan turns them. */
function headsOf(g: BlockGraph, kind: BlockKind, x: Value, dim: number): Value[] {
  const { batch, query, rotary, transposed } = kind;
  const ends = [0, dim, 1.5 * dim, 2 * dim];
  const widths = ends.slice(1).map((end, i) => end - ends[i]!);
  const products = widths.map((_, i) => ({ weight: 0, transposed, columns: { begin: ends[i]!, end: ends[i + 1]! } })); // biome-ignore format: short
  const attrs = { products, epilogues: widths.map((_, i) => plainEpilogue(i)) };
  const shapes = widths.map((width) => [batch, query, width]);
  const positions = Int32Array.from({ length: batch * query }, (_, i) => before + (i % query));
  const turns = rotary && g.input([batch, query], positions);
  return g.nodeOf('Linear', attrs, [x], shapes).map((value, i) => {
    const width = widths[i]!;
    const strides = query === 1 ? null : [query * width, headDim, width, 1];
    const heads = g.move(value, [batch, width / headDim, query, headDim], strides);
    if (!turns || i === 2) return heads;
    const inverseFrequencies = Array.from({ length: headDim / 2 }, (_, f) => 1e4 ** (-f / 16));
    return g.add('Rotary', { ...rotary, inverseFrequencies }, [heads, turns], heads.shape);
  });
}

/** A product with the second Weight, and what it is added to. */
function residual(shape: readonly number[], transposed: boolean): object {
  const read = [0, 1].map((index) => ({ op: 'Input', index, dtype: 'f32' }));
  const program = [...read, { op: 'Add', args: [0, 1], dtype: 'f32' }];
  const epilogue = { products: [0], operands: [{ input: 1, view: plainView(shape) }], program };
  return { products: [{ weight: 1, transposed, columns: null }], epilogues: [epilogue] };
}
