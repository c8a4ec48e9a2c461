// lib/jit/targets/webgpu/bandwidth.ts: how fast kernels can read the GPU's memory at best, to compare theirs with: one
// kernel that reads a buffer larger than any cache and does nothing else.

import { buildKernel } from '../../kernels/builder.js';
import { literal } from '../../kernels/expression.js';
import type { Kernel } from '../../kernels/kernel.js';
import type { Gpu } from './device.js';
import type { Pipelines } from './pipelines.js';

const threads = 256;
const unrolled = 8; // loads before the first is used
const vectorBytes = 16;
const workgroups = 2048;
const repeats = 10;
const warmUpMs = 300; // idle clocks are low for that long (measured on an H100)

/** Each thread reads every so-manieth vector, several at once. */
function readKernel(vectors: number): Kernel {
  return buildKernel({ name: 'read', threads }, (k) => {
    const from = k.buffer('from', 'u32x4', 'read');
    const to = k.buffer('to', 'u32x4', 'readWrite');
    const all = threads * workgroups;
    const first = k.let('first', k.builtin('workgroupX').mul(threads).add(k.localIndex));
    const sum = k.variable('sum', literal('u32x4', 0));
    k.for(
      'at',
      first,
      literal('u32', vectors),
      (at) => {
        const loads = Array.from({ length: unrolled }, (_, i) => k.let('load', from.at(at.add(i * all))));
        for (const load of loads) k.set(sum, sum.value.xor(load));
      },
      unrolled * all,
    );
    k.store(to, first, sum.value);
  });
}

/** Numbers that look random: on zeros some GPUs read faster. */
function fillKernel(): Kernel {
  return buildKernel({ name: 'fill', threads }, (k) => {
    const to = k.buffer('to', 'u32', 'readWrite');
    const words = k.parameter('words', 'u32');
    const first = k.let('first', k.builtin('workgroupX').mul(threads).add(k.localIndex));
    k.for(
      'at',
      first,
      words,
      (at) => k.store(to, at, at.mul(0x9e3779b9).xor(at.shr(15)).mul(0x85ebca6b)),
      threads * workgroups,
    );
  });
}

/** 10^9 bytes a second, the best of some passes over up to 1 GB. */
export async function measureReadGBps(gpu: Gpu, pipelines: Pipelines): Promise<number> {
  const { device } = gpu;
  const most = gpu.isSoftware ? 64e6 : Math.min(1e9, device.limits.maxStorageBufferBindingSize);
  const pass = threads * workgroups * unrolled * vectorBytes;
  const bytes = Math.max(1, Math.floor(most / pass)) * pass;
  const { STORAGE, COPY_SRC, COPY_DST, UNIFORM } = GPUBufferUsage;
  const source = device.createBuffer({ size: bytes, usage: STORAGE | COPY_SRC });
  const result = device.createBuffer({ size: threads * workgroups * vectorBytes, usage: STORAGE });
  const size = device.createBuffer({ size: 16, usage: UNIFORM | COPY_DST });
  device.queue.writeBuffer(size, 0, Uint32Array.of(bytes / 4, 0, 0, 0));
  const run = (kernel: Kernel, buffers: readonly GPUBuffer[], times: number): Promise<undefined> => {
    const { pipeline, layout } = pipelines.get(kernel);
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.createBindGroup({ layout, entries });
    const encoder = device.createCommandEncoder();
    const encoded = encoder.beginComputePass();
    encoded.setPipeline(pipeline);
    encoded.setBindGroup(0, group);
    for (let i = 0; i < times; i++) encoded.dispatchWorkgroups(workgroups);
    encoded.end();
    device.queue.submit([encoder.finish()]);
    return device.queue.onSubmittedWorkDone();
  };
  try {
    await run(fillKernel(), [source, size], 1);
    const kernel = readKernel(bytes / vectorBytes);
    const begun = performance.now();
    let best = 0;
    // Passes are sent without a gap, so that the clocks stay up.
    for (let i = 0; i < 3 || performance.now() - begun < warmUpMs; i++) {
      const started = performance.now();
      await run(kernel, [source, result], gpu.isSoftware ? 1 : repeats);
      const done = gpu.isSoftware ? 1 : repeats;
      best = Math.max(best, (done * bytes) / 1e6 / (performance.now() - started));
    }
    gpu.check();
    return best;
  } finally {
    for (const buffer of [source, result, size]) buffer.destroy();
  }
}
