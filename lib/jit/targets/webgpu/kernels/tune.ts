// lib/jit/targets/webgpu/kernels/tune.ts: problems of a plan -> the fastest way to cut each one's kernel on this GPU, by
// timing candidates over weights larger than its caches. What is timed is the plan's own kernel: a norm more or less, or
// where an operand lies, and another shape is the fastest (INT8 with float32 input, gate and up of Mistral-7B, H200: the
// best shape of a bare product took 46 us in its place, another one 40).

import type { Gpu } from '../device.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import { useKey } from '../dispatch.js';
import { Pipelines } from '../pipelines.js';
import { matvecCandidates, problemKey } from './candidates.js';
import type { MatvecShape } from './matvec.js';
import type { MatvecProblem } from './tuning.js';
import { matvecShape } from './tuning.js';

/** A product of a plan, and its kernel in any shape: with norms, residuals and what else the plan has around it. */
export interface TunableProblem {
  readonly problem: MatvecProblem;
  /** @returns undefined where that shape does not fit */
  readonly dispatch: (shape: MatvecShape) => Dispatch | undefined;
  readonly bytesOf: (use: Exclude<BufferUse, { kind: 'arena' | 'control' }>) => number;
}

/** How long a candidate took. */
export interface Timing {
  readonly shape: MatvecShape;
  readonly microseconds: number;
}

export interface TuneOptions {
  readonly onProgress?: (done: number, total: number) => void;
  /** Candidates of a problem at most; the rest is left out by chance. Default 120. */
  readonly most?: number;
}

/** Weights are read in turns from so many bytes: a cache of this size would make every candidate look fast. */
const poolBytes = 512e6;
const mostTurns = 16;
const repeats = 5;
const warmUpMs = 300;
/** Timings of a problem at most. */
const mostTimes = 1024;

/**
 * Times the candidates of each problem.
 * @returns by problemKey the timings, the fastest first
 * @throws Error if the adapter has no timestamps
 */
export async function tuneMatvec(
  gpu: Gpu,
  problems: readonly TunableProblem[],
  { onProgress = () => {}, most = 120 }: TuneOptions = {},
): Promise<Map<string, Timing[]>> {
  if (!gpu.hasTimestamps) throw new Error(`tune: ${gpu.name} has no timestamps`);
  const bench = new Bench(gpu);
  const results = new Map<string, Timing[]>();
  try {
    const total = problems.length;
    let done = 0;
    for (const problem of problems) {
      // Kernels and pipelines of a problem go with it: together they would fill the memory.
      const shapes = candidatesOf(gpu, problem, most);
      const pipelines = new Pipelines(gpu);
      // All are compiled first: between timings the clocks would fall.
      await pipelines.compile(shapes.map(({ dispatch }) => dispatch.kernel));
      await bench.open(problem, shapes);
      const times = await bench.time(shapes, pipelines);
      onProgress(++done, total);
      const timings = shapes.map(({ shape }, i): Timing => ({ shape, microseconds: times[i]! }));
      bench.close();
      results.set(
        problemKey(problem.problem),
        timings.sort((a, b) => a.microseconds - b.microseconds),
      );
    }
  } finally {
    bench.destroy();
  }
  return results;
}

function candidatesOf(gpu: Gpu, { problem, dispatch }: TunableProblem, most: number): Candidate[] {
  const shapes = matvecCandidates(gpu.features, problem);
  // In an order that looks random, so that a clock that falls or rises prefers none of a kind.
  const mixed = shapes.map((shape, i) => [(i * 7919 + 13) % 1009, shape] as const).sort(([a], [b]) => a - b);
  const chosen = [matvecShape(gpu.features, problem), ...mixed.slice(0, most - 1).map(([, shape]) => shape)];
  return chosen.flatMap((shape): Candidate[] => {
    const made = dispatch(shape);
    return made ? [{ shape, dispatch: made }] : [];
  });
}

interface Candidate {
  readonly shape: MatvecShape;
  readonly dispatch: Dispatch;
}

const aligned = (bytes: number): number => Math.max(256, Math.ceil(bytes / 256) * 256);

/** Memory so small holds positions and counts: 1 is one that any kernel can do with. */
const countBytes = 128;

class Bench {
  readonly #device: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;
  #pool: GPUBuffer | undefined;
  /** What kernels are given beside the weights, by useKey. */
  #own = new Map<string, GPUBuffer>();
  /** Where the words of each Weight begin, by useKey, and how much all of them take. */
  #words = new Map<string, { readonly begin: number; readonly bytes: number }>();
  #stride = 256;

  constructor(gpu: Gpu) {
    this.#device = gpu.device;
    const count = 2 * mostTimes;
    this.#queries = gpu.device.createQuerySet({ type: 'timestamp', count });
    const usage = GPUBufferUsage;
    const size = 8 * count;
    this.#resolved = gpu.device.createBuffer({ size, usage: usage.QUERY_RESOLVE | usage.COPY_SRC });
    this.#staging = gpu.device.createBuffer({ size, usage: usage.MAP_READ | usage.COPY_DST });
  }

  /** @throws RangeError if the GPU has no room for it */
  async open({ bytesOf }: TunableProblem, candidates: readonly Candidate[]): Promise<void> {
    this.#device.pushErrorScope('out-of-memory');
    this.#stride = 0;
    const sizes = new Map<string, number>();
    for (const use of candidates.flatMap(({ dispatch }) => dispatch.buffers)) {
      if (use.kind === 'arena' || use.kind === 'control')
        throw new Error(`tune: a kernel is given ${use.kind}`);
      const [key, bytes] = [useKey(use), bytesOf(use)];
      if (use.kind !== 'weight' || use.of !== 'words') sizes.set(key, Math.max(bytes, sizes.get(key) ?? 0));
      else if (!this.#words.has(key)) {
        this.#words.set(key, { begin: this.#stride, bytes });
        this.#stride += aligned(bytes);
      }
    }
    if (this.#pool && this.#pool.size < this.#stride) {
      this.#pool.destroy();
      this.#pool = undefined;
    }
    this.#pool ??= this.#filled(Math.max(poolBytes, this.#stride));
    for (const [key, bytes] of sizes) this.#own.set(key, this.#filled(bytes));
    const error = await this.#device.popErrorScope();
    if (error)
      throw new RangeError(`tune: no room for ${poolBytes / 1e6} MB of test weights: ${error.message}`);
  }

  /** A buffer of bytes that look random: on zeros a GPU is faster. */
  #filled(bytes: number): GPUBuffer {
    const size = aligned(bytes);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = this.#device.createBuffer({ size, usage });
    const block = new Uint32Array(Math.min(size, 2 ** 20) / 4);
    for (let i = 0; i < block.length; i++)
      block[i] = bytes <= countBytes ? 1 : (Math.random() * 2 ** 32) & 0x3fffffff;
    for (let at = 0; at < size; at += block.byteLength)
      this.#device.queue.writeBuffer(buffer, at, block, 0, Math.min(block.byteLength, size - at) / 4);
    return buffer;
  }

  close(): void {
    for (const buffer of this.#own.values()) buffer.destroy();
    this.#own.clear();
    this.#words.clear();
  }

  destroy(): void {
    this.close();
    for (const each of [this.#pool, this.#resolved, this.#staging, this.#queries]) each?.destroy();
  }

  /**
   * Microseconds of a dispatch of each candidate: the median of some runs of many. All are sent at once, behind work that
   * brings the clocks up: a GPU that rests between two timings is slower in the second one.
   */
  async time(candidates: readonly Candidate[], pipelines: Pipelines): Promise<number[]> {
    const started = performance.now();
    for (let at = 0; performance.now() - started < warmUpMs; at++) {
      this.#device.queue.submit([
        this.#encode(candidates[at % candidates.length]!, undefined, pipelines).finish(),
      ]);
      if (at % 32 === 31) await this.#device.queue.onSubmittedWorkDone();
    }
    const runs = Math.min(repeats, Math.floor(mostTimes / candidates.length));
    for (let run = 0; run < runs; run++)
      for (const [i, candidate] of candidates.entries())
        this.#device.queue.submit([this.#encode(candidate, run * candidates.length + i, pipelines).finish()]);
    const count = 2 * runs * candidates.length;
    const encoder = this.#device.createCommandEncoder();
    encoder.resolveQuerySet(this.#queries, 0, count, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, 8 * count);
    this.#device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(GPUMapMode.READ);
    const times = new BigUint64Array(this.#staging.getMappedRange().slice(0));
    this.#staging.unmap();
    return candidates.map((_, i) => {
      const own = Array.from({ length: runs }, (__, run) => {
        const at = 2 * (run * candidates.length + i);
        return Number(times[at + 1]! - times[at]!) / 1e3 / this.#dispatches;
      });
      return own.sort((a, b) => a - b)[runs >> 1]!;
    });
  }

  get #turns(): number {
    return Math.max(1, Math.min(mostTurns, Math.floor(this.#pool!.size / this.#stride)));
  }

  get #dispatches(): number {
    return Math.max(this.#turns, 8);
  }

  #encode({ dispatch }: Candidate, query: number | undefined, pipelines: Pipelines): GPUCommandEncoder {
    const { pipeline, layout } = pipelines.get(dispatch.kernel);
    const resource = (use: BufferUse, turn: number): GPUBufferBinding => {
      const words = this.#words.get(useKey(use));
      if (!words) return { buffer: this.#own.get(useKey(use))! };
      const offset = turn * this.#stride + words.begin;
      return { buffer: this.#pool!, offset, size: Math.max(16, words.bytes) };
    };
    const groups = Array.from({ length: this.#turns }, (_, turn) =>
      this.#device.createBindGroup({
        layout,
        entries: dispatch.buffers.map((use, binding) => ({ binding, resource: resource(use, turn) })),
      }),
    );
    const encoder = this.#device.createCommandEncoder();
    const timestampWrites =
      query === undefined
        ? undefined
        : {
            querySet: this.#queries,
            beginningOfPassWriteIndex: 2 * query,
            endOfPassWriteIndex: 2 * query + 1,
          };
    const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    pass.setPipeline(pipeline);
    for (let i = 0; i < this.#dispatches; i++) {
      pass.setBindGroup(0, groups[i % groups.length]!);
      pass.dispatchWorkgroups(...(dispatch.workgroups as [number, number, number]));
    }
    pass.end();
    return encoder;
  }
}
