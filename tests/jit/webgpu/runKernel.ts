// tests/jit/webgpu/runKernel.ts: one kernel on a GPU, SwiftShader if there is no other: arrays in, arrays out.
import { existsSync } from 'node:fs';
import type { Kernel } from '../../../lib/jit/kernels/kernel.js';
import { type Gpu, openGpu } from '../../../lib/jit/targets/webgpu/device.js';
import { printWgsl } from '../../../lib/jit/targets/webgpu/wgsl.js';

/** Debian's chromium carries this driver; it emulates a GPU. */
const emulator = '/usr/lib/chromium/vk_swiftshader_icd.json';

let opened: Promise<Gpu | string> | undefined;

/** The GPU to test on, or the reason that there is none. */
export function testGpu(): Promise<Gpu | string> {
  if (existsSync(emulator)) {
    process.env.VK_DRIVER_FILES ??= emulator;
    process.env.VK_ICD_FILENAMES ??= emulator;
  }
  opened ??= openGpu({ software: 'swiftshader' }).catch((error: Error) => error.message);
  return opened;
}

export type Words = Float32Array | Uint32Array | Int32Array;

/**
 * Runs a kernel once; matrix units are spelled out where there are none.
 * @returns contents of all buffers afterwards, as their element types say
 */
export async function runKernel(
  gpu: Gpu,
  kernel: Kernel,
  contents: Readonly<Record<string, Words>>,
  workgroups: readonly number[],
): Promise<Record<string, Float32Array>> {
  const { device } = gpu;
  device.pushErrorScope('validation');
  const matrices = gpu.features.matrices ? 'units' : 'emulated';
  const code = printWgsl(kernel, { ...gpu.wgsl, matrices });
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const wrong = messages.find(({ type }) => type === 'error');
  if (wrong)
    throw new Error(`${wrong.lineNum}: ${wrong.message}: ${code.split('\n')[wrong.lineNum - 1]}\n${code}`);
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module, entryPoint: 'main' },
  });
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffers = kernel.buffers.map(({ name }) => {
    const values = contents[name];
    if (!values) throw new Error(`runKernel: no contents for ${name}`);
    const buffer = device.createBuffer({ size: Math.max(16, Math.ceil(values.byteLength / 16) * 16), usage });
    device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    return buffer;
  });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(workgroups[0]!, workgroups[1], workgroups[2]);
  pass.end();
  const staging = buffers.map((buffer) => {
    const copy = device.createBuffer({
      size: buffer.size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    encoder.copyBufferToBuffer(buffer, 0, copy, 0, buffer.size);
    return copy;
  });
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) throw new Error(`${error.message}\n${code}`);
  const results: Record<string, Float32Array> = {};
  for (const [i, copy] of staging.entries()) {
    await copy.mapAsync(GPUMapMode.READ);
    const { name } = kernel.buffers[i]!;
    results[name] = new Float32Array(copy.getMappedRange().slice(0)).subarray(0, contents[name]!.length);
    copy.destroy();
    buffers[i]!.destroy();
  }
  return results;
}
