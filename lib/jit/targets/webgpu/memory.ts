// lib/jit/targets/webgpu/memory.ts: buffers on the GPU, counted by what they are for; tensors' buffers that are used again,
// since asking for one costs more than clearing it; asynchronous reads through staging buffers.

import { bytesText } from '../../debug.js';
import type { ElementType, ElementValues } from '../../graph.js';
import type { TargetBuffer } from '../../target.js';
import type { Gpu } from './device.js';

/** Weights, tensors, or a program's own: arena, constants, scratch. */
export type MemoryUse = 'weights' | 'buffers' | 'arena';

/** A tensor's memory. `values`: what is known here to be in it, so that it can be read without waiting. */
export interface GpuTensor extends TargetBuffer {
  readonly memory: GpuMemory;
  readonly buffer: GPUBuffer;
  values: ArrayBuffer | undefined;
}

/** Sizes are multiples of this, so that every buffer can be bound as vectors of four. */
const unitBytes = 16;

/** Bytes that a buffer of this size takes. */
export function paddedBytes(bytes: number): number {
  return Math.max(unitBytes, Math.ceil(bytes / unitBytes) * unitBytes);
}

/**
 * So many bytes of released tensors are kept for the next ones of the same sizes: a long text's cache is one of them, and
 * to make 1 GB of new buffers takes 20 ms.
 */
const keptBytes = 2e9;
/** A tensor of so many bytes for which no old memory fits: another cache than before, perhaps; what is kept makes room. */
const largeBytes = 16e6;

export class GpuMemory {
  readonly used: Record<MemoryUse, number> = { weights: 0, buffers: 0, arena: 0 };
  readonly #pending = new Set<Promise<void>>();
  readonly #staging: GPUBuffer[] = [];
  readonly #kept = new Map<number, GPUBuffer[]>(); // of released tensors, by size, oldest first
  readonly #ages = new WeakMap<GPUBuffer, number>();
  #made = 0;
  #keptBytes = 0;
  readonly #taken = new Set<GPUBuffer>(); // from those, and not cleared yet
  #shortage: string | undefined;

  constructor(readonly gpu: Gpu) {}

  /**
   * A buffer for storage; zeros at first.
   * @param isUniform kernels may be given it as constants too
   * @throws RangeError if it is larger than the adapter's buffers can be. Too little memory is found out later: `settled`
   */
  allocate(bytes: number, use: MemoryUse, label: string, isUniform = false): GPUBuffer {
    const { device } = this.gpu;
    const size = paddedBytes(bytes);
    const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
    // Of a program's arena a kernel is given parts; all else is given whole.
    const most = use === 'arena' ? maxBufferSize : Math.min(maxBufferSize, maxStorageBufferBindingSize);
    if (size > most)
      throw new RangeError(
        `${label}: needs one buffer of ${bytesText(size)}, but ${this.gpu.name} has none over ` +
          `${bytesText(most)}; take a smaller capacity, prompt or weight scheme`,
      );
    if (use !== 'buffers') this.#giveUpKept(); // for what lasts
    device.pushErrorScope('out-of-memory');
    const { STORAGE, COPY_SRC, COPY_DST, UNIFORM } = GPUBufferUsage;
    const usage = STORAGE | COPY_SRC | COPY_DST | (isUniform ? UNIFORM : 0);
    const buffer = device.createBuffer({ label, size, usage });
    this.#ages.set(buffer, this.#made++);
    this.used[use] += size;
    const held = { ...this.used };
    this.#await(
      device.popErrorScope().then((error) => {
        if (error) this.#shortage ??= this.#shortageText(label, size, held);
      }),
    );
    return buffer;
  }

  #shortageText(
    label: string,
    bytes: number,
    { weights, buffers, arena }: Record<MemoryUse, number>,
  ): string {
    const parts = `${bytesText(weights)} of weights, ${bytesText(buffers)} of tensors, ${bytesText(arena)} of programs`;
    return (
      `${label}: the GPU ${this.gpu.name} has no room for another ${bytesText(bytes)}: asked for so far ${parts}. ` +
      'Take a smaller scheme of weights (int8 has a quarter, int4 an eighth of float32) or a smaller capacity'
    );
  }

  #await(work: Promise<void>): void {
    const settled = work.finally(() => this.#pending.delete(settled));
    this.#pending.add(settled);
  }

  /** Resolves when all buffers asked for are known to be there. @throws RangeError if one is not */
  async settled(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
    const shortage = this.#shortage;
    this.#shortage = undefined;
    if (shortage !== undefined) throw new RangeError(shortage);
    this.gpu.check();
  }

  release(buffer: GPUBuffer, use: MemoryUse): void {
    this.used[use] -= buffer.size;
    buffer.destroy();
  }

  /** A tensor's memory; zeros from the next run, read or write on. */
  tensor(bytes: number): GpuTensor {
    const kept = this.#takeKept(paddedBytes(bytes));
    if (!kept && bytes >= largeBytes) this.#giveUpKept();
    const buffer = kept ?? this.allocate(bytes, 'buffers', 'tensor');
    return { bytes, memory: this, buffer, values: undefined };
  }

  #takeKept(size: number): GPUBuffer | undefined {
    const buffer = this.#kept.get(size)?.shift();
    if (!buffer) return undefined;
    this.#keptBytes -= size;
    this.used.buffers += size;
    this.#taken.add(buffer);
    return buffer;
  }

  releaseTensor({ buffer }: GpuTensor): void {
    const { size } = buffer;
    this.#taken.delete(buffer);
    if (this.#keptBytes + size > keptBytes) {
      this.release(buffer, 'buffers');
      return;
    }
    this.used.buffers -= size;
    this.#keptBytes += size;
    const known = this.#kept.get(size) ?? [];
    this.#kept.set(size, known);
    // In order of age: a call that is made again is given the same buffers, and its bind groups hold.
    const age = this.#ages.get(buffer)!;
    const after = known.findLastIndex((each) => this.#ages.get(each)! < age);
    known.splice(after + 1, 0, buffer);
  }

  #giveUpKept(): void {
    for (const buffers of this.#kept.values()) for (const buffer of buffers) buffer.destroy();
    this.#kept.clear();
    this.#keptBytes = 0;
  }

  /** Clears the tensors that were given old memory. */
  clearTaken(): void {
    if (this.#taken.size === 0) return;
    const encoder = this.gpu.device.createCommandEncoder();
    for (const buffer of this.#taken) encoder.clearBuffer(buffer);
    this.gpu.device.queue.submit([encoder.finish()]);
    this.#taken.clear();
  }

  /** Writes a tensor's values, or its first ones. */
  writeTensor({ buffer, bytes }: GpuTensor, values: Uint8Array): void {
    if (values.byteLength >= bytes) this.#taken.delete(buffer);
    else this.clearTaken();
    this.write(buffer, values);
  }

  /** Writes bytes at a buffer's begin; a tail that fills no word is filled up with zeros. */
  write(buffer: GPUBuffer, bytes: Uint8Array, offset = 0): void {
    const whole = bytes.byteLength & ~3;
    const { queue } = this.gpu.device;
    if (whole > 0) queue.writeBuffer(buffer, offset, bytes as Uint8Array<ArrayBuffer>, 0, whole);
    if (whole === bytes.byteLength) return;
    const tail = new Uint8Array(4);
    tail.set(bytes.subarray(whole));
    queue.writeBuffer(buffer, offset + whole, tail);
  }

  /** A buffer to copy into and map, from those that are free. */
  takeStaging(bytes: number): GPUBuffer {
    const at = this.#staging.findIndex(({ size }) => size >= bytes && size <= 4 * Math.max(bytes, 4096));
    if (at >= 0) return this.#staging.splice(at, 1)[0]!;
    const size = paddedBytes(bytes);
    return this.gpu.device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  }

  giveStaging(buffer: GPUBuffer): void {
    if (this.#staging.length < 8) this.#staging.push(buffer);
    else buffer.destroy();
  }

  /** Maps a staging buffer, copies its first bytes, and gives it back. */
  async fetch(staging: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    try {
      await staging.mapAsync(GPUMapMode.READ, 0, paddedBytes(bytes));
    } catch (error) {
      // A lost device says so a little after the call that it broke.
      await Promise.race([this.gpu.device.lost, new Promise((resolve) => setTimeout(resolve, 200))]);
      this.gpu.check();
      throw error;
    }
    const values = staging.getMappedRange(0, paddedBytes(bytes)).slice(0, bytes);
    staging.unmap();
    this.giveStaging(staging);
    return values;
  }

  /** The bytes of a buffer, when the work before is done. */
  async read(buffer: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    this.clearTaken();
    const staging = this.takeStaging(bytes);
    const encoder = this.gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, paddedBytes(bytes));
    this.gpu.device.queue.submit([encoder.finish()]);
    return this.fetch(staging, bytes);
  }

  close(): void {
    this.gpu.close();
  }
}

/** Bytes as a tensor's values. */
export function valuesOf(bytes: ArrayBuffer, dtype: ElementType): ElementValues {
  return dtype === 'f32' ? new Float32Array(bytes) : new Int32Array(bytes);
}
