// lib/jit/targets/webgpu/program.ts: a lowered plan with its memory on a device: buffers, pipelines and bind groups, made
// once; a bind group anew where a call brings another buffer, just before it is used. execute.ts runs it.

import type { Plan } from '../../steps.js';
import type { BoundWeight, Executable, RunOptions, RunReport, TargetBuffer } from '../../target.js';
import { WrittenAhead } from './ahead.js';
import { type BufferUse, bindingAlignment, type Dispatch, type Item } from './dispatch.js';
import { ProgramRun } from './execute.js';
import type { Lowering } from './lower.js';
import { paddedBytes } from './memory.js';
import type { GivenUse, Host, Prepared, PreparedItem, Resource, RunBuffers } from './prepared.js';
import { isLoop } from './prepared.js';

export class GpuProgram implements Executable {
  readonly codeBytes: number;
  readonly #items: readonly PreparedItem[];
  readonly #ahead: WrittenAhead;
  readonly #arena: GPUBuffer;
  readonly #constants: readonly GPUBuffer[];
  readonly #scratch: GPUBuffer;
  readonly #lasting: readonly GPUBuffer[]; // by bank
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
    const firstLoop = this.#items.findIndex(isLoop);
    const before = firstLoop < 0 ? this.#items : this.#items.slice(0, firstLoop);
    this.#ahead = new WrittenAhead(host, before as readonly Prepared[]);
    this.#parameters = parameters;
    this.#texts = texts;
    this.codeBytes = [...texts].reduce((sum, text) => sum + text.length, 0);
    this.#arena = memory.allocate(plan.arenaBytes, 'arena', 'arena');
    this.#scratch = memory.allocate(lowering.scratchBytes, 'arena', 'scratch');
    this.#lasting = lowering.lastingBytes.map((bytes) => memory.allocate(bytes, 'arena', 'lasting'));
    const controlBytes = bindingAlignment * Math.max(1, lowering.loops);
    this.#control = memory.allocate(controlBytes, 'arena', 'control', true);
    this.#constants = [...plan.constants, ...lowering.tables].map((values) => {
      const buffer = memory.allocate(values.byteLength, 'arena', 'constant');
      memory.write(buffer, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      return buffer;
    });
  }

  readonly #parameters: readonly GPUBuffer[];
  /** Those of the last run. */
  #weights: RunBuffers['weights'] | undefined;

  /** Without the kernels' descriptions: in a large model they take ten times the memory of all else. */
  #prepareItem(item: Item, texts: Set<string>, parameters: GPUBuffer[]): PreparedItem {
    const prepare = (whole: Dispatch): Prepared => {
      const { kernel, ...dispatch } = whole;
      const { pipeline, layout, text } = this.host.pipelines.get(kernel);
      texts.add(text);
      const uniform = kernel.parameters.length > 0 ? this.#uniform(whole) : null;
      if (uniform) parameters.push(uniform);
      const given = dispatch.buffers.filter(isGiven);
      return { dispatch, pipeline, layout, parameters: uniform, given, bound: [], group: undefined };
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
    this.#takeWeights(buffers);
    await memory.settled();
    memory.clearTaken();
    const run = new ProgramRun(this.host, buffers, options, this.#steps, {
      control: this.#control,
      resource: (use) => this.#resource(use, buffers),
      bind: (prepared) => this.#bind(prepared, buffers),
    });
    await run.items(this.#items, this.#ahead, this.plan);
    const results = await run.finish(this.plan);
    gpu.check();
    if (!options.profile) this.#ahead.writeLater();
    const report = { runMs: performance.now() - started, hostCalls: 0, threads: 1, ...results };
    return report;
  }

  /** Binds everything where the Weights are not those of the last run: forms of them may have to be made first. */
  #takeWeights(buffers: RunBuffers): void {
    const { weights } = buffers;
    const known = this.#weights;
    if (known?.length === weights.length && weights.every((weight, i) => weight === known[i])) return;
    const bindAll = (item: PreparedItem): void => {
      if (isLoop(item)) [...item.begin, ...item.body, ...item.end].forEach(bindAll);
      else {
        item.group = undefined;
        this.#bind(item, buffers);
      }
    };
    this.#ahead.clear();
    this.#items.forEach(bindAll);
    this.#weights = weights;
  }

  /** Makes the bind group anew where the call brings another buffer than the last one. */
  #bind(prepared: Prepared, buffers: RunBuffers): void {
    const { given, bound, dispatch, layout, parameters } = prepared;
    const isSame = given.every((use, i) => givenBuffer(use, buffers) === bound[i]);
    if (prepared.group && isSame) return;
    const entries = dispatch.buffers.map((use, binding): GPUBindGroupEntry => {
      return { binding, resource: this.#resource(use, buffers) };
    });
    if (parameters) entries.push({ binding: entries.length, resource: { buffer: parameters } });
    prepared.bound = given.map((use) => givenBuffer(use, buffers));
    prepared.group = this.host.gpu.device.createBindGroup({ layout, entries });
  }

  #resource(use: BufferUse, buffers: RunBuffers): Resource {
    const whole = (buffer: GPUBuffer): Resource => ({ buffer, offset: 0, size: buffer.size });
    switch (use.kind) {
      case 'arena':
        return whole(this.#arena);
      case 'control':
        return { buffer: this.#control, offset: bindingAlignment * use.loop, size: 16 };
      case 'scratch':
        return { buffer: this.#scratch, offset: use.offset, size: paddedBytes(use.bytes) };
      case 'lasting':
        return { buffer: this.#lasting[use.bank]!, offset: use.offset, size: paddedBytes(use.bytes) };
      case 'weight': {
        const part = this.host.weights.part(buffers.weights[use.weight]!, use.form, use.part);
        return whole(use.of === 'words' ? part.words : part.scales!);
      }
      case 'place': {
        if (isGiven(use)) return whole(givenBuffer(use, buffers));
        const { place, bytes } = use;
        if (place.space !== 'arena') return whole(this.#constants[place.index]!);
        return { buffer: this.#arena, offset: place.offset, size: paddedBytes(bytes) };
      }
    }
  }

  listing(): string {
    return [...this.#texts].join('\n');
  }

  dispose(): void {
    const { memory } = this.host;
    this.#ahead.clear();
    for (const buffer of [this.#arena, this.#scratch, ...this.#lasting, this.#control, ...this.#constants])
      memory.release(buffer, 'arena');
    for (const buffer of this.#parameters) buffer.destroy();
  }
}

/** True for memory that comes with a call. */
function isGiven(use: BufferUse): use is GivenUse {
  return use.kind === 'place' && (use.place.space === 'input' || use.place.space === 'output');
}

function givenBuffer({ place }: Pick<GivenUse, 'place'>, { inputs, outputs }: RunBuffers): GPUBuffer {
  return (place.space === 'input' ? inputs : outputs)[place.index]!.buffer;
}
