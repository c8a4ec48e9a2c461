// lib/jit/targets/webgpu/dispatch.ts: what a plan becomes: kernels with the buffers that they are bound to and how many
// workgroups run, in order, with loops. Data only: program.ts runs it.

import type { Kernel } from '../../kernels/kernel.js';
import type { Place, ScanStep } from '../../steps.js';
import type { WeightForm } from './layout.js';

/**
 * Which of two buffers lasting memory is in. What a kernel reads is best kept out of the buffer that it writes to: only
 * then can it be bound as read-only, and is read through the fast cache (gate and up of Mistral-7B, H200: 31 us for 34).
 */
export type Bank = 0 | 1;

/** Memory that a kernel reads or writes. */
export type BufferUse =
  /** A value of the plan. `bytes`: of the value. */
  | { readonly kind: 'place'; readonly place: Exclude<Place, { space: 'weight' }>; readonly bytes: number }
  /** All of the plan's arena or constants; offsets in the kernel are the plan's. */
  | { readonly kind: 'arena' }
  /** A part of a Weight's form: its words, or its scales. */
  | {
      readonly kind: 'weight';
      readonly weight: number;
      readonly form: WeightForm;
      readonly part: number;
      readonly of: 'words' | 'scales';
    }
  /** Memory of the program for one step: bytes from `offset` on, a multiple of 256. */
  | { readonly kind: 'scratch'; readonly offset: number; readonly bytes: number }
  /** The same for several steps. */
  | { readonly kind: 'lasting'; readonly bank: Bank; readonly offset: number; readonly bytes: number }
  /** Three words of a loop: rounds that ended, whether it ended, whether it ends after this round. */
  | { readonly kind: 'control'; readonly loop: number };

/** One kernel run. */
export interface Dispatch {
  readonly kernel: Kernel;
  /** One a buffer of the kernel, in its order; no two may overlap where one is written. */
  readonly buffers: readonly BufferUse[];
  /** How many in x, y and z. */
  readonly workgroups: readonly [x: number, y: number, z: number];
  /** Values of the kernel's parameters, in their order. */
  readonly parameters?: readonly number[];
  /** Number of the step that it belongs to, as RunReport.stepMs counts. */
  readonly step: number;
}

/** A loop: `begin` once, `body` each round, `end` once. */
export interface LoopItem {
  readonly kind: 'loop';
  readonly step: ScanStep;
  readonly number: number; // its control words
  readonly index: number; // its step's number
  readonly begin: readonly Dispatch[];
  readonly body: readonly Item[];
  readonly end: readonly Dispatch[];
}

export type Item = { readonly kind: 'dispatch'; readonly dispatch: Dispatch } | LoopItem;

/** A plan as dispatches. */
export interface LoweredPlan {
  readonly items: readonly Item[];
  readonly scratchBytes: number;
  /** Of each bank. */
  readonly lastingBytes: readonly [number, number];
  readonly loops: number;
  readonly steps: number;
}

/** Words of a loop's control memory. */
export const controlWords = { rounds: 0, ended: 1, ends: 2 } as const;
/** Bytes from one loop's control memory to the next one's: the alignment of bindings. */
export const bindingAlignment = 256;

/** WebGPU's most workgroups in one dimension. */
const maxWorkgroups = 65535;
/** In x where there are more in all. */
export const foldedWorkgroups = 32768;

/** A number of workgroups as x and y; a kernel counts them by workgroupIndex. */
export function foldWorkgroups(count: number): [x: number, y: number, z: number] {
  return count <= maxWorkgroups ? [count, 1, 1] : [foldedWorkgroups, Math.ceil(count / foldedWorkgroups), 1];
}

/** What may be one buffer has one name: of what comes with a call the inputs and outputs may be the same. */
export function memoryOf(use: BufferUse): string {
  switch (use.kind) {
    case 'lasting':
      return `lasting ${use.bank}`;
    case 'scratch':
    case 'arena':
      return use.kind;
    case 'place':
      if (use.place.space === 'arena') return 'arena';
      return use.place.space === 'constant' ? useKey(use) : 'given';
    default:
      return useKey(use);
  }
}

/** The same memory has the same key. */
export function useKey(use: BufferUse): string {
  switch (use.kind) {
    case 'place':
      return use.place.space === 'arena'
        ? `arena ${use.place.offset}`
        : `${use.place.space} ${use.place.index}`;
    case 'arena':
      return 'arena';
    case 'weight':
      return `weight ${use.weight} ${use.form} ${use.part} ${use.of}`;
    case 'scratch':
    case 'lasting':
      return `${memoryOf(use)} ${use.offset}`;
    case 'control':
      return `control ${use.loop}`;
  }
}
