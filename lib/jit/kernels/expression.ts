// lib/jit/kernels/expression.ts: values inside a GPU kernel: typed expressions, built by methods, printed by a target.
// Nothing here knows a shading language: names of types and operations are our own. Source: the operations that WGSL
// and PTX share.
//
//   x.mul(2).add(y)          a plain number becomes a literal of the other operand's type
//   table.at(i).lane(0)      arrays are declared by the builder (builder.ts)

import type { KernelFunction } from './kernel.js';

export type ScalarType = 'f32' | 'f16' | 'i32' | 'u32' | 'bool';
export type NumberType = Exclude<ScalarType, 'bool'>;
export type VectorType = `${ScalarType}x${2 | 4}`;
export type Type = ScalarType | VectorType;

/** What a thread knows of itself: where its workgroup is, where it is in it, and in its subgroup. */
export const builtins = [
  ...['workgroupX', 'workgroupY', 'workgroupZ', 'workgroupsX', 'workgroupsY', 'workgroupsZ'],
  ...['localIndex', 'subgroupSize', 'subgroupLane', 'subgroupIndex'],
  'matrixGroup', // which of the workgroup's groups of matrixThreads this thread is in
] as const;
export type Builtin = (typeof builtins)[number];

/** Operations on operands of one type that give the same type, or bool where they compare. */
export type BinaryOp =
  | ('add' | 'sub' | 'mul' | 'div' | 'rem' | 'min' | 'max')
  | ('and' | 'or' | 'xor' | 'shl' | 'shr')
  | Comparison;
type Comparison = 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge';

/** Functions of one operand. `round` is half to even; exp, log, sin, ... are the adapter's own, fast and rough. */
export type UnaryOp =
  | ('neg' | 'not' | 'abs' | 'floor' | 'ceil' | 'trunc' | 'round' | 'sqrt' | 'rsqrt' | 'sign')
  | ('exp' | 'exp2' | 'log' | 'log2' | 'sin' | 'cos' | 'tanh' | 'leadingZeros');

/**
 * Other functions: fma(a, b, c); clamp(x, low, high); dot of two vectors; dot4I8(a, b): products of four signed bytes
 * in a word each, summed as i32; halves(word) -> f32x2 and packHalves(f32x2) -> word; any, all of a bool vector.
 */
export type CallOp = 'fma' | 'clamp' | 'dot' | 'dot4I8' | 'halves' | 'packHalves' | 'any' | 'all';

/** Across the threads of a subgroup; the adapter must have subgroups. Shuffles take a lane or a mask. */
export type SubgroupOp =
  | ('subgroupAdd' | 'subgroupMax' | 'subgroupMin' | 'subgroupFirst')
  | ('subgroupShuffle' | 'subgroupShuffleXor' | 'subgroupShuffleDown');

/** What an expression is made of. */
export type ExprNode =
  | { readonly kind: 'literal'; readonly value: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'builtin'; readonly name: Builtin }
  | { readonly kind: 'parameter'; readonly name: string }
  | { readonly kind: 'unary'; readonly op: UnaryOp; readonly args: readonly [Expr] }
  | { readonly kind: 'binary'; readonly op: BinaryOp; readonly args: readonly [Expr, Expr] }
  | { readonly kind: 'call'; readonly op: CallOp | SubgroupOp; readonly args: readonly Expr[] }
  | { readonly kind: 'function'; readonly fn: KernelFunction; readonly args: readonly Expr[] }
  | { readonly kind: 'select'; readonly args: readonly [condition: Expr, then: Expr, otherwise: Expr] }
  | { readonly kind: 'lane'; readonly lane: number; readonly args: readonly [Expr] }
  | { readonly kind: 'vector'; readonly args: readonly Expr[] }
  /** Numeric conversion; bool becomes 0 or 1. */
  | { readonly kind: 'convert'; readonly args: readonly [Expr] }
  /** The same 32 bits under another type. */
  | { readonly kind: 'bits'; readonly args: readonly [Expr] }
  | { readonly kind: 'load'; readonly array: string; readonly args: readonly [index: Expr] }
  /** Element 0 of a shared array, after all threads have arrived: one value for the workgroup, and known to be. */
  | { readonly kind: 'uniformLoad'; readonly array: string };

export type Operand = Expr | number;

/** A value of a kernel. Using it twice writes it twice: `let` of the builder gives it a name. */
export class Expr {
  constructor(
    readonly type: Type,
    readonly node: ExprNode,
  ) {}

  add = (other: Operand): Expr => this.binary('add', other);
  sub = (other: Operand): Expr => this.binary('sub', other);
  mul = (other: Operand): Expr => this.binary('mul', other);
  div = (other: Operand): Expr => this.binary('div', other);
  /** The remainder with the dividend's sign; integers. */
  rem = (other: Operand): Expr => this.binary('rem', other);
  min = (other: Operand): Expr => this.binary('min', other);
  max = (other: Operand): Expr => this.binary('max', other);
  /** Bits of integers, or bools without short circuit. */
  and = (other: Operand): Expr => this.binary('and', other);
  or = (other: Operand): Expr => this.binary('or', other);
  xor = (other: Operand): Expr => this.binary('xor', other);
  shl = (bits: Operand): Expr => this.shift('shl', bits);
  /** Of i32 with the sign, of u32 with zeros. */
  shr = (bits: Operand): Expr => this.shift('shr', bits);
  eq = (other: Operand): Expr => this.binary('eq', other);
  ne = (other: Operand): Expr => this.binary('ne', other);
  lt = (other: Operand): Expr => this.binary('lt', other);
  le = (other: Operand): Expr => this.binary('le', other);
  gt = (other: Operand): Expr => this.binary('gt', other);
  ge = (other: Operand): Expr => this.binary('ge', other);

  neg = (): Expr => this.unary('neg');
  not = (): Expr => this.unary('not');
  abs = (): Expr => this.unary('abs');
  floor = (): Expr => this.unary('floor');
  ceil = (): Expr => this.unary('ceil');
  trunc = (): Expr => this.unary('trunc');
  round = (): Expr => this.unary('round');
  sqrt = (): Expr => this.unary('sqrt');
  rsqrt = (): Expr => this.unary('rsqrt');
  unary = (op: UnaryOp): Expr => new Expr(this.type, { kind: 'unary', op, args: [this] });

  /** this * factor + term, rounded once where the adapter can. */
  fma(factor: Operand, term: Operand): Expr {
    const args = [this, operand(factor, this.type), operand(term, this.type)];
    return new Expr(this.type, { kind: 'call', op: 'fma', args });
  }
  clamp(low: Operand, high: Operand): Expr {
    const args = [this, operand(low, this.type), operand(high, this.type)];
    return new Expr(this.type, { kind: 'call', op: 'clamp', args });
  }
  dot(other: Expr): Expr {
    expectType('dot', other.type, this.type);
    return new Expr(scalarOf(this.type), { kind: 'call', op: 'dot', args: [this, other] });
  }
  /** Of two words of four signed bytes: the sum of their products, i32. */
  dot4I8(other: Expr): Expr {
    for (const { type } of [this, other]) expectType('dot4I8', type, 'u32');
    return new Expr('i32', { kind: 'call', op: 'dot4I8', args: [this, other] });
  }
  /** Two float16 in a word -> f32x2, the low half first. */
  halves(): Expr {
    expectType('halves', this.type, 'u32');
    return new Expr('f32x2', { kind: 'call', op: 'halves', args: [this] });
  }
  packHalves(): Expr {
    expectType('packHalves', this.type, 'f32x2');
    return new Expr('u32', { kind: 'call', op: 'packHalves', args: [this] });
  }
  /** `then` where this bool holds, else `otherwise`; both are evaluated. */
  select(then: Operand, otherwise: Operand): Expr {
    const known = then instanceof Expr ? then : otherwise;
    if (!(known instanceof Expr)) throw new TypeError('select: one of the two has to be an expression');
    const args = [this, operand(then, known.type), operand(otherwise, known.type)] as const;
    return new Expr(known.type, { kind: 'select', args });
  }
  lane(lane: number): Expr {
    if (lane < 0 || lane >= lanesOf(this.type))
      throw new RangeError(`lane: expected 0 to ${lanesOf(this.type) - 1} of ${this.type}, received ${lane}`);
    return new Expr(scalarOf(this.type), { kind: 'lane', lane, args: [this] });
  }
  /** Converts numbers of this value to another element type. */
  to(scalar: ScalarType): Expr {
    const type = withScalar(this.type, scalar);
    return type === this.type ? this : new Expr(type, { kind: 'convert', args: [this] });
  }
  /** The same bits as another type of the same size. */
  bits(type: Type): Expr {
    return type === this.type ? this : new Expr(type, { kind: 'bits', args: [this] });
  }
  subgroup(op: SubgroupOp, lane?: Operand): Expr {
    const args = lane === undefined ? [this] : [this, operand(lane, 'u32')];
    return new Expr(this.type, { kind: 'call', op, args });
  }

  private binary(op: BinaryOp, other: Operand): Expr {
    const right = operand(other, this.type);
    expectType(op, right.type, this.type);
    if (changesNothing(op, right)) return this;
    const type = comparisons.has(op) ? withScalar(this.type, 'bool') : this.type;
    return new Expr(type, { kind: 'binary', op, args: [this, right] });
  }
  private shift(op: 'shl' | 'shr', bits: Operand): Expr {
    const right = operand(bits, withScalar(this.type, 'u32'));
    if (changesNothing(op, right)) return this;
    return new Expr(this.type, { kind: 'binary', op, args: [this, right] });
  }
}

const comparisons: ReadonlySet<BinaryOp> = new Set<Comparison>(['eq', 'ne', 'lt', 'le', 'gt', 'ge']);

/** Of integers: plus 0, times 1 and the like, which come from sizes that are known when a kernel is written. */
function changesNothing(op: BinaryOp, { type, node }: Expr): boolean {
  if (node.kind !== 'literal' || !/^[iu]32/.test(type)) return false;
  if (op === 'mul' || op === 'div') return node.value === 1;
  return (op === 'add' || op === 'sub' || op === 'shl' || op === 'shr') && node.value === 0;
}

/** A number as a value of that type: in all lanes of a vector; bool: 0 is false. */
export function literal(type: Type, value: number): Expr {
  return new Expr(type, { kind: 'literal', value });
}

/** An operand as an expression: a plain number becomes a literal of `type`. */
export function operand(value: Operand, type: Type): Expr {
  return value instanceof Expr ? value : literal(type, value);
}

/** A vector of equal scalars in order. */
export function vector(...parts: readonly Expr[]): Expr {
  const scalar = scalarOf(parts[0]!.type);
  const lanes = parts.reduce((sum, part) => sum + lanesOf(part.type), 0);
  if (lanes !== 2 && lanes !== 4) throw new RangeError(`vector: expected 2 or 4 lanes, received ${lanes}`);
  for (const { type } of parts) expectType('vector', scalarOf(type), scalar);
  return new Expr(`${scalar}x${lanes}`, { kind: 'vector', args: parts });
}

/** A scalar in all lanes. */
export function splat(value: Expr, lanes: 2 | 4): Expr {
  return new Expr(`${scalarOf(value.type)}x${lanes}`, { kind: 'vector', args: [value] });
}

/** The sum of a vector's lanes, in pairs. */
export function laneSum(value: Expr): Expr {
  const lanes = lanesOf(value.type);
  if (lanes === 1) return value;
  const pair = (i: number): Expr => value.lane(i).add(value.lane(i + 1));
  return lanes === 2 ? pair(0) : pair(0).add(pair(2));
}

export function lanesOf(type: Type): 1 | 2 | 4 {
  return type.endsWith('x4') ? 4 : type.endsWith('x2') ? 2 : 1;
}

export function scalarOf(type: Type): ScalarType {
  return type.replace(/x[24]$/, '') as ScalarType;
}

function withScalar(type: Type, scalar: ScalarType): Type {
  const lanes = lanesOf(type);
  return lanes === 1 ? scalar : `${scalar}x${lanes}`;
}

/** Bytes of one element in memory. */
export function typeBytes(type: Type): number {
  return lanesOf(type) * (scalarOf(type) === 'f16' ? 2 : 4);
}

export function expectType(where: string, received: Type, expected: Type): void {
  if (received !== expected)
    throw new TypeError(`${where}: expected an operand of ${expected}, received ${received}`);
}
