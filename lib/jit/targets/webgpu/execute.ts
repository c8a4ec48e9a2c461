// lib/jit/targets/webgpu/execute.ts: one run of a program: dispatches are written and sent; loops some rounds at a time,
// several submissions ahead, their outputs read back while they go on. Nothing waits but for results.

import type { ElementValues } from '../../graph.js';
import type { Plan } from '../../steps.js';
import type { LoopReport, RunOptions, RunReport } from '../../target.js';
import type { Gpu } from './device.js';
import { type BufferUse, bindingAlignment, type Dispatch, type LoopItem } from './dispatch.js';
import { type GpuMemory, type GpuTensor, paddedBytes, valuesOf } from './memory.js';
import type { Pipelines } from './pipelines.js';
import { StepTimer } from './timer.js';
import type { GpuWeight, WeightStore } from './weights.js';

/** How a loop is sent: rounds in a submission, and submissions that may be on their way. */
export interface LoopTuning {
  readonly roundsPerSubmission: number;
  readonly submissionsAhead: number;
}

/** A large submission starves the GPU while it is written; with too few it waits for the host (measured on an H200). */
export const defaultTuning: LoopTuning = { roundsPerSubmission: 4, submissionsAhead: 3 };

/**
 * Dispatches outside of loops are sent after these: few at first, so that the GPU begins while the rest is written, then
 * so many that sending costs little beside them.
 */
const firstSubmission = 8;
const laterSubmissions = 64;

/**
 * So many bytes of a run's results, the smallest ones, are fetched with it: they can be read without waiting. Of what is
 * handed on to the next call (a cache) only what costs nothing.
 */
const fetchedBytes = 2e6;
const fetchedStateBytes = 4096;

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

type LoopFacts = Pick<LoopItem, 'step' | 'number' | 'index'>;

export interface PreparedLoop {
  readonly item: LoopFacts;
  readonly begin: readonly Prepared[];
  readonly body: readonly PreparedItem[];
  readonly end: readonly Prepared[];
}
export type PreparedItem = Prepared | PreparedLoop;

export const isLoop = (item: PreparedItem): item is PreparedLoop => 'item' in item;

/** Rounds that were sent and are not known to be done. */
interface Sent {
  readonly first: number;
  readonly rounds: number;
  readonly arrived: Promise<ArrayBuffer>;
}

/** What a run knows of its program's memory. */
interface RunMemory {
  readonly control: GPUBuffer;
  readonly resource: (use: BufferUse) => Resource;
  /** Gives a dispatch the bind group of this run. */
  readonly bind: (prepared: Prepared) => void;
}

/** One run: what was written and not yet sent, and what came back. */
export class ProgramRun {
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #written = 0; // dispatches outside of loops that were not sent yet
  #enough = firstSubmission;
  #loop: LoopReport | undefined;
  readonly #timer: StepTimer | undefined;
  #mayReport: boolean;

  constructor(
    readonly host: Host,
    readonly buffers: RunBuffers,
    readonly options: RunOptions,
    steps: number,
    readonly memory: RunMemory,
  ) {
    this.#timer = options.profile ? new StepTimer(host.gpu, steps) : undefined;
    this.#mayReport = options.onRound !== undefined;
  }

  async items(items: readonly PreparedItem[], plan: Plan): Promise<void> {
    for (const item of items) {
      if (isLoop(item)) await this.#runLoop(item, plan);
      else if (this.#timer) await this.#dispatch(item);
      else this.#write(item);
    }
  }

  /** Writes a dispatch, and sends what was written when it is enough. */
  #write(prepared: Prepared): void {
    this.#encode(prepared);
    this.#written += 1;
    if (this.#written >= this.#enough) {
      this.#submit();
      this.#enough = laterSubmissions;
    }
  }

  /** A pass whose begin and end are noted, to know when the GPU idles between submissions. */
  #openTimedPass(): void {
    this.#endPass();
    const { clock } = this.host;
    if (!clock || this.#timer) return;
    const timestampWrites = {
      querySet: clock.queries,
      beginningOfPassWriteIndex: 0,
      endOfPassWriteIndex: 1,
    };
    this.#pass = this.#encoding.beginComputePass({ timestampWrites });
  }

  get #encoding(): GPUCommandEncoder {
    this.#encoder ??= this.host.gpu.device.createCommandEncoder();
    return this.#encoder;
  }

  async #dispatch(prepared: Prepared): Promise<void> {
    if (!this.#timer) {
      this.#encode(prepared);
      return;
    }
    this.memory.bind(prepared);
    this.#endPass();
    await this.#timer.measure(this.#encoding, prepared.dispatch.step, (pass) => encode(pass, prepared));
    if (this.#timer.isFull) await this.#flushTimer();
  }

  #encode(prepared: Prepared): void {
    this.memory.bind(prepared);
    encode(this.#openPass(), prepared);
  }

  #openPass(): GPUComputePassEncoder {
    this.#pass ??= this.#encoding.beginComputePass();
    return this.#pass;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  async #flushTimer(): Promise<void> {
    const encoder = this.#encoding;
    this.#timer!.resolve(encoder);
    this.#submit();
    await this.#timer!.collect();
  }

  #submit(): void {
    this.#endPass();
    if (!this.#encoder) return;
    this.host.gpu.device.queue.submit([this.#encoder.finish()]);
    this.#encoder = undefined;
    this.#written = 0;
  }

  /** A loop inside another: all of its rounds are written; those after its end do nothing. */
  async #unroll({ item, begin, body, end }: PreparedLoop): Promise<void> {
    for (const prepared of begin) await this.#dispatch(prepared);
    for (let round = 0; round < item.step.node.attrs.length; round++) await this.#round(body);
    for (const prepared of end) await this.#dispatch(prepared);
  }

  async #round(body: readonly PreparedItem[]): Promise<void> {
    for (const each of body) {
      if (isLoop(each)) await this.#unroll(each);
      else if (this.#timer) await this.#dispatch(each);
      else this.#encode(each);
    }
  }

  async #runLoop(loop: PreparedLoop, plan: Plan): Promise<void> {
    const { item, begin, body, end } = loop;
    const { length } = item.step.node.attrs;
    for (const prepared of begin) await this.#dispatch(prepared);
    const reports = this.#mayReport && item.step === plan.steps.find(({ kind }) => kind === 'scan');
    this.#mayReport &&= !reports;
    const sent: Sent[] = [];
    const watch: LoopWatch = { reports, next: 0, ended: false, busyNs: 0, beginNs: Number.NaN, endNs: 0 };
    let [hostMs, submissions, round] = [0, 0, 0];
    try {
      // The first submissions are small, so that the first round's outputs come soon.
      for (let size = 1; round < length && !watch.ended; size = Math.min(2 * size, this.#rounds(length))) {
        const rounds = Math.min(size, length - round);
        const started = performance.now();
        this.#openTimedPass();
        for (let i = 0; i < rounds; i++) await this.#round(body);
        sent.push(this.#send(item, round, rounds, reports));
        hostMs += performance.now() - started;
        submissions += 1;
        round += rounds;
        while (sent.length >= this.host.tuning.submissionsAhead)
          await this.#receive(sent.shift()!, item, watch);
        if (!watch.ended) this.options.signal?.throwIfAborted();
      }
    } finally {
      for (const each of sent) await this.#receive(each, item, watch);
    }
    // Who has heard the last round may abort at once: the loop is done all the same.
    if (!watch.ended && watch.next < length) this.options.signal?.throwIfAborted();
    for (const prepared of end) await this.#dispatch(prepared);
    this.#loop ??= {
      rounds: watch.next,
      submissions,
      roundsPerSubmission: round / Math.max(1, submissions),
      hostMicrosecondsPerRound: (1000 * hostMs) / Math.max(1, round),
      gpuIdleShare: watch.busyNs > 0 ? 1 - watch.busyNs / (watch.endNs - watch.beginNs) : null,
    };
  }

  #rounds(length: number): number {
    return Math.max(1, Math.min(length, this.host.tuning.roundsPerSubmission));
  }

  /** Sends what was written, with a copy of the control words and of the rounds' outputs. */
  #send({ number, step }: LoopFacts, first: number, rounds: number, reports: boolean): Sent {
    this.#endPass();
    const encoder = this.#encoding;
    const outputs = reports ? step.outputs : [];
    const bytes = outputs.reduce((sum, output) => sum + output.bytes * rounds, headerBytes);
    const staging = this.host.memory.takeStaging(bytes);
    encoder.copyBufferToBuffer(this.memory.control, bindingAlignment * number, staging, 0, 16);
    const { clock } = this.host;
    if (clock && !this.#timer) {
      encoder.resolveQuerySet(clock.queries, 0, 2, clock.resolved, 0);
      encoder.copyBufferToBuffer(clock.resolved, 0, staging, 16, 16);
    }
    let at = headerBytes;
    for (const { to, bytes: each } of outputs) {
      if (to.space === 'weight') continue;
      const { buffer, offset } = this.memory.resource({ kind: 'place', place: to, bytes: each });
      if (each > 0) encoder.copyBufferToBuffer(buffer, offset + first * each, staging, at, each * rounds);
      at += each * rounds;
    }
    this.#submit();
    const arrived = this.host.memory.fetch(staging, bytes);
    arrived.catch(() => {}); // whoever awaits it is told; another may have failed before
    return { first, rounds, arrived };
  }

  async #receive({ first, rounds, arrived }: Sent, { step }: LoopFacts, watch: LoopWatch): Promise<void> {
    const bytes = await arrived;
    const [count, ended] = new Uint32Array(bytes, 0, 2) as unknown as [number, number]; // two elements
    if (ended !== 0) watch.ended = true;
    if (this.host.clock && !this.#timer) noteTimes(watch, bytes);
    const complete = Math.min(count, first + rounds);
    const types = step.node.outputs.slice(step.node.attrs.carry, -1);
    for (; watch.next < complete; watch.next++) {
      if (!watch.reports) continue;
      let at = headerBytes;
      const values = step.outputs.map(({ bytes: each }, i): ElementValues => {
        const begin = at + (watch.next - first) * each;
        at += each * rounds;
        return valuesOf(bytes.slice(begin, begin + each), types[i]!.dtype);
      });
      this.options.onRound?.(watch.next, values);
    }
  }

  /** Sends the rest and fetches small results. */
  async finish(plan: Plan): Promise<Pick<RunReport, 'loop' | 'stepMs'>> {
    const { memory } = this.host;
    this.#endPass();
    if (this.#timer) await this.#flushTimer();
    const isRead = (_: GpuTensor, i: number): boolean =>
      !plan.outputs[i]!.isState || plan.outputs[i]!.bytes <= fetchedStateBytes;
    const small = smallest(this.buffers.outputs.filter(isRead));
    const sizes = small.map(({ bytes }) => paddedBytes(bytes));
    const all = sizes.reduce((sum, size) => sum + size, 0);
    const staging = memory.takeStaging(Math.max(16, all));
    const encoder = this.#encoding;
    encoder.copyBufferToBuffer(this.memory.control, 0, staging, 0, 16); // at least something, to know when all is done
    let at = 0;
    for (const [i, { buffer }] of small.entries()) {
      encoder.copyBufferToBuffer(buffer, 0, staging, at, sizes[i]!);
      at += sizes[i]!;
    }
    this.#submit();
    const bytes = await memory.fetch(staging, Math.max(16, all));
    at = 0;
    for (const [i, tensor] of small.entries()) {
      tensor.values = bytes.slice(at, at + tensor.bytes);
      at += sizes[i]!;
    }
    const stepMs = this.#timer?.stepMs;
    this.#timer?.dispose();
    return { ...(this.#loop && { loop: this.#loop }), ...(stepMs && { stepMs }) };
  }
}

/** The smallest results, up to fetchedBytes in all. */
function smallest(outputs: readonly GpuTensor[]): GpuTensor[] {
  let left = fetchedBytes;
  const ordered = [...new Set(outputs)].sort((a, b) => a.bytes - b.bytes);
  return ordered.filter(({ bytes }) => {
    left -= paddedBytes(bytes);
    return left >= 0;
  });
}

interface LoopWatch {
  readonly reports: boolean;
  /** Rounds that are known to be done. */
  next: number;
  ended: boolean;
  /** By the GPU's clock: how long passes ran, and from when to when. */
  busyNs: number;
  beginNs: number;
  endNs: number;
}

/** What comes back of a submission before its outputs: four control words, two times. */
const headerBytes = 32;

function noteTimes(watch: LoopWatch, bytes: ArrayBuffer): void {
  const [begin, end] = Array.from(new BigUint64Array(bytes, 16, 2), Number) as [number, number];
  if (Number.isNaN(watch.beginNs)) watch.beginNs = begin;
  watch.busyNs += Math.max(0, end - begin);
  watch.endNs = Math.max(watch.endNs, end);
}

function encode(pass: GPUComputePassEncoder, { pipeline, group, dispatch }: Prepared): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group!);
  pass.dispatchWorkgroups(...(dispatch.workgroups as [number, number, number]));
}
