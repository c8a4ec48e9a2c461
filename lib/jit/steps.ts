// lib/jit/steps.ts: what a plan is made of: steps, and where each of their operands lies. plan.ts makes one, targets
// run it.

import { sizeOf } from '../tensor.js';
import type { ElementType, ElementValues, Graph, KernelNode, StructuredNode, WeightSlot } from './graph.js';

/** Where a value lies. Arena offsets are bytes, multiples of 64 or of what the target asks for. `weight` is that WeightSlot decoded to f32. */
export type Place =
  | { readonly space: 'input' | 'output' | 'constant' | 'weight'; readonly index: number }
  | { readonly space: 'arena'; readonly offset: number };

/** One kernel: read `inputs`, write `outputs`, in the order of the Node's. */
export interface KernelStep {
  readonly kind: 'kernel';
  readonly node: Exclude<KernelNode, StructuredNode<'Scan' | 'WeightTensor'>>;
  readonly inputs: readonly Place[];
  readonly outputs: readonly Place[];
  /** Steps with the same number follow each other and may run as one: what they read lives until the last has run. */
  readonly group?: number;
}

/** Moves bytes; the two never overlap. */
export interface CopyStep {
  readonly kind: 'copy';
  readonly from: Place;
  readonly to: Place;
  readonly bytes: number;
}

/**
 * A loop. Each of at most `node.attrs.length` rounds: run `steps`; copy each of `outputs` to
 * `to` + round * bytes; read `until` (a bool scalar); run `carries` in order; end if `until` was 1. Afterwards write the
 * number of rounds to `taken` (i32) and zero what the stacked outputs have left. First carries are in place when it
 * starts: copies before it saw to that.
 */
export interface ScanStep {
  readonly kind: 'scan';
  readonly node: StructuredNode<'Scan'>;
  readonly steps: readonly Step[];
  readonly outputs: readonly { readonly from: Place; readonly to: Place; readonly bytes: number }[];
  readonly carries: readonly CopyStep[];
  readonly until: Place | null;
  readonly taken: Place;
}

export type Step = KernelStep | CopyStep | ScanStep;

/** A result of the program. `alias`: it took over the memory of that donated input, so no buffer is needed for it. */
export interface PlannedOutput {
  readonly dtype: ElementType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly alias: number | null;
  /** True for what an operation updated in place (a cache): it is handed on to the next call rather than read. */
  readonly isState: boolean;
}

export interface Plan {
  readonly graph: Graph;
  readonly steps: readonly Step[];
  readonly constants: readonly ElementValues[];
  readonly weights: readonly WeightSlot[];
  readonly inputBytes: readonly number[];
  readonly outputs: readonly PlannedOutput[];
  readonly arenaBytes: number;
}

/** Bytes of one element, whatever its type. */
export const elementBytes = 4;

/** Bytes that a value takes. */
export function valueBytes(value: { readonly shape: readonly number[] }): number {
  return sizeOf(value.shape) * elementBytes;
}
