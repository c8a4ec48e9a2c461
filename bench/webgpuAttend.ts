// bench/webgpuAttend.ts: `node bench/dist/webgpuAttend.js`: how fast each way to cut attention is on this GPU, for a token
// of Mistral-7B over short and long caches. Under a minute.

import { openGpu } from 'response-time/jit/targets/webgpu/device';
import { type AttendKernel, attendKernels } from 'response-time/jit/targets/webgpu/kernels/attendKernels';
import {
  type AttendProblem,
  type AttendSpec,
  attendSpec,
} from 'response-time/jit/targets/webgpu/kernels/attendShape';
import { Pipelines } from 'response-time/jit/targets/webgpu/pipelines';

const gpu = await openGpu();
const { device } = gpu;
console.log(`# ${gpu.name} ${JSON.stringify(gpu.features)}`);

interface Case {
  readonly batch: number;
  readonly capacity: number;
  readonly depth: number;
  /** Other ways to cut it, beside the one that attendSpec takes. */
  readonly others: readonly Partial<AttendSpec>[];
}

async function timeAttention(): Promise<void> {
  const whole = [
    { together: 1, threads: 256 },
    { together: 1, threads: 1024 },
    { together: 4, threads: 512 },
  ] as const;
  const chunked = [
    { chunk: 64, threads: 256 },
    { chunk: 128, threads: 512 },
    { chunk: 256, threads: 256 },
    { chunk: 256, threads: 512 },
    { chunk: 512, threads: 256 },
  ] as const;
  const cases: readonly Case[] = [
    { batch: 1, capacity: 256, depth: 160, others: whole },
    { batch: 8, capacity: 256, depth: 160, others: whole },
    { batch: 1, capacity: 8192, depth: 128, others: chunked },
    { batch: 1, capacity: 8192, depth: 8000, others: chunked },
    { batch: 8, capacity: 8192, depth: 128, others: chunked },
    { batch: 8, capacity: 8192, depth: 8000, others: chunked },
  ];
  const bench = new AttendBench();
  for (const each of cases) {
    const { batch, capacity, depth, others } = each;
    const shape = { batch, heads: 32, kvHeads: 8, headDim: 128, capacity, window: null };
    const problem: AttendProblem = { ...shape, scale: 128 ** -0.5, roughExp: true };
    const own = attendSpec(gpu.features, problem)!;
    console.log(`# attention, batch ${batch}, capacity ${capacity}, depth ${depth}`);
    for (const other of [{}, ...others]) {
      const merged = { ...own, ...other };
      if (merged.threads > gpu.features.maxThreads) continue;
      await bench.print({ ...merged, chunks: Math.ceil(capacity / merged.chunk) }, depth);
    }
  }
}

class AttendBench {
  readonly #pipelines = new Pipelines(gpu);
  readonly #bytes = 8 * 8192 * 8 * 128 * 4; // keys of 8 rows of 8,192 positions
  readonly #pools = { keys: filled(this.#bytes), values: filled(this.#bytes) };
  readonly #queries = device.createQuerySet({ type: 'timestamp', count: 2 });
  readonly #resolved = device.createBuffer({
    size: 256,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  readonly #staging = device.createBuffer({
    size: 16,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });

  async print(spec: AttendSpec, depth: number): Promise<void> {
    const { batch, kvHeads, headDim, together, chunk, chunks, threads, heads } = spec;
    const kernels = attendKernels(gpu.features, spec);
    await this.#pipelines.compile(kernels.map(({ kernel }) => kernel));
    const buffers = {
      ...{ q: filled(4 * batch * heads * headDim), y: filled(4 * batch * heads * headDim) },
      ...{ mixed: filled(4 * batch * heads * chunks * headDim), found: filled(8 * batch * heads * chunks) },
      ...{ start: integers(batch, depth - 1), count: integers(batch, 1) },
    };
    await this.#time(spec, kernels, buffers); // clocks up
    const all = await this.#time(spec, kernels, buffers);
    const parts = kernels.length > 1 ? await this.#time(spec, kernels.slice(0, 1), buffers) : all;
    const gigabytes = (2 * 4 * batch * kvHeads * headDim * depth) / 1e9;
    const speed = ((1e6 * gigabytes) / parts).toFixed(0);
    const name = `together ${together}, ${chunks} x ${chunk}, ${threads} threads`;
    console.log(`${name}: ${all.toFixed(1)}us, of it the reading kernel ${parts.toFixed(1)}us ${speed}GB/s`);
    for (const buffer of Object.values(buffers)) buffer.destroy();
  }

  /** Microseconds a round: the median of five runs of many, each behind work that keeps the clocks up. */
  async #time(
    { batch, kvHeads, headDim, capacity }: AttendSpec,
    kernels: readonly AttendKernel[],
    buffers: Readonly<Record<string, GPUBuffer>>,
  ): Promise<number> {
    const own = 4 * batch * kvHeads * headDim * capacity;
    const turns = Math.min(16, Math.floor(this.#bytes / own));
    const steps = kernels.map(({ kernel, workgroups }) => {
      const { pipeline, layout } = this.#pipelines.get(kernel);
      const groups = Array.from({ length: turns }, (_, turn) => {
        const entries = kernel.buffers.map(({ name }, binding) => {
          const pool = (this.#pools as Record<string, GPUBuffer>)[name];
          const resource = pool
            ? { buffer: pool, offset: turn * own, size: own }
            : { buffer: buffers[name]! };
          return { binding, resource };
        });
        return device.createBindGroup({ layout, entries });
      });
      return { pipeline, workgroups, groups };
    });
    const rounds = 32;
    const runs: number[] = [];
    for (let run = 0; run < 5; run++) {
      const encoder = device.createCommandEncoder();
      const encode = (pass: GPUComputePassEncoder): void => {
        for (let round = 0; round < rounds; round++)
          for (const { pipeline, workgroups, groups } of steps) {
            pass.setPipeline(pipeline);
            pass.setBindGroup(0, groups[round % turns]!);
            pass.dispatchWorkgroups(workgroups);
          }
        pass.end();
      };
      encode(encoder.beginComputePass());
      const timestampWrites = {
        ...{ querySet: this.#queries, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
      };
      encode(encoder.beginComputePass({ timestampWrites }));
      encoder.resolveQuerySet(this.#queries, 0, 2, this.#resolved, 0);
      encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, 16);
      device.queue.submit([encoder.finish()]);
      await this.#staging.mapAsync(GPUMapMode.READ);
      const [begin, end] = new BigUint64Array(this.#staging.getMappedRange());
      runs.push(Number(end! - begin!) / 1e3 / rounds);
      this.#staging.unmap();
    }
    return runs.sort((a, b) => a - b)[2]!;
  }
}

/** Small numbers that look random. */
function filled(bytes: number): GPUBuffer {
  const buffer = device.createBuffer({ size: Math.max(16, bytes), usage: storage() });
  const block = new Float32Array(Math.min(bytes, 2 ** 22) / 4);
  for (let i = 0; i < block.length; i++) block[i] = Math.random() - 0.5;
  for (let at = 0; at < bytes; at += block.byteLength)
    device.queue.writeBuffer(buffer, at, block, 0, Math.min(block.byteLength, bytes - at) / 4);
  return buffer;
}

function integers(count: number, value: number): GPUBuffer {
  const buffer = device.createBuffer({ size: Math.max(16, 4 * count), usage: storage() });
  device.queue.writeBuffer(buffer, 0, new Int32Array(count).fill(value));
  return buffer;
}

function storage(): number {
  return GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
}

await timeAttention();
gpu.close();
process.exit();
