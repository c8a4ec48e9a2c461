// lib/gpu.ts: what a WebGPU adapter says of itself -> its name, and whether it is a GPU at all. Pure: also for browsers.

/** What an adapter says of itself; empty strings where it says nothing. */
export interface GpuInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly isFallbackAdapter?: boolean;
}

/** Device and driver, as far as the adapter tells: 'nvidia-h100-80gb-hbm3, NVIDIA: 580.159.04'. */
export function gpuName({ vendor, architecture, device, description }: GpuInfo): string {
  return [device || [vendor, architecture].join(' ').trim(), description].filter(Boolean).join(', ');
}

/** True for a GPU that is emulated on the CPU. */
export function isSoftwareGpu(info: GpuInfo): boolean {
  const words = [info.vendor, info.architecture, info.device, info.description].join(' ');
  return (
    info.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|softpipe|basic render/i.test(words)
  );
}

/** A line for people who have no GPU: what to do. */
export const noGpuAdvice = 'a GPU with a Vulkan, Metal or Direct3D driver is needed';
