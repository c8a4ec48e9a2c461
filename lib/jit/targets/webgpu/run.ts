// lib/jit/targets/webgpu/run.ts: the target `webgpu`: plans as WGSL kernels on a GPU, through Dawn in Node and
// navigator.gpu in a browser.

import type { Weight } from '../../../tensor.js';
import { bytesText } from '../../debug.js';
import { type ElementType, type ElementValues, formatOf } from '../../graph.js';
import type { Plan } from '../../steps.js';
import type {
  BoundWeight,
  Executable,
  Mode,
  Target,
  TargetBuffer,
  TargetCompileOptions,
  WeightUse,
} from '../../target.js';
import { measureReadGBps } from './bandwidth.js';
import type { ContextOptions, KernelChoice } from './context.js';
import { type Gpu, type GpuOptions, openGpu } from './device.js';
import { bindingAlignment } from './dispatch.js';
import { Guard } from './guard.js';
import { boundForm, formBytes } from './layout.js';
import { kernelsOf, type Lowering, lowerPlan } from './lower.js';
import { matrixLoads } from './matrices.js';
import { GpuMemory, type GpuTensor, valuesOf } from './memory.js';
import { Pipelines } from './pipelines.js';
import { defaultTuning, type Host, type LoopTuning } from './prepared.js';
import { GpuProgram } from './program.js';
import { TunedShapes } from './tuned.js';
import { type GpuWeight, WeightStore } from './weights.js';
import { printWgsl } from './wgsl.js';

export interface WebgpuOptions extends GpuOptions {
  readonly tuning?: LoopTuning;
  /** The most that a kernel is given of one buffer; default what the adapter allows. Less is for tests. */
  readonly bindingBytes?: number;
  /**
   * Which kernels programs are made of; default what the environment says in RESPONSE_TIME_WEBGPU_KERNELS, else all on a
   * GPU, and on an emulated one the plain ones, as far as the mode `exact` goes: there compiling takes most of the time.
   */
  readonly kernels?: KernelChoice | undefined;
  /** As ContextOptions. */
  readonly matrixWeights?: number | undefined;
  /** Compares each kind of kernel with the reference on its first use on an adapter; default true. */
  readonly guard?: boolean;
}

/** Kernels for a program. */
function kernelChoice(
  { isSoftware }: Gpu,
  mode: Mode | undefined,
  asked: KernelChoice | undefined,
): KernelChoice {
  const named =
    asked ?? (typeof process === 'undefined' ? undefined : process.env?.RESPONSE_TIME_WEBGPU_KERNELS);
  if (named === 'all' || named === 'plain') return named;
  if (named) throw new RangeError(`RESPONSE_TIME_WEBGPU_KERNELS: expected all or plain, received ${named}`);
  return isSoftware && mode !== 'fast' ? 'plain' : 'all';
}

/** What was read of a tensor is kept up to this size, as long as nothing writes to it. */
const keptBytes = 32e6;

class WebgpuTarget implements Target {
  readonly name = 'webgpu';
  readonly groups = true;
  readonly planOptions = { alignmentBytes: bindingAlignment, zeroedOutputs: true };
  readonly #host: Host;
  readonly #kernels: KernelChoice | undefined;
  readonly #matrixWeights: number | undefined;
  readonly #tuned: TunedShapes;
  readonly #guard: Guard | undefined;

  constructor(gpu: Gpu, options: WebgpuOptions) {
    this.#kernels = options.kernels;
    this.#matrixWeights = options.matrixWeights;
    this.#host = hostOf(gpu, options);
    this.#tuned = new TunedShapes(gpu);
    this.#guard = options.guard === false ? undefined : this.#newGuard();
  }

  get device(): string {
    return this.#host.gpu.name;
  }

  get #memory(): GpuMemory {
    return this.#host.memory;
  }

  get #bindingBytes(): number {
    return this.#host.weights.bindingBytes;
  }

  async compile(plan: Plan, { mode = 'exact' }: TargetCompileOptions = {}): Promise<Executable> {
    const { name } = this.#host.gpu;
    await this.#guard?.check(plan, { adapter: name, mode, isKept: true });
    return this.#compile(plan, mode);
  }

  #lower(plan: Plan, mode: Mode, options: Pick<ContextOptions, 'shapes' | 'takesHalves'>): Lowering {
    const { gpu } = this.#host;
    const kernels = kernelChoice(gpu, mode, this.#kernels);
    return lowerPlan(plan, {
      features: gpu.features,
      bindingBytes: this.#bindingBytes,
      mode,
      kernels,
      matrixWeights: this.#matrixWeights,
      ...options,
    });
  }

  /** The plan as dispatches, its kernels cut as is best on this adapter. */
  async #lowerTuned(plan: Plan, mode: Mode, takesHalves?: boolean): Promise<Lowering> {
    const lower = async () => this.#lower(plan, mode, { shapes: await this.#tuned.known(), takesHalves });
    const lowering = await lower();
    const learned = await this.#tuned.learn(lowering.problems.values());
    return learned ? lower() : lowering;
  }

  async #compile(plan: Plan, mode: Mode, takesHalves?: boolean): Promise<Executable> {
    const lowering = await this.#lowerTuned(plan, mode, takesHalves);
    await this.#host.pipelines.compile(kernelsOf(lowering.items));
    const program = new GpuProgram(this.#host, plan, lowering);
    await this.#memory.settled();
    return program;
  }

  #newGuard(): Guard {
    return new Guard({
      planOptions: this.planOptions,
      compile: (plan, mode, takesHalves) => this.#compile(plan, mode, takesHalves),
      kernelsOf: (plan, mode, takesHalves) => {
        const kernels = [...kernelsOf(this.#lower(plan, mode, { takesHalves }).items)];
        return {
          text: kernels.map((kernel) => printWgsl(kernel, this.#host.gpu.wgsl)).join(''),
          matrices: kernels.some(({ body }) => matrixLoads(body).size > 0),
        };
      },
      bind: (weight, use) => this.bind(weight, use),
      unbind: (weight) => this.unbind(weight),
      allocate: (bytes) => this.allocate(bytes),
      release: (buffer) => this.release(buffer),
      write: (buffer, values) => this.write(buffer, values),
      read: (buffer, dtype) => this.readLater(buffer, dtype),
    });
  }

  checkFit(weights: readonly { readonly weight: Weight; readonly use: WeightUse }[]): void {
    const { limits } = this.#host.gpu.device;
    for (const { weight, use } of weights) {
      const format = formatOf(weight);
      const form = boundForm(format, use.outputAxis);
      const bytes = formBytes(format, form, this.#bindingBytes);
      if (form === 'whole' && bytes > limits.maxStorageBufferBindingSize)
        throw new RangeError(
          `${use.path}: takes ${bytesText(bytes)} as float32, but a kernel on ${this.#host.gpu.name} can be given ` +
            `${bytesText(limits.maxStorageBufferBindingSize)} of a buffer; only matrices are split`,
        );
    }
  }

  bind(weight: Weight, use: WeightUse): BoundWeight {
    this.checkFit([{ weight, use }]);
    return this.#host.weights.bind(weight, use);
  }

  unbind(weight: BoundWeight): void {
    const bound = weight as GpuWeight;
    if (bound.store === this.#host.weights) this.#host.weights.unbind(bound); // else it went with its device
  }

  allocate(bytes: number): TargetBuffer {
    return this.#memory.tensor(bytes);
  }

  release(buffer: TargetBuffer): void {
    const tensor = buffer as GpuTensor;
    tensor.values = undefined;
    tensor.memory.releaseTensor(tensor);
  }

  write(buffer: TargetBuffer, values: ElementValues): void {
    const tensor = buffer as GpuTensor;
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    this.#memory.writeTensor(tensor, bytes);
    tensor.values = undefined;
  }

  read(buffer: TargetBuffer, dtype: ElementType): ElementValues {
    const { values, bytes } = buffer as GpuTensor;
    if (!values)
      throw new Error(
        `target webgpu: a tensor of ${bytesText(bytes)} lies on the GPU and cannot be read at once: use await data()`,
      );
    return valuesOf(values.slice(0), dtype);
  }

  async readLater(buffer: TargetBuffer, dtype: ElementType): Promise<ElementValues> {
    const tensor = buffer as GpuTensor;
    const bytes = tensor.values ?? (await this.#memory.read(tensor.buffer, tensor.bytes));
    if (bytes.byteLength <= keptBytes) tensor.values = bytes; // so that the next one need not wait
    return valuesOf(bytes.slice(0), dtype);
  }

  async settled(): Promise<void> {
    await this.#host.gpu.device.queue.onSubmittedWorkDone();
    await this.#memory.settled();
  }

  readGBps(): Promise<number> {
    return measureReadGBps(this.#host.gpu, this.#host.pipelines);
  }

  memory(): { weightBytes: number; bufferBytes: number; arenaBytes: number } {
    const { weights, buffers, arena } = this.#memory.used;
    return { weightBytes: weights, bufferBytes: buffers, arenaBytes: arena };
  }

  /** Closes the device, with all that is on it. The next use of the target by name opens it anew. */
  async dispose(): Promise<void> {
    this.#memory.close();
  }
}

function hostOf(gpu: Gpu, { tuning = defaultTuning, bindingBytes }: WebgpuOptions): Host {
  const memory = new GpuMemory(gpu);
  const pipelines = new Pipelines(gpu);
  const most = Math.min(
    gpu.device.limits.maxStorageBufferBindingSize,
    bindingBytes ?? Number.POSITIVE_INFINITY,
  );
  const weights = new WeightStore(memory, pipelines, most);
  return { gpu, memory, pipelines, weights, tuning, clock: clockOf(gpu) };
}

function clockOf({ device, hasTimestamps }: Gpu): Host['clock'] {
  if (!hasTimestamps) return null;
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  return {
    queries: device.createQuerySet({ type: 'timestamp', count: 2 }),
    resolved: device.createBuffer({ size: 256, usage }),
  };
}

/**
 * Opens a GPU as a target.
 * @throws Error if there is none, or only an emulated one that was not asked for (says what to do)
 */
export async function createWebgpuTarget(options: WebgpuOptions = {}): Promise<Target> {
  return new WebgpuTarget(await openGpu(options), options);
}
