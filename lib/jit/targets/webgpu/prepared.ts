// lib/jit/targets/webgpu/prepared.ts: dispatches and loops as a program sends them: pipelines and bind groups instead of
// kernels and places; and what a program needs of its target to do so.

import type { Gpu } from './device.js';
import type { BufferUse, Dispatch, LoopItem } from './dispatch.js';
import type { GpuMemory, GpuTensor } from './memory.js';
import type { Pipelines } from './pipelines.js';
import type { GpuWeight, WeightStore } from './weights.js';

/** How a loop is sent: rounds in a submission, and submissions that may be on their way. */
export interface LoopTuning {
  readonly roundsPerSubmission: number;
  readonly submissionsAhead: number;
}

/** A large submission starves the GPU while it is written; with too few it waits for the host (measured on an H200). */
export const defaultTuning: LoopTuning = { roundsPerSubmission: 4, submissionsAhead: 3 };

/** What a program needs of its target. */
export interface Host {
  readonly gpu: Gpu;
  readonly memory: GpuMemory;
  readonly pipelines: Pipelines;
  readonly weights: WeightStore;
  readonly tuning: LoopTuning;
  /** Notes when a submission's pass begins and ends; null where the adapter has no timestamps. */
  readonly clock: { readonly queries: GPUQuerySet; readonly resolved: GPUBuffer } | null;
}

/** The buffers of one run. */
export interface RunBuffers {
  readonly inputs: readonly GpuTensor[];
  readonly weights: readonly GpuWeight[];
  readonly outputs: readonly GpuTensor[];
}

export interface Resource {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** What a run knows of its program's memory. */
export interface RunMemory {
  readonly control: GPUBuffer;
  readonly resource: (use: BufferUse) => Resource;
  /** Gives a dispatch the bind group of this run. */
  readonly bind: (prepared: Prepared) => void;
}

/** Memory that comes with a call. */
export type GivenUse = Extract<BufferUse, { kind: 'place' }> & {
  readonly place: { readonly space: 'input' | 'output'; readonly index: number };
};

/** A dispatch as it is sent, with the bind group of the newest run. */
export interface Prepared {
  readonly dispatch: Omit<Dispatch, 'kernel'>;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly parameters: GPUBuffer | null;
  /** What of its memory comes with each call, and what that was in the newest run. */
  readonly given: readonly GivenUse[];
  bound: readonly GPUBuffer[];
  group: GPUBindGroup | undefined;
}

export type LoopFacts = Pick<LoopItem, 'step' | 'number' | 'index'>;

export interface PreparedLoop {
  readonly item: LoopFacts;
  readonly begin: readonly Prepared[];
  readonly body: readonly PreparedItem[];
  readonly end: readonly Prepared[];
}
export type PreparedItem = Prepared | PreparedLoop;

export const isLoop = (item: PreparedItem): item is PreparedLoop => 'item' in item;

/** Writes a dispatch, whose bind group has been made. */
export function encode(pass: GPUComputePassEncoder, { pipeline, group, dispatch }: Prepared): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group!);
  pass.dispatchWorkgroups(...(dispatch.workgroups as [number, number, number]));
}
