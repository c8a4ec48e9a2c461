// lib/jit/infer.ts: operation, inputs, attributes -> element type and shape of each output. Used by build.ts to make
// Nodes and by check.ts to verify them. Source: the shapes in graph.ts.

import type { Shape } from '../tensor.js';
import { sizeOf } from '../tensor.js';
import type {
  Attributes,
  ElementType,
  ScalarOp,
  StructuredNode,
  StructuredOp,
  Value,
  View,
} from './graph.js';
import { isBinary } from './graph.js';

/** What a Value is, without its identity. */
export interface ValueType {
  readonly dtype: ElementType;
  readonly shape: Shape;
}

const comparisons: ReadonlySet<string> = new Set([
  ...['Equal', 'NotEqual', 'Less', 'LessEqual', 'Greater', 'GreaterEqual', 'And', 'Or'],
  ...['Not', 'IsNan', 'IsInf', 'IsFinite'],
]);

/**
 * The shape that NumPy's rules broadcast shapes to.
 * @throws RangeError if an axis differs and neither is 1 (gives both shapes)
 */
export function broadcastShapes(...shapes: readonly Shape[]): Shape {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape[axis - (rank - shape.length)] ?? 1);
    const size = sizes.find((each) => each !== 1) ?? 1;
    if (sizes.some((each) => each !== 1 && each !== size)) {
      throw new RangeError(`shapes ${shapes.map(bracket).join(' and ')} cannot be broadcast together`);
    }
    return size;
  });
}

/** Element type that a scalar operation gives; `own` is its Node's or Instruction's, which only Cast chooses freely. */
export function scalarType(op: ScalarOp, args: readonly ElementType[], own: ElementType): ElementType {
  if (comparisons.has(op)) return 'bool';
  if (op === 'Cast') return own;
  return op === 'Select' ? args[1]! : args[0]!;
}

/**
 * Checks element types of a scalar operation's operands.
 * @throws TypeError that gives the operation and what it received
 */
export function checkScalarArgs(op: ScalarOp, args: readonly ElementType[]): void {
  const arity = op === 'Select' ? 3 : isBinary(op) ? 2 : 1;
  const [first] = args;
  const expected = (valid: boolean, what: string): void => {
    if (!valid) throw new TypeError(`${op}: expected ${what}, received ${args.join(', ')}`);
  };
  expected(args.length === arity, `${arity} inputs`);
  if (op === 'Select') expected(first === 'bool' && args[1] === args[2], 'bool and two of one type');
  else if (arity === 2) expected(first === args[1], 'two of one type');
  if (op === 'And' || op === 'Or' || op === 'Not') expected(first === 'bool', 'bool');
  else if (op.startsWith('Bit') || op.startsWith('Shift')) expected(first === 'i32', 'i32');
  else if (op === 'Div' || op === 'Atan2') expected(first === 'f32', 'f32');
}

type Inference<Name extends StructuredOp> = (
  attrs: Attributes[Name],
  inputs: readonly Value[],
  given: readonly ValueType[],
) => readonly ValueType[];

/** Operations whose output shape is given and only checked take it from `given`. */
const inferences: { readonly [Name in StructuredOp]: Inference<Name> } = {
  Constant: (attrs, _, given) => {
    const [type] = given;
    if (!type || attrs.values.length !== sizeOf(type.shape))
      fail(`Constant: ${attrs.values.length} values`, type);
    return given;
  },
  Broadcast: (_, [x], [to]) => {
    const shape = broadcastShapes(x!.shape, to!.shape);
    if (bracket(shape) !== bracket(to!.shape)) fail(`Broadcast of ${bracket(x!.shape)}`, to);
    return [{ dtype: x!.dtype, shape }];
  },
  Reshape: (_, [x], [to]) => {
    if (sizeOf(x!.shape) !== sizeOf(to!.shape)) fail(`Reshape of ${bracket(x!.shape)}`, to);
    return [{ dtype: x!.dtype, shape: to!.shape }];
  },
  Transpose: ({ perm }, [x]) => {
    const sorted = [...perm].sort((a, b) => a - b);
    if (sorted.length !== x!.shape.length || sorted.some((axis, i) => axis !== i))
      fail(`Transpose by ${perm}`, x);
    return [{ dtype: x!.dtype, shape: perm.map((axis) => x!.shape[axis]!) }];
  },
  Slice: ({ begin, strides }, [x], [to]) => {
    const inside = to!.shape.every((size, axis) => {
      const last = begin[axis]! + (size - 1) * strides[axis]!;
      return (
        size === 0 || (Math.min(begin[axis]!, last) >= 0 && Math.max(begin[axis]!, last) < x!.shape[axis]!)
      );
    });
    if (!inside || to!.shape.length !== x!.shape.length) fail(`Slice [${begin}] of ${bracket(x!.shape)}`, to);
    return [{ dtype: x!.dtype, shape: to!.shape }];
  },
  Concat: ({ axis }, inputs) => {
    const [first] = inputs;
    const others = (shape: Shape): string => bracket(shape.filter((_, i) => i !== axis));
    for (const input of inputs) {
      if (input.dtype !== first!.dtype || others(input.shape) !== others(first!.shape))
        fail(`Concat on axis ${axis} with ${bracket(first!.shape)}`, input);
    }
    const total = inputs.reduce((sum, input) => sum + input.shape[axis]!, 0);
    return [{ dtype: first!.dtype, shape: first!.shape.map((size, i) => (i === axis ? total : size)) }];
  },
  Reduce: ({ kind, first, last }, [x]) => {
    const shape = x!.shape.filter((_, axis) => axis < first || axis > last);
    return [{ dtype: kind.startsWith('Arg') ? 'i32' : x!.dtype, shape }];
  },
  Cumulative: (_, [x]) => [x!],
  Gather: ({ axis, batchAxes }, [x, indices]) => [
    {
      dtype: x!.dtype,
      shape: [...x!.shape.slice(0, axis), ...indices!.shape.slice(batchAxes), ...x!.shape.slice(axis + 1)],
    },
  ],
  GatherNd: (_, [x, indices]) => {
    const depth = indices!.shape.at(-1)!;
    return [{ dtype: x!.dtype, shape: [...indices!.shape.slice(0, -1), ...x!.shape.slice(depth)] }];
  },
  ScatterNd: (_, [base, , updates]) => {
    if (base!.dtype !== updates!.dtype) fail(`ScatterNd into ${base!.dtype}`, updates);
    return [base!];
  },
  TopK: ({ k }, [x]) => {
    const shape = [...x!.shape.slice(0, -1), k];
    return [
      { dtype: x!.dtype, shape },
      { dtype: 'i32', shape },
    ];
  },
  BatchMatMul: ({ transposeA, transposeB }, [a, b]) => {
    const [m, k] = transposeA ? swapped(a!.shape) : tail(a!.shape);
    const [k2, n] = transposeB ? swapped(b!.shape) : tail(b!.shape);
    if (k !== k2) fail(`BatchMatMul of ${bracket(a!.shape)}`, b);
    return [
      { dtype: 'f32', shape: [...broadcastShapes(a!.shape.slice(0, -2), b!.shape.slice(0, -2)), m, n] },
    ];
  },
  Linear: ({ epilogues }, [x], given) => {
    if (given.length !== epilogues.length) fail(`Linear: ${epilogues.length} epilogues`, given[0]);
    const rows = bracket(x!.shape.slice(0, -1));
    for (const output of given)
      if (bracket(output.shape.slice(0, -1)) !== rows) fail(`Linear of ${rows}`, output);
    return given;
  },
  Embed: (_, [indices], [to]) => [{ dtype: 'f32', shape: [...indices!.shape, to!.shape.at(-1)!] }],
  WeightTensor: (_, __, [to]) => [{ dtype: 'f32', shape: to!.shape }],
  Norm: (_, [x]) => [x!],
  Softmax: (_, [x]) => [x!],
  Rotary: (_, [x]) => [x!],
  CacheAppend: (_, [cache]) => [cache!],
  CachedAttention: (_, [q]) => [q!],
  Attention: (_, [q, , v]) => [{ dtype: 'f32', shape: [...q!.shape.slice(0, -1), v!.shape.at(-1)!] }],
  Scan: ({ length, carry, until, body }, inputs) => {
    const stacked = body.outputs.slice(carry, until ? -1 : undefined);
    return [
      ...inputs.slice(0, carry),
      ...stacked.map(({ dtype, shape }) => ({ dtype, shape: [length, ...shape] })),
      { dtype: 'i32' as const, shape: [] },
    ];
  },
  Elementwise: ({ program, views }, _, [to]) => {
    if (views.some((view) => view.strides.length !== to!.shape.length)) fail('Elementwise: a view', to);
    return [{ dtype: program.at(-1)!.dtype, shape: to!.shape }];
  },
};

/**
 * Types of a Node's outputs.
 * @param given types that the caller expects; needed where inputs and attributes leave the shape open
 * @throws RangeError that names the operation and the shapes
 */
export function inferTypes<Name extends StructuredOp>(
  op: Name,
  attrs: Attributes[Name],
  inputs: readonly Value[],
  given: readonly ValueType[],
): readonly ValueType[] {
  return (inferences[op] as Inference<Name>)(attrs, inputs, given).map(({ dtype, shape }) => ({
    dtype,
    shape,
  }));
}

/** inferTypes of a Node that stands already. */
export function inferNode(node: StructuredNode): readonly ValueType[] {
  // The pair of op and attrs is the node's own, which TypeScript forgets when it takes them apart.
  return inferTypes(node.op, node.attrs as Attributes[StructuredOp], node.inputs, node.outputs);
}

/** True if the view stays inside an operand of `size` elements for every index of `shape`. */
export function viewFits({ offset, strides }: View, shape: Shape, size: number): boolean {
  if (sizeOf(shape) === 0) return true;
  let low = offset;
  let high = offset;
  for (const [axis, stride] of strides.entries()) {
    const reach = stride * (shape[axis]! - 1);
    if (reach < 0) low += reach;
    else high += reach;
  }
  return low >= 0 && high < size;
}

/** A shape as messages and prints show it. */
export function bracket(shape: Shape): string {
  return `[${shape.join(',')}]`;
}

function tail(shape: Shape): [number, number] {
  return [shape.at(-2)!, shape.at(-1)!];
}

function swapped(shape: Shape): [number, number] {
  return [shape.at(-1)!, shape.at(-2)!];
}

function fail(what: string, type: ValueType | undefined): never {
  throw new RangeError(
    `${what}: does not go with ${type ? `${type.dtype}${bracket(type.shape)}` : 'nothing'}`,
  );
}
