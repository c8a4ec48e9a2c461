// lib/jit/targets/webgpu/program.ts: a lowered plan with its memory on a device: buffers, pipelines and bind groups, made
// once; a bind group anew where a call brings another buffer. execute.ts runs it.

import type { Plan } from '../../steps.js';
import type { BoundWeight, Executable, RunOptions, RunReport, TargetBuffer } from '../../target.js';
import { type BufferUse, bindingAlignment, type Dispatch, type Item } from './dispatch.js';
import {
  type Host,
  isLoop,
  type Prepared,
  type PreparedItem,
  ProgramRun,
  type Resource,
  type RunBuffers,
} from './execute.js';
import type { Lowering } from './lower.js';
import { paddedBytes } from './memory.js';

export class GpuProgram implements Executable {
  readonly codeBytes: number;
  readonly #items: readonly PreparedItem[];
  readonly #arena: GPUBuffer;
  readonly #constants: readonly GPUBuffer[];
  readonly #scratch: GPUBuffer;
  readonly #lasting: GPUBuffer;
  readonly #control: GPUBuffer;
  readonly #texts: ReadonlySet<string>;
  readonly #steps: number;

  /** The kernels have to be compiled. */
  constructor(
    readonly host: Host,
    readonly plan: Plan,
    lowering: Lowering,
  ) {
    const { memory } = host;
    this.#steps = lowering.steps;
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

  /** Without the kernels' descriptions: in a large model they take ten times the memory of all else. */
  #prepareItem(item: Item, texts: Set<string>, parameters: GPUBuffer[]): PreparedItem {
    const prepare = (whole: Dispatch): Prepared => {
      const { kernel, ...dispatch } = whole;
      const { pipeline, layout, text } = this.host.pipelines.get(kernel);
      texts.add(text);
      const uniform = kernel.parameters.length > 0 ? this.#uniform(whole) : null;
      if (uniform) parameters.push(uniform);
      return { dispatch, pipeline, layout, parameters: uniform, resources: [], group: undefined };
    };
    if (item.kind === 'dispatch') return prepare(item.dispatch);
    const { step, number, index } = item;
    return {
      item: { step, number, index },
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
    const run = new ProgramRun(this.host, buffers, options, this.#steps, {
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
