// lib/jit/lower/lowering.ts: what a lowering is. A tfjs kernel's inputs (as Values) and attributes -> Nodes. The other
// files of this folder each hold a table of them by kernel name; trace.ts registers all with tfjs.

import type { GraphBuilder } from '../build.js';
import type { ElementType, Value } from '../graph.js';

/** Inputs by the names that tfjs's kernels give them; those that a kernel has not are undefined. */
export interface KernelInputs {
  readonly x: Value;
  readonly a: Value;
  readonly b: Value;
  readonly logits: Value;
  readonly condition: Value;
  readonly t: Value;
  readonly e: Value;
  readonly alpha: Value;
  readonly indices: Value;
  readonly updates: Value;
  readonly tensor: Value;
  readonly params: Value;
  readonly segmentIds: Value;
  readonly sparseIndices: Value;
  readonly sparseValues: Value;
  readonly defaultValue: Value;
  readonly sortedSequence: Value;
  readonly values: Value;
  readonly weights: Value;
  readonly mean: Value;
  readonly variance: Value;
  readonly offset?: Value;
  readonly scale?: Value;
  readonly bias?: Value;
  readonly preluActivationWeights?: Value;
  readonly positions: Value;
  readonly cache: Value;
  readonly update: Value;
  readonly start: Value;
  readonly count: Value;
  readonly q: Value;
  readonly keys: Value;
  /** All inputs in order: kernels such as Concat take a list. */
  readonly all: readonly Value[];
}

export type Lowering = (b: GraphBuilder, inputs: KernelInputs, attrs: unknown) => Value | Value[];
export type LoweringTable = Readonly<Record<string, Lowering>>;

/** A lowering whose attributes have tfjs's own type. */
export function lowering<Attrs>(
  lower: (b: GraphBuilder, inputs: KernelInputs, attrs: Attrs) => Value | Value[],
): Lowering {
  // tfjs's operations make the attributes; kernels get them untyped.
  return (b, inputs, attrs) => lower(b, inputs, attrs as Attrs);
}

const order: readonly ElementType[] = ['bool', 'i32', 'f32'];

/** The element type that both can be converted to: bool < i32 < f32. */
export function upcast(a: ElementType, b: ElementType): ElementType {
  return order[Math.max(order.indexOf(a), order.indexOf(b))]!;
}

/** An axis counted from the front. */
export function frontAxis(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}

/** tfjs's `axis` of a reduction: a number, a list, or nothing for all. */
export function axesOf(axis: number | readonly number[] | null | undefined, rank: number): number[] {
  const axes =
    axis === null || axis === undefined ? Array.from({ length: rank }, (_, i) => i) : [axis].flat();
  return axes.map((each) => frontAxis(each as number, rank));
}

/** Element type by tfjs's name. */
export function elementType(dtype: string): ElementType {
  if (dtype === 'float32') return 'f32';
  if (dtype === 'int32') return 'i32';
  if (dtype === 'bool') return 'bool';
  throw new TypeError(
    `expected a float32, int32 or bool tensor, received ${dtype}: compiled code has no such type`,
  );
}
