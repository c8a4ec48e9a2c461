// lib/jit/targets/webgpu/pipelines.ts: kernels -> compiled pipelines, each text once a device.

import type { Kernel } from '../../kernels/kernel.js';
import type { Gpu } from './device.js';
import { printWgsl } from './wgsl.js';

/** A kernel as the device runs it. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly text: string;
}

export class Pipelines {
  readonly #byText = new Map<string, Pipeline>();
  readonly #byKernel = new WeakMap<Kernel, Pipeline>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();

  constructor(readonly gpu: Gpu) {}

  /** The pipeline of a kernel, if it is made. */
  get(kernel: Kernel): Pipeline {
    const known = this.#byKernel.get(kernel);
    if (known) return known;
    const text = printWgsl(kernel, this.gpu.wgsl);
    const made = this.#byText.get(text) ?? this.#remember(text, kernel);
    this.#byKernel.set(kernel, made);
    return made;
  }

  #remember(text: string, kernel: Kernel): Pipeline {
    const { layout, descriptor } = this.#describe(text, kernel);
    const pipeline = this.gpu.device.createComputePipeline(descriptor);
    const made = { pipeline, layout, text };
    this.#byText.set(text, made);
    return made;
  }

  /**
   * Compiles kernels side by side.
   * @throws Error that names the kernel and what the compiler says, with its text
   */
  async compile(kernels: Iterable<Kernel>): Promise<void> {
    const pending = new Map<string, Promise<Pipeline>>();
    for (const kernel of kernels) {
      if (this.#byKernel.has(kernel)) continue;
      const text = printWgsl(kernel, this.gpu.wgsl);
      const making = this.#byText.get(text) ?? pending.get(text) ?? this.#compile(text, kernel);
      const remember = (made: Pipeline): Pipeline => {
        this.#byKernel.set(kernel, made);
        return made;
      };
      pending.set(text, Promise.resolve(making).then(remember));
    }
    await Promise.all(pending.values());
  }

  async #compile(text: string, kernel: Kernel): Promise<Pipeline> {
    const { device, name } = this.gpu;
    device.pushErrorScope('validation'); // what is wrong is thrown below, and not told of again later
    const { module, layout, descriptor } = this.#describe(text, kernel);
    void device.popErrorScope();
    try {
      const made = { pipeline: await device.createComputePipelineAsync(descriptor), layout, text };
      this.#byText.set(text, made);
      return made;
    } catch (error) {
      const { messages } = await module.getCompilationInfo();
      const said = messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`).join('; ');
      throw new Error(
        `target webgpu: ${name} does not compile the kernel ${kernel.name}: ${said || String(error)}\n${text}`,
        { cause: error },
      );
    }
  }

  #describe(
    text: string,
    kernel: Kernel,
  ): { module: GPUShaderModule; layout: GPUBindGroupLayout; descriptor: GPUComputePipelineDescriptor } {
    const { device } = this.gpu;
    const layout = this.#layout(kernel);
    const module = device.createShaderModule({ label: kernel.name, code: text });
    const descriptor = {
      label: kernel.name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: 'main' },
    };
    return { module, layout, descriptor };
  }

  /** One layout for all kernels with the same kinds of buffers. */
  #layout({ buffers, parameters }: Kernel): GPUBindGroupLayout {
    const types = buffers.map(({ access }): GPUBufferBindingType => {
      if (access === 'uniform') return 'uniform';
      return access === 'read' ? 'read-only-storage' : 'storage';
    });
    if (parameters.length > 0) types.push('uniform');
    const key = types.join(',');
    const known = this.#layouts.get(key);
    if (known) return known;
    const entries = types.map((type, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type },
    }));
    const made = this.gpu.device.createBindGroupLayout({ entries });
    this.#layouts.set(key, made);
    return made;
  }
}
