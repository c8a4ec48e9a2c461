// lib/jit/targets/webgpu/timer.ts: how long each step's kernels took on the GPU, by timestamps around passes of one
// dispatch; where the adapter has none, by waiting for each.

import type { Gpu } from './device.js';

const mostQueries = 4096;

export class StepTimer {
  readonly stepMs: Float64Array;
  readonly #set: GPUQuerySet | undefined;
  readonly #resolved: GPUBuffer | undefined;
  readonly #staging: GPUBuffer | undefined;
  readonly #steps: number[] = []; // by pair of queries

  constructor(
    readonly gpu: Gpu,
    steps: number,
  ) {
    this.stepMs = new Float64Array(steps);
    if (!gpu.hasTimestamps) return;
    const { device } = gpu;
    this.#set = device.createQuerySet({ type: 'timestamp', count: mostQueries });
    const size = 8 * mostQueries;
    this.#resolved = device.createBuffer({
      size,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
    this.#staging = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  }

  get isFull(): boolean {
    return 2 * this.#steps.length >= mostQueries;
  }

  /** Writes a pass with one dispatch. */
  async measure(
    encoder: GPUCommandEncoder,
    step: number,
    write: (pass: GPUComputePassEncoder) => void,
  ): Promise<void> {
    if (this.#set) {
      const at = 2 * this.#steps.length;
      const timestampWrites = {
        querySet: this.#set,
        beginningOfPassWriteIndex: at,
        endOfPassWriteIndex: at + 1,
      };
      this.#steps.push(step);
      const pass = encoder.beginComputePass({ timestampWrites });
      write(pass);
      pass.end();
      return;
    }
    const { queue } = this.gpu.device;
    await queue.onSubmittedWorkDone();
    const started = performance.now();
    const own = this.gpu.device.createCommandEncoder();
    const pass = own.beginComputePass();
    write(pass);
    pass.end();
    queue.submit([own.finish()]);
    await queue.onSubmittedWorkDone();
    this.stepMs[step]! += performance.now() - started;
  }

  /** Writes the copy of what was measured. */
  resolve(encoder: GPUCommandEncoder): void {
    const count = 2 * this.#steps.length;
    if (!this.#set || count === 0) return;
    encoder.resolveQuerySet(this.#set, 0, count, this.#resolved!, 0);
    encoder.copyBufferToBuffer(this.#resolved!, 0, this.#staging!, 0, 8 * count);
  }

  /** Adds up what came back. */
  async collect(): Promise<void> {
    if (!this.#set || this.#steps.length === 0) return;
    await this.#staging!.mapAsync(GPUMapMode.READ);
    const times = new BigUint64Array(this.#staging!.getMappedRange().slice(0));
    this.#staging!.unmap();
    for (const [i, step] of this.#steps.entries())
      this.stepMs[step]! += Math.max(0, Number(times[2 * i + 1]! - times[2 * i]!)) / 1e6;
    this.#steps.length = 0;
  }

  dispose(): void {
    this.#set?.destroy();
    this.#resolved?.destroy();
    this.#staging?.destroy();
  }
}
