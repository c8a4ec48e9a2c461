// lib/jit/targets/webgpu/weights.ts: Weights on the GPU, in their stored type. Bytes go up as they lie in the checkpoint,
// piece after piece, and are put into rows there (layout.ts): nothing is decoded or transposed on the host.

import { float32Values, type Weight } from '../../../tensor.js';
import { formatOf, type WeightFormat } from '../../graph.js';
import type { Kernel } from '../../kernels/kernel.js';
import { packedPerWord } from '../../kernels/unpack.js';
import type { BoundWeight, WeightUse } from '../../target.js';
import { foldWorkgroups } from './dispatch.js';
import { boundForm, type MatrixLayout, matrixLayout, type RowForm, type WeightForm } from './layout.js';
import type { GpuMemory } from './memory.js';
import type { Pipelines } from './pipelines.js';
import { isDecoded, repackKernel, turnKernel, wholeKernel } from './repack.js';

/** One buffer of words, and one of scales where there are any. */
export interface WeightPart {
  readonly words: GPUBuffer;
  readonly scales: GPUBuffer | null;
}

interface HeldForm {
  readonly layout: MatrixLayout | null; // null: whole
  readonly parts: readonly WeightPart[];
}

export interface GpuWeight extends BoundWeight {
  readonly store: WeightStore;
  readonly path: string;
  readonly format: WeightFormat;
  readonly forms: Map<WeightForm, HeldForm>;
}

/** Bytes that are sent at once. */
const pieceBytes = 32e6;

export class WeightStore {
  constructor(
    readonly memory: GpuMemory,
    readonly pipelines: Pipelines,
    readonly bindingBytes: number,
  ) {}

  /** Sends a Weight in the form that its use asks for. */
  bind(weight: Weight, { path, outputAxis }: WeightUse): GpuWeight {
    const format = formatOf(weight);
    const form = boundForm(format, outputAxis);
    const before = this.memory.used.weights;
    const held = form === 'whole' ? this.#sendWhole(weight, path) : this.#sendRows(weight, form, path);
    return {
      store: this,
      bytes: this.memory.used.weights - before,
      path,
      format,
      forms: new Map([[form, held]]),
    };
  }

  unbind({ forms }: GpuWeight): void {
    for (const { parts } of forms.values())
      for (const { words, scales } of parts) {
        this.memory.release(words, 'weights');
        if (scales) this.memory.release(scales, 'weights');
      }
    forms.clear();
  }

  /** A part of a bound Weight's form, which is made of another one if it is not there yet. */
  part(weight: GpuWeight, form: WeightForm, part: number): WeightPart {
    const held = weight.forms.get(form) ?? this.#derive(weight, form);
    weight.forms.set(form, held);
    return held.parts[part]!;
  }

  #sendWhole(weight: Weight, path: string): HeldForm {
    const values = float32Values(weight);
    const words = this.memory.allocate(values.byteLength, 'weights', path);
    this.memory.write(words, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return { layout: null, parts: [{ words, scales: null }] };
  }

  #sendRows(weight: Weight, form: RowForm, path: string): HeldForm {
    const format = formatOf(weight);
    const layout = matrixLayout(format, form, this.bindingBytes);
    const parts = layout.parts.map(({ first, rows }): WeightPart => {
      const words = this.memory.allocate(4 * rows * layout.rowWords, 'weights', path);
      const scales = layout.scales && this.#sendScales(weight, layout, first, rows, path);
      return { words, scales };
    });
    const kernel = repackKernel(format, layout, form);
    const rows = weight.shape[0]!;
    // A multiple of 8 rows begins at a whole byte and fills whole words of what is written.
    const step = Math.max(8, Math.floor(pieceBytes / Math.max(1, rowBytes(weight)) / 8) * 8);
    for (const [i, part] of layout.parts.entries()) {
      const [begin, end] = form === 'rows0' ? [part.first, part.first + part.rows] : [0, rows];
      for (let low = begin; low < end; low += step) {
        const high = Math.min(end, low + step);
        const words = wordsOfPiece(layout, form, part.rows, low, high);
        const raw = this.#temporary(bytesOfRows(weight, low, high));
        this.#run(kernel, [raw, parts[i]!.words], words, [words, part.first, low, high]);
        raw.destroy();
      }
    }
    return { layout, parts };
  }

  /** Scales as rows of the layout: [rows, groups]. */
  #sendScales(
    weight: Weight,
    { scales, rows: allRows }: MatrixLayout,
    first: number,
    rows: number,
    path: string,
  ): GPUBuffer {
    if (weight.kind === 'float' || !scales) throw new Error(`${path}: float Weights have no scales`);
    const { groups } = scales;
    const { granularity, scales: given } = weight;
    const values = new Float32Array(rows * groups);
    for (let row = 0; row < rows; row++) {
      for (let group = 0; group < groups; group++) {
        const own = first + row;
        const at =
          granularity.per === 'tensor'
            ? 0
            : granularity.axis === 0
              ? own * groups + group
              : group * allRows + own;
        values[row * groups + group] = given[at]!;
      }
    }
    const buffer = this.memory.allocate(values.byteLength, 'weights', path);
    this.memory.write(buffer, new Uint8Array(values.buffer));
    return buffer;
  }

  /** Another form, made on the GPU of the one that was bound. */
  #derive({ format, path, forms }: GpuWeight, form: WeightForm): HeldForm {
    const [[known, held]] = [...forms] as [[WeightForm, HeldForm]];
    if (known === 'whole' || !held.layout)
      throw new RangeError(`${path}: expected to be read as a vector only, but it is also read as ${form}`);
    return form === 'whole'
      ? this.#deriveWhole(held, held.layout, known, format.shape, path)
      : this.#turn(held, held.layout, matrixLayout(format, form, this.bindingBytes), path);
  }

  #deriveWhole(
    { parts }: HeldForm,
    layout: MatrixLayout,
    form: RowForm,
    shape: readonly number[],
    path: string,
  ): HeldForm {
    const [rows, columns] = shape as [number, number];
    const target = this.memory.allocate(4 * rows * columns, 'weights', path);
    const kernel = wholeKernel(layout, form, columns);
    for (const [i, { words, scales }] of parts.entries()) {
      const { first, rows: own } = layout.parts[i]!;
      const count = own * layout.width;
      this.#run(kernel, [words, ...(scales ? [scales] : []), target], count, [count, first]);
    }
    return { layout: null, parts: [{ words: target, scales: null }] };
  }

  /** Rows along the other axis. Scales go along where there is one for all; else the numbers became f32. */
  #turn({ parts }: HeldForm, source: MatrixLayout, target: MatrixLayout, path: string): HeldForm {
    const perWord = packedPerWord[target.packing];
    if (source.parts.some(({ first }) => first % perWord !== 0))
      throw new RangeError(`${path}: a row is too large for the adapter's buffers to be read in two ways`);
    const kernel = turnKernel(source, target);
    const made = target.parts.map(({ first, rows }): WeightPart => {
      const words = this.memory.allocate(4 * rows * target.rowWords, 'weights', path);
      const count = rows * target.rowWords;
      for (const [i, from] of parts.entries()) {
        const { first: begin, rows: own } = source.parts[i]!;
        const scales = isDecoded(source, target) && from.scales ? [from.scales] : [];
        this.#run(kernel, [from.words, ...scales, words], count, [count, first, begin, begin + own]);
      }
      return { words, scales: target.scales && this.#sameScales(rows, parts[0]!.scales!, path) };
    });
    return { layout: target, parts: made };
  }

  /** Per tensor: one scale for all rows. */
  #sameScales(rows: number, from: GPUBuffer, path: string): GPUBuffer {
    const buffer = this.memory.allocate(4 * rows, 'weights', path);
    const encoder = this.memory.gpu.device.createCommandEncoder();
    for (let row = 0; row < rows; row++) encoder.copyBufferToBuffer(from, 0, buffer, 4 * row, 4);
    this.memory.gpu.device.queue.submit([encoder.finish()]);
    return buffer;
  }

  /** A buffer that the next kernels read, destroyed after they were sent. */
  #temporary(values: Uint8Array | Float32Array): GPUBuffer {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const { device } = this.memory.gpu;
    const size = Math.max(16, Math.ceil(bytes.byteLength / 16) * 16);
    const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
    this.memory.write(buffer, bytes);
    return buffer;
  }

  #run(kernel: Kernel, buffers: readonly GPUBuffer[], threads: number, parameters: readonly number[]): void {
    if (threads === 0) return;
    const { device } = this.memory.gpu;
    const { pipeline, layout } = this.pipelines.get(kernel);
    const uniform = device.createBuffer({
      size: 16,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(uniform, 0, Uint32Array.from([...parameters, 0, 0, 0].slice(0, 4)));
    const entries = [...buffers, uniform].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(...foldWorkgroups(Math.ceil(threads / kernel.threads)));
    pass.end();
    device.queue.submit([encoder.finish()]);
    uniform.destroy();
  }
}

function rowBytes(weight: Weight): number {
  return weight.shape[0] === 0 ? 0 : weight.bytes.byteLength / weight.shape[0]!;
}

/** Bytes of the matrix's rows low..high; of int4 in pairs, where low is even. */
function bytesOfRows(weight: Weight, low: number, high: number): Uint8Array {
  const columns = weight.shape[1]!;
  const bits = weight.kind === 'int4' ? 4 : weight.kind === 'int8' ? 8 : weight.dtype === 'f32' ? 32 : 16;
  const [from, to] = [(low * columns * bits) / 8, Math.ceil((high * columns * bits) / 8)];
  return new Uint8Array(weight.bytes.buffer, weight.bytes.byteOffset + from, to - from);
}

/** Words that rows low..high of the matrix fill in a part of so many rows. */
function wordsOfPiece(layout: MatrixLayout, form: RowForm, rows: number, low: number, high: number): number {
  if (form === 'rows0') return (high - low) * layout.rowWords;
  const perWord = packedPerWord[layout.packing];
  const before = low / perWord;
  return rows * (high >= layout.width ? layout.rowWords - before : (high - low) / perWord);
}
