// lib/jit/targets/webgpu/program.ts: a lowered plan with its memory on a device. Runs it: everything is sent ahead, loops
// some rounds at a time, and nothing waits but for results.

import type { ElementValues } from '../../graph.js';
import type { Plan } from '../../plan.js';
import type {
  BoundWeight,
  Executable,
  LoopReport,
  RunOptions,
  RunReport,
  TargetBuffer,
} from '../../target.js';
import type { Gpu } from './device.js';
import { type BufferUse, bindingAlignment, type Dispatch, type Item, type LoopItem } from './dispatch.js';
import type { Lowering } from './lower.js';
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

/** Results up to this many bytes are fetched with the run, so that they can be read at once. */
const fetchedBytes = 4e6;

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
interface RunBuffers {
  readonly inputs: readonly GpuTensor[];
  readonly weights: readonly GpuWeight[];
  readonly outputs: readonly GpuTensor[];
}

interface Resource {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** A dispatch as it is sent, with the bind group of the newest run. */
interface Prepared {
  readonly dispatch: Dispatch;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly parameters: GPUBuffer | null;
  resources: readonly Resource[];
  group: GPUBindGroup | undefined;
}

interface PreparedLoop {
  readonly item: LoopItem;
  readonly begin: readonly Prepared[];
  readonly body: readonly PreparedItem[];
  readonly end: readonly Prepared[];
}
type PreparedItem = Prepared | PreparedLoop;

const isLoop = (item: PreparedItem): item is PreparedLoop => 'item' in item;

export class GpuProgram implements Executable {
  readonly codeBytes: number;
  readonly #items: readonly PreparedItem[];
  readonly #arena: GPUBuffer;
  readonly #constants: readonly GPUBuffer[];
  readonly #scratch: GPUBuffer;
  readonly #lasting: GPUBuffer;
  readonly #control: GPUBuffer;
  readonly #texts: ReadonlySet<string>;

  /** The kernels have to be compiled. */
  constructor(
    readonly host: Host,
    readonly plan: Plan,
    readonly lowering: Lowering,
  ) {
    const { memory } = host;
    const texts = new Set<string>();
    const parameters: GPUBuffer[] = [];
    this.#items = lowering.items.map((item) => this.#prepareItem(item, texts, parameters));
    this.#parameters = parameters;
    this.#texts = texts;
    this.codeBytes = [...texts].reduce((sum, text) => sum + text.length, 0);
    this.#arena = memory.allocate(plan.arenaBytes, 'arena', 'arena');
    this.#scratch = memory.allocate(lowering.scratchBytes, 'arena', 'scratch');
    this.#lasting = memory.allocate(lowering.lastingBytes, 'arena', 'lasting');
    this.#control = memory.allocate(bindingAlignment * Math.max(1, lowering.loops), 'arena', 'control');
    this.#constants = [...plan.constants, ...lowering.tables].map((values) => {
      const buffer = memory.allocate(values.byteLength, 'arena', 'constant');
      memory.write(buffer, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      return buffer;
    });
  }

  readonly #parameters: readonly GPUBuffer[];

  #prepareItem(item: Item, texts: Set<string>, parameters: GPUBuffer[]): PreparedItem {
    const prepare = (dispatch: Dispatch): Prepared => {
      const { pipeline, layout, text } = this.host.pipelines.get(dispatch.kernel);
      texts.add(text);
      const uniform = dispatch.kernel.parameters.length > 0 ? this.#uniform(dispatch) : null;
      if (uniform) parameters.push(uniform);
      return { dispatch, pipeline, layout, parameters: uniform, resources: [], group: undefined };
    };
    if (item.kind === 'dispatch') return prepare(item.dispatch);
    return {
      item,
      begin: item.begin.map(prepare),
      body: item.body.map((each) => this.#prepareItem(each, texts, parameters)),
      end: item.end.map(prepare),
    };
  }

  #uniform({ kernel, parameters = [] }: Dispatch): GPUBuffer {
    const words = new DataView(new ArrayBuffer(paddedBytes(4 * kernel.parameters.length)));
    for (const [i, { type }] of kernel.parameters.entries()) {
      if (type === 'f32') words.setFloat32(4 * i, parameters[i]!, true);
      else words.setInt32(4 * i, parameters[i]!, true);
    }
    const { device } = this.host.gpu;
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const buffer = device.createBuffer({ size: words.byteLength, usage });
    device.queue.writeBuffer(buffer, 0, words.buffer);
    return buffer;
  }

  async run(
    inputs: readonly TargetBuffer[],
    weights: readonly BoundWeight[],
    outputs: readonly TargetBuffer[],
    options: RunOptions = {},
  ): Promise<RunReport> {
    options.signal?.throwIfAborted();
    const { memory, gpu } = this.host;
    const started = performance.now();
    const buffers = { inputs, weights, outputs } as RunBuffers;
    for (const tensor of buffers.outputs) tensor.values = undefined;
    this.#bindAll(this.#items, buffers);
    await memory.settled();
    const run = new ProgramRun(this.host, buffers, options, this.lowering.steps, {
      control: this.#control,
      resource: (use) => this.#resource(use, buffers),
    });
    await run.items(this.#items, this.plan);
    const results = await run.finish();
    gpu.check();
    const report = { runMs: performance.now() - started, hostCalls: 0, threads: 1, ...results };
    return report;
  }

  #bindAll(items: readonly PreparedItem[], buffers: RunBuffers): void {
    for (const item of items) {
      if (!isLoop(item)) this.#bind(item, buffers);
      else this.#bindAll([...item.begin, ...item.body, ...item.end], buffers);
    }
  }

  /** Makes the bind group anew where a buffer has changed since the last run. */
  #bind(prepared: Prepared, buffers: RunBuffers): void {
    const resources = prepared.dispatch.buffers.map((use) => this.#resource(use, buffers));
    const isSame = resources.every(({ buffer, offset }, i) => {
      const before = prepared.resources[i];
      return before?.buffer === buffer && before.offset === offset;
    });
    if (prepared.group && isSame) return;
    const entries: GPUBindGroupEntry[] = resources.map((resource, binding) => ({ binding, resource }));
    if (prepared.parameters)
      entries.push({ binding: entries.length, resource: { buffer: prepared.parameters } });
    prepared.resources = resources;
    prepared.group = this.host.gpu.device.createBindGroup({ layout: prepared.layout, entries });
  }

  #resource(use: BufferUse, { inputs, weights, outputs }: RunBuffers): Resource {
    const whole = (buffer: GPUBuffer): Resource => ({ buffer, offset: 0, size: buffer.size });
    switch (use.kind) {
      case 'arena':
        return whole(this.#arena);
      case 'control':
        return { buffer: this.#control, offset: bindingAlignment * use.loop, size: 16 };
      case 'scratch':
        return { buffer: this.#scratch, offset: use.offset, size: paddedBytes(use.bytes) };
      case 'lasting':
        return { buffer: this.#lasting, offset: use.offset, size: paddedBytes(use.bytes) };
      case 'weight': {
        const part = this.host.weights.part(weights[use.weight]!, use.form, use.part);
        return whole(use.of === 'words' ? part.words : part.scales!);
      }
      case 'place': {
        const { place, bytes } = use;
        if (place.space === 'arena')
          return { buffer: this.#arena, offset: place.offset, size: paddedBytes(bytes) };
        if (place.space === 'constant') return whole(this.#constants[place.index]!);
        return whole((place.space === 'input' ? inputs : outputs)[place.index]!.buffer);
      }
    }
  }

  listing(): string {
    return [...this.#texts].join('\n');
  }

  dispose(): void {
    const { memory } = this.host;
    for (const buffer of [this.#arena, this.#scratch, this.#lasting, this.#control, ...this.#constants])
      memory.release(buffer, 'arena');
    for (const buffer of this.#parameters) buffer.destroy();
  }
}

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
}

/** One run: what was written and not yet sent, and what came back. */
class ProgramRun {
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
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
      else await this.#dispatch(item);
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
    if (this.#timer) {
      this.#endPass();
      await this.#timer.measure(this.#encoding, prepared.dispatch.step, (pass) => encode(pass, prepared));
      if (this.#timer.isFull) await this.#flushTimer();
      return;
    }
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
      else encode(this.#openPass(), each);
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
  #send({ number, step }: LoopItem, first: number, rounds: number, reports: boolean): Sent {
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

  async #receive({ first, rounds, arrived }: Sent, { step }: LoopItem, watch: LoopWatch): Promise<void> {
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
  async finish(): Promise<Pick<RunReport, 'loop' | 'stepMs'>> {
    const { memory } = this.host;
    this.#endPass();
    if (this.#timer) await this.#flushTimer();
    const small = [...new Set(this.buffers.outputs)].filter(({ bytes }) => bytes <= fetchedBytes / 16);
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
    return { ...(this.#loop && { loop: this.#loop }), ...(stepMs && { stepMs }) };
  }
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
