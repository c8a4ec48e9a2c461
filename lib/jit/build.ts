// lib/jit/build.ts: makes graphs. Calls such as builder.binary('Add', a, b) -> Nodes in order, shapes inferred.
// trace.ts builds with it what a function calls; passes and tests build with it what they want to say.

import type { Shape, Weight } from '../tensor.js';
import { sizeOf } from '../tensor.js';
import type {
  Attributes,
  BinaryOp,
  ElementType,
  ElementValues,
  Graph,
  Node,
  ReduceKind,
  ScalarOp,
  StructuredNode,
  StructuredOp,
  UnaryOp,
  Value,
  WeightSlot,
} from './graph.js';
import { formatOf, newValue } from './graph.js';
import type { ValueType } from './infer.js';
import { broadcastShapes, checkScalarArgs, inferTypes, scalarType } from './infer.js';

/** One level of a graph under construction: the root, or the body of a Scan (whose parent is where it stands). */
export class GraphBuilder {
  readonly inputs: Value[] = [];
  readonly nodes: Node[] = [];
  readonly weights: WeightSlot[];
  readonly #weightIndices: Map<Weight, number>;
  /** Says where the user's code is; asked once a Node. */
  readonly source: () => Node['source'];
  readonly #parent: GraphBuilder | undefined;
  readonly #owned = new Set<Value>();
  readonly #producers = new Map<Value, Node>();
  readonly #resolved = new Map<Value, Value>();
  /** Of a Scan's body: values of the parent that it reads, in the order of the inputs they became. */
  readonly captures: Value[] = [];

  constructor(parent?: GraphBuilder, source: () => Node['source'] = () => undefined) {
    this.#parent = parent;
    this.weights = parent ? parent.weights : [];
    this.#weightIndices = parent ? parent.#weightIndices : new Map();
    this.source = parent ? parent.source : source;
  }

  input(dtype: ElementType, shape: Shape): Value {
    const value = newValue(dtype, shape);
    this.inputs.push(value);
    this.#owned.add(value);
    return value;
  }

  /** The Node that wrote a value of this level or an outer one; undefined for an input. */
  producerOf(value: Value): Node | undefined {
    return this.#producers.get(value) ?? this.#parent?.producerOf(value);
  }

  /** Makes a value readable at this level: a constant is written again, anything else becomes an input of the body. */
  resolve(value: Value): Value {
    if (this.#owned.has(value)) return value;
    const known = this.#resolved.get(value);
    if (known) return known;
    if (!this.#parent) throw new Error(`%${value.id}: this value belongs to another trace`);
    const inner = this.#capture(this.#parent.resolve(value));
    this.#resolved.set(value, inner);
    return inner;
  }

  #capture(outer: Value): Value {
    const known = this.#resolved.get(outer);
    if (known) return known;
    const producer = this.#parent?.producerOf(outer);
    const isConstant = producer?.op === 'Constant' || producer?.op === 'WeightTensor';
    const inner = isConstant ? this.#repeat(producer) : this.input(outer.dtype, outer.shape);
    if (!isConstant) this.captures.push(outer);
    this.#resolved.set(outer, inner);
    return inner;
  }

  #repeat(node: StructuredNode<'Constant' | 'WeightTensor'>): Value {
    const outputs = node.outputs.map(({ dtype, shape }) => this.#own(newValue(dtype, shape)));
    this.#push({ ...node, outputs });
    return outputs[0]!;
  }

  #origin(): Pick<Node, 'source'> {
    const source = this.source();
    return source ? { source } : {};
  }

  #own(value: Value): Value {
    this.#owned.add(value);
    return value;
  }

  #push(node: Node): void {
    this.nodes.push(node);
    for (const output of node.outputs) this.#producers.set(output, node);
  }

  /**
   * Adds a Node.
   * @param given types of the outputs where inputs and attributes leave them open (Reshape, Slice, Broadcast, ...)
   * @throws RangeError if the shapes do not go together
   */
  add<Name extends StructuredOp>(
    op: Name,
    inputs: readonly Value[],
    attrs: Attributes[Name],
    given: readonly ValueType[] = [],
  ): Value[] {
    const resolved = inputs.map((input) => this.resolve(input));
    const types = inferTypes(op, attrs, resolved, given);
    const outputs = types.map(({ dtype, shape }) => this.#own(newValue(dtype, [...shape])));
    // The pieces fit by construction: TypeScript cannot relate a generic op to its member of the union.
    this.#push({ op, inputs: resolved, outputs, attrs, ...this.#origin() } as unknown as StructuredNode);
    return outputs;
  }

  /** A scalar operation; inputs are broadcast. `to`: the type that a Cast makes. */
  scalar(op: ScalarOp, inputs: readonly Value[], to?: ElementType): Value {
    const resolved = inputs.map((input) => this.resolve(input));
    const types = resolved.map((input) => input.dtype);
    checkScalarArgs(op, types);
    const shape = broadcastShapes(...resolved.map((input) => input.shape));
    const output = this.#own(newValue(scalarType(op, types, to ?? types[0]!), shape));
    this.#push({ op, inputs: resolved, outputs: [output], attrs: {}, ...this.#origin() });
    return output;
  }

  unary(op: Exclude<UnaryOp, 'Cast'>, x: Value): Value {
    return this.scalar(op, [x]);
  }

  binary(op: BinaryOp, a: Value, b: Value | number): Value {
    return this.scalar(op, [a, typeof b === 'number' ? this.literal(b, a.dtype) : b]);
  }

  select(condition: Value, a: Value, b: Value): Value {
    return this.scalar('Select', [condition, a, b]);
  }

  cast(x: Value, dtype: ElementType): Value {
    return x.dtype === dtype ? x : this.scalar('Cast', [x], dtype);
  }

  literal(value: number, dtype: ElementType = 'f32'): Value {
    return this.constant(dtype === 'f32' ? Float32Array.of(value) : Int32Array.of(value), dtype, []);
  }

  /** A constant; one number repeated is kept as a scalar and broadcast. */
  constant(values: ElementValues, dtype: ElementType, shape: Shape): Value {
    const [first] = values;
    if (values.length > 1 && values.every((value) => Object.is(value, first)))
      return this.broadcast(this.literal(first!, dtype), shape);
    return this.add('Constant', [], { values }, [{ dtype, shape }])[0]!;
  }

  broadcast(x: Value, shape: Shape): Value {
    return sameShape(x.shape, shape) ? x : this.add('Broadcast', [x], {}, [{ dtype: x.dtype, shape }])[0]!;
  }

  reshape(x: Value, shape: Shape): Value {
    return sameShape(x.shape, shape) ? x : this.add('Reshape', [x], {}, [{ dtype: x.dtype, shape }])[0]!;
  }

  transpose(x: Value, perm: readonly number[]): Value {
    return perm.every((axis, i) => axis === i) ? x : this.add('Transpose', [x], { perm })[0]!;
  }

  slice(x: Value, begin: readonly number[], shape: Shape, strides?: readonly number[]): Value {
    const steps = strides ?? begin.map(() => 1);
    if (sameShape(x.shape, shape) && steps.every((step) => step === 1)) return x;
    return this.add('Slice', [x], { begin, strides: steps }, [{ dtype: x.dtype, shape }])[0]!;
  }

  /** One axis cut, the others whole. */
  sliceAxis(x: Value, axis: number, begin: number, size: number, stride = 1): Value {
    const at = (value: number, other: (i: number) => number) =>
      x.shape.map((_, i) => (i === axis ? value : other(i)));
    return this.slice(
      x,
      at(begin, () => 0),
      at(size, (i) => x.shape[i]!),
      at(stride, () => 1),
    );
  }

  concat(inputs: readonly Value[], axis: number): Value {
    return inputs.length === 1 ? inputs[0]! : this.add('Concat', inputs, { axis })[0]!;
  }

  /** Reduces any set of axes: those that are not neighbours are moved to the end first. */
  reduce(kind: ReduceKind, x: Value, axes: readonly number[], keepDims = false): Value {
    const sorted = [...new Set(axes)].sort((a, b) => a - b);
    const kept = x.shape.map((size, axis) => (sorted.includes(axis) ? 1 : size));
    const shape = keepDims ? kept : x.shape.filter((_, axis) => !sorted.includes(axis));
    if (sorted.length === 0) return x;
    const isOne = sorted.every((axis) => x.shape[axis] === 1) && kind !== 'ArgMax' && kind !== 'ArgMin';
    if (isOne) return this.reshape(x, shape); // one element is its own sum, product, largest and smallest
    const neighbours = sorted.every((axis, i) => axis === sorted[0]! + i);
    const rest = x.shape.map((_, axis) => axis).filter((axis) => !sorted.includes(axis));
    const operand = neighbours ? x : this.transpose(x, [...rest, ...sorted]);
    const first = neighbours ? sorted[0]! : rest.length;
    const reduced = this.add('Reduce', [operand], { kind, first, last: first + sorted.length - 1 })[0]!;
    return this.reshape(reduced, shape);
  }

  /** The place of a Weight in the graph's list; one that is not an argument's is captured. */
  weightIndex(weight: Weight): number {
    return (
      this.#weightIndices.get(weight) ??
      this.addWeight(weight, { format: formatOf(weight), path: 'captured', weight })
    );
  }

  /** Enters a Weight, or what stands for one while tracing. */
  addWeight(weight: Weight, slot: WeightSlot): number {
    const index = this.weights.push(slot) - 1;
    this.#weightIndices.set(weight, index);
    return index;
  }

  /** The finished graph. */
  finish(outputs: readonly Value[]): Graph {
    const resolved = outputs.map((output) => this.resolve(output));
    const weights = this.#parent ? [] : this.weights;
    return { inputs: this.inputs, nodes: this.nodes, outputs: resolved, weights };
  }
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/** Elements of a value. */
export function elementsOf(value: Value): number {
  return sizeOf(value.shape);
}
