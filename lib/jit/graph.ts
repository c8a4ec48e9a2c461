// lib/jit/graph.ts: the intermediate representation of a traced function. trace.ts makes it, passes/*.ts rewrite it,
// plan.ts places it in memory, targets run it. Source: static single assignment (each Value is written by one Node), as
// in jax's jaxpr.
//
// A Graph is a list of Nodes in an order in which every input is ready. It lives on two levels:
//
//   traced   what the user's function called: a Node for each scalar operation (`Add`, `Exp`, ...; inputs broadcast by
//            NumPy's rules) and for each change of layout (`Transpose`, `Slice`, ...). Passes match on these.
//   kernels  what a target implements (`KernelOp`): the pass fuseElementwise, which is never left out, turns all scalar
//            operations and changes of layout into `Elementwise` Nodes, each a small expression Program over inputs
//            that are read through Views (that is how a transpose, slice, reversal or broadcast costs nothing).
//
// Memory: row-major. Every element takes 4 bytes on every target: f32, i32, and bool as an i32 that is 0 or 1.
// Numbers: f32 operations round to f32 one by one; i32 operations wrap at 32 bits (Math.imul). NaN goes through Max and
// Min. An axis may be 0 long. `Reshape` moves nothing: its output is another name for the same memory.

import type { Granularity, Shape, Weight } from '../tensor.js';

/** Element types inside a graph. */
export type ElementType = 'f32' | 'i32' | 'bool';

/** Values of a constant; bool is an Int32Array of 0 and 1. */
export type ElementValues = Float32Array | Int32Array;

/** One tensor of the graph. Its identity is the object; `id`, unique in a graph and its subgraphs, is for printing. */
export interface Value {
  readonly id: number;
  readonly dtype: ElementType;
  readonly shape: Shape;
}

/**
 * Scalar operations on one input. Round is half to even. Erf is exact to f32. Softplus is log(1 + exp(x)), safe for
 * large x. Cast converts: f32 to i32 truncates toward zero, anything to bool is x != 0.
 */
export const unaryOps = [
  ...['Neg', 'Abs', 'Sign', 'Floor', 'Ceil', 'Round', 'Sqrt', 'Rsqrt', 'Exp', 'Expm1', 'Log', 'Log1p'],
  ...['Sin', 'Cos', 'Tan', 'Asin', 'Acos', 'Atan', 'Sinh', 'Cosh', 'Tanh', 'Asinh', 'Acosh', 'Atanh'],
  ...['Erf', 'Sigmoid', 'Softplus', 'Not', 'IsNan', 'IsInf', 'IsFinite', 'Cast'],
] as const;

/**
 * Scalar operations on two inputs of the same type. Div is real division (f32 only); FloorDiv is floor(a / b) in f32 or
 * i32; Mod has the sign of the divisor; Equal to GreaterEqual give bool; And and Or take and give bool; BitAnd to
 * ShiftRightLogical take and give i32 (shifts by the lowest 5 bits).
 */
export const binaryOps = [
  ...['Add', 'Sub', 'Mul', 'Div', 'FloorDiv', 'Mod', 'Pow', 'Max', 'Min', 'Atan2'],
  ...['Equal', 'NotEqual', 'Less', 'LessEqual', 'Greater', 'GreaterEqual', 'And', 'Or'],
  ...['BitAnd', 'BitOr', 'BitXor', 'ShiftLeft', 'ShiftRightLogical'],
] as const;

export type UnaryOp = (typeof unaryOps)[number];
export type BinaryOp = (typeof binaryOps)[number];
/** Select(condition: bool, a, b) is a where the condition holds, else b; the operand not taken may be NaN. */
export type ScalarOp = UnaryOp | BinaryOp | 'Select';

/**
 * One step of a Program. Its register is its place in the list; `args` name earlier registers.
 * Input reads input `index` of the program at the element at hand; Literal is a number (bool: 0 or 1).
 */
export type Instruction =
  | { readonly op: 'Input'; readonly index: number; readonly dtype: ElementType }
  | { readonly op: 'Literal'; readonly value: number; readonly dtype: ElementType }
  | { readonly op: ScalarOp; readonly args: readonly number[]; readonly dtype: ElementType };

/** A scalar expression, run once for each output element; the last instruction is its result. */
export type Program = readonly Instruction[];

/**
 * How a kernel reads an operand while it walks over its output: element index = offset + sum of strides[i] * index[i],
 * counted in elements of the operand's own memory. One stride an axis of the output; 0 broadcasts; may be negative.
 */
export interface View {
  readonly offset: number;
  readonly strides: readonly number[];
}

/** Layout and scales of a Weight without its bytes: what code generation may depend on. */
export type WeightFormat =
  | { readonly kind: 'float'; readonly dtype: 'f32' | 'f16' | 'bf16'; readonly shape: Shape }
  | { readonly kind: 'int8' | 'int4'; readonly granularity: Granularity; readonly shape: Shape };

/**
 * A Weight that the graph reads, bound once. `weight` is the captured Weight, or undefined when it comes with the
 * arguments (then `path` is the argument's, such as '0.h.3.attn.c_attn.kernel').
 */
export interface WeightSlot {
  readonly format: WeightFormat;
  readonly path: string;
  readonly weight?: Weight;
}

/**
 * A product x * weight in a Linear. `transposed`: the Weight is [out, in], as a tied embedding, else [in, out].
 * `columns`: only these output features, multiples of 16, so that Q, K and V of one kernel [dim, 3 dim] go to three
 * outputs; null: all.
 */
export interface LinearProduct {
  readonly weight: number; // index into the root graph's `weights`
  readonly transposed: boolean;
  readonly columns: { readonly begin: number; readonly end: number } | null;
}

/**
 * One output of a Linear or BatchMatMul and what is done to its elements before they are written. The program's first
 * inputs are the products named in `products` (all of this output's shape), then the operands, read through views.
 * Without an epilogue the program is a single Input.
 */
export interface Epilogue {
  readonly products: readonly number[];
  readonly operands: readonly { readonly input: number; readonly view: View }[]; // input: index into Node.inputs
  readonly program: Program;
}

export type ReduceKind = 'Sum' | 'Prod' | 'Max' | 'Min' | 'ArgMax' | 'ArgMin';

/** Attributes by operation. Shapes in the comments are inputs -> outputs. */
export interface Attributes {
  // --- traced level only ---
  /** any -> broadcast to the output's shape by NumPy's rules */
  Broadcast: Record<never, never>;
  /** output axis i is input axis perm[i] */
  Transpose: { readonly perm: readonly number[] };
  /** output[i] = input[begin + i * stride] an axis; a stride may be negative (begin is then the last element read) */
  Slice: { readonly begin: readonly number[]; readonly strides: readonly number[] };

  // --- both levels ---
  /** -> values of the output's dtype and shape; the same `values` object is uploaded once */
  Constant: { readonly values: ElementValues };
  /** x -> the same memory under another shape */
  Reshape: Record<never, never>;
  /** inputs -> one; equal shapes but for `axis` */
  Concat: { readonly axis: number };
  /** [..., n..., ...] -> reduces the axes first to last (inclusive), which are left out of the output; Arg*: i32 */
  Reduce: { readonly kind: ReduceKind; readonly first: number; readonly last: number };
  /** running sum or product along `axis`; exclusive leaves out the element itself; reverse runs from the end */
  Cumulative: {
    readonly kind: 'Sum' | 'Prod';
    readonly axis: number;
    readonly exclusive: boolean;
    readonly reverse: boolean;
  };
  /**
   * x [batch..., outer..., n, inner...], indices [batch..., index...] i32 -> [batch..., outer..., index..., inner...];
   * `axis` is n's; the first `batchAxes` axes are shared. An index outside 0..n-1 gives NaN (f32) or 0.
   */
  Gather: { readonly axis: number; readonly batchAxes: number };
  /** x [n..., inner...], indices [index..., depth] i32 -> [index..., inner...]; outside gives NaN (f32) or 0 */
  GatherNd: Record<never, never>;
  /**
   * base [n..., inner...], indices [index..., depth] i32, updates [index..., inner...] -> base with the updates added
   * or set, in order; an index outside is left out
   */
  ScatterNd: { readonly mode: 'add' | 'set' };
  /** [..., n] -> values [..., k], indices [..., k] i32: largest first, the lower index first among equals */
  TopK: { readonly k: number };
  /** a [..., m, k], b [..., k, n], operands of the epilogue -> [..., m, n]; batch axes broadcast; f32 */
  BatchMatMul: {
    readonly transposeA: boolean;
    readonly transposeB: boolean;
    readonly epilogue: Epilogue; // one product, 0
  };
  /**
   * x [..., in], operands of the epilogues -> one [..., out] an epilogue. Each product is used by one epilogue. Several
   * epilogues: Q, K and V of the same x. One epilogue with two products: silu(gate) * up.
   */
  Linear: { readonly products: readonly LinearProduct[]; readonly epilogues: readonly Epilogue[] };
  /** indices [...] i32 -> rows of the Weight [vocab, dim]: [..., dim] f32 */
  Embed: { readonly weight: number };
  /** -> the whole Weight as f32, in its own shape (norms, biases): made once, when the Weight is bound */
  WeightTensor: { readonly weight: number };
  /**
   * x [..., dim], scale [dim] if `scaled`, bias [dim] if `biased` -> [..., dim]:
   * layer: (x - mean) / sqrt(variance + epsilon); rms: x / sqrt(mean(x * x) + epsilon); then * scale + bias
   */
  Norm: {
    readonly kind: 'layer' | 'rms';
    readonly epsilon: number;
    readonly scaled: boolean;
    readonly biased: boolean;
  };
  /** [..., n] -> softmax over the last axis, of scale * x; `log`: its logarithm. A row of -Infinity gives NaN */
  Softmax: { readonly log: boolean; readonly scale: number };
  /** x [batch, heads, query, headDim], positions [batch, query] i32 -> x rotated; ops.ts `rotary` says how */
  Rotary: {
    readonly inverseFrequencies: readonly number[]; // [headDim / 2]
    readonly scale: number; // of cosine and sine
    readonly layout: 'halves' | 'pairs'; // rotates (i, i + headDim / 2) or (2 i, 2 i + 1)
  };
  /**
   * cache [batch, kvHeads, capacity, headDim], update [batch, kvHeads, query, headDim], start [batch], count [batch]
   * i32 -> the cache with update[b, :, 0..count[b]] at slot (start[b] + i) % capacity. In place where the plan says so.
   */
  CacheAppend: Record<never, never>;
  /**
   * q [batch, heads, query, headDim], keys and values [batch, kvHeads, capacity, headDim], start [batch], count [batch]
   * i32 -> [batch, heads, query, headDim]: query i of a row stands at position start + i and sees the positions
   * max(0, start + i + 1 - window)..start + i; position p lies in slot p % capacity. A query at or after count gives 0.
   */
  CachedAttention: { readonly scale: number; readonly window: number | null };
  /**
   * q [..., query, headDim], k [..., keys, headDim], v [..., keys, valueDim], mask (read through `mask`, if not null)
   * -> softmax(scale * q k^T + mask) v: [..., query, valueDim]; q, k, v have equal leading axes
   */
  Attention: { readonly scale: number; readonly mask: View | null };
  /**
   * carry..., captured... -> last carry..., stacked outputs [length, ...]..., steps taken (i32 scalar).
   * The body is a Graph: inputs carry..., captured...; outputs next carry..., outputs..., and a bool scalar if `until`:
   * true ends the loop after that step, and the rest of the stacked outputs is 0.
   */
  Scan: { readonly length: number; readonly carry: number; readonly until: boolean; readonly body: Graph };

  // --- kernel level only ---
  /** inputs -> one: for each output element the program over inputs[i] read through views[i] */
  Elementwise: { readonly views: readonly View[]; readonly program: Program };
}

export type StructuredOp = keyof Attributes;
export type Op = ScalarOp | StructuredOp;

/** What a target has to implement. Reshape and Constant need no code: the plan deals with them. */
export type KernelOp = Exclude<StructuredOp, 'Broadcast' | 'Transpose' | 'Slice' | 'Reshape' | 'Constant'>;

interface NodeOf<Name extends Op, Attrs> {
  readonly op: Name;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly attrs: Attrs;
  /** Where the user's function called it: as text, such as '/home/me/model.ts:12:7'. */
  readonly source?: { toString(): string };
}

export type ScalarNode = NodeOf<ScalarOp, Record<never, never>>;
export type StructuredNode<Name extends StructuredOp = StructuredOp> = {
  [Each in Name]: NodeOf<Each, Attributes[Each]>;
}[Name];
export type Node = ScalarNode | StructuredNode;
export type KernelNode = StructuredNode<KernelOp>;

/** A traced function. `weights` is filled in the root graph only; a Scan's body refers to the root's. */
export interface Graph {
  readonly inputs: readonly Value[];
  readonly nodes: readonly Node[];
  readonly outputs: readonly Value[];
  readonly weights: readonly WeightSlot[];
}

const unaryNames: ReadonlySet<string> = new Set(unaryOps);
const binaryNames: ReadonlySet<string> = new Set(binaryOps);

export function isUnary(op: Op): op is UnaryOp {
  return unaryNames.has(op);
}

export function isBinary(op: Op): op is BinaryOp {
  return binaryNames.has(op);
}

/** True for a scalar operation: a Node that works on each element by itself. */
export function isScalarNode(node: Node): node is ScalarNode {
  return isUnary(node.op as Op) || isBinary(node.op as Op) || node.op === 'Select';
}

const tracedOnly: ReadonlySet<Op> = new Set<Op>(['Broadcast', 'Transpose', 'Slice', 'Reshape', 'Constant']);

/** True for a Node that a target has code for. */
export function isKernelNode(node: Node): node is KernelNode {
  return !isScalarNode(node) && !tracedOnly.has(node.op);
}

/** Row-major strides in elements, such as [12, 4, 1] for [2, 3, 4]. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  for (let axis = shape.length - 1, stride = 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** The View of an operand of shape `from` that is broadcast to the output shape `to`. */
export function broadcastView(from: Shape, to: Shape): View {
  const own = stridesOf(from);
  const missing = to.length - from.length;
  const strides = to.map((_, axis) =>
    axis < missing || from[axis - missing] === 1 ? 0 : own[axis - missing]!,
  );
  return { offset: 0, strides };
}

/** The Epilogue that changes nothing. */
export function plainEpilogue(product: number): Epilogue {
  return { products: [product], operands: [], program: [{ op: 'Input', index: 0, dtype: 'f32' }] };
}

/** Layout and scales of a Weight. */
export function formatOf(weight: Weight): WeightFormat {
  const { kind, shape } = weight;
  return kind === 'float'
    ? { kind, dtype: weight.dtype, shape }
    : { kind, granularity: weight.granularity, shape };
}

let lastId = 0;

/** A new Value; ids count up over the whole process, and print.ts numbers them from 0 in each graph. */
export function newValue(dtype: ElementType, shape: Shape): Value {
  return { id: lastId++, dtype, shape };
}
