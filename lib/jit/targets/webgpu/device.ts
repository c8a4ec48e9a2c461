// lib/jit/targets/webgpu/device.ts: an adapter -> a device with all that the kernels can use of it: features, limits, and
// errors that say what to do. In Node through Dawn (npm package `webgpu`), in a browser through navigator.gpu.

import { type GpuInfo, gpuName, isSoftwareGpu, noGpuAdvice } from '../../../gpu.js';
import { type Features, matrixThreads } from '../../kernels/kernel.js';
import type { WgslOptions } from './wgsl.js';

export interface GpuOptions {
  /**
   * Accepts a GPU that is emulated on the CPU if its name has this in it, such as 'swiftshader'; default what the
   * environment says in RESPONSE_TIME_WEBGPU.
   */
  readonly software?: string | undefined;
  /** `emulated`: kernels for matrix units are taken, their units spelled out; for tests. Default: what the adapter has. */
  readonly matrices?: 'emulated' | undefined;
}

/** An open device and what it can do. */
export interface Gpu {
  readonly device: GPUDevice;
  /** Adapter and driver, for messages and for what is stored by adapter. */
  readonly name: string;
  readonly isSoftware: boolean;
  readonly features: Features;
  readonly wgsl: WgslOptions;
  readonly hasTimestamps: boolean;
  /** Throws what went wrong on the device since it was asked last: lost, out of memory, or our own mistake. */
  check(): void;
  close(): void;
}

/** Node's way to a GPU; undefined in a browser, where there is nothing to load. */
async function nodeGpu(): Promise<GPU | undefined> {
  if (typeof process === 'undefined' || !process.versions?.node) return undefined;
  const { openCompilerGpu } = await import('../../../backend.js');
  return openCompilerGpu();
}

function askedSoftware(): string | undefined {
  return typeof process === 'undefined' ? undefined : process.env?.RESPONSE_TIME_WEBGPU;
}

/**
 * Opens the machine's GPU.
 * @throws Error if there is none, or only one that is emulated and was not asked for (says what to do)
 */
export async function openGpu({ software = askedSoftware(), matrices }: GpuOptions = {}): Promise<Gpu> {
  const gpu = (await nodeGpu()) ?? (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  const adapter = await gpu?.requestAdapter({ powerPreference: 'high-performance' });
  if (!gpu || !adapter)
    throw new Error(`target webgpu: no GPU adapter: ${noGpuAdvice}. Take the target wasm instead`);
  const info = adapter.info as GpuInfo;
  const name = gpuName(info);
  const isSoftware = isSoftwareGpu(info);
  const isAsked = software && `${name} ${info.architecture}`.toLowerCase().includes(software.toLowerCase());
  if (isSoftware && !isAsked)
    throw new Error(
      `target webgpu: ${name} is no GPU but emulates one on the CPU, slower than the target wasm. ` +
        `To test on it, name it: RESPONSE_TIME_WEBGPU=${info.architecture || 'swiftshader'}`,
    );
  return openDevice(gpu, adapter, { name, isSoftware, matrices });
}

const wantedFeatures = [
  ...['shader-f16', 'subgroups', 'subgroup-size-control', 'timestamp-query'],
  'chromium-experimental-subgroup-matrix',
];

/** All that the adapter has of these: the defaults are the least that any adapter has. */
const wantedLimits = [
  ...['maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage'],
  ...['maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupStorageSize'],
] as const;

async function openDevice(
  gpu: GPU,
  adapter: GPUAdapter,
  { name, isSoftware, matrices }: Pick<Gpu, 'name' | 'isSoftware'> & Pick<GpuOptions, 'matrices'>,
): Promise<Gpu> {
  const limits = adapter.limits as unknown as Readonly<Record<string, number>>; // by the names above
  const device = await adapter.requestDevice({
    requiredFeatures: wantedFeatures.filter((each) => adapter.features.has(each)) as GPUFeatureName[],
    requiredLimits: Object.fromEntries(wantedLimits.map((limit) => [limit, limits[limit]!])),
  });
  const faults = new Faults(device, name);
  const language = (gpu as { wgslLanguageFeatures?: ReadonlySet<string> }).wgslLanguageFeatures;
  return {
    device,
    name,
    isSoftware,
    features: {
      ...featuresOf(device, adapter.info as SubgroupInfo, language),
      ...(matrices === 'emulated' ? { matrices: true } : {}),
    },
    wgsl: { subgroupId: language?.has('subgroup_id') ?? false, matrices: matrices ?? 'units' },
    hasTimestamps: device.features.has('timestamp-query'),
    check: () => faults.check(),
    close: () => faults.close(),
  };
}

/** Not yet in the types of every version. */
interface SubgroupInfo {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }>;
}

function featuresOf(
  device: GPUDevice,
  info: SubgroupInfo,
  language: ReadonlySet<string> | undefined,
): Features {
  const has = (feature: string): boolean => device.features.has(feature as GPUFeatureName);
  const { limits } = device;
  const { subgroupMinSize = 4, subgroupMaxSize = 128 } = info;
  return {
    f16: has('shader-f16'),
    subgroups: has('subgroups'),
    minSubgroupSize: has('subgroups') ? subgroupMinSize : 0,
    maxSubgroupSize: has('subgroups') ? subgroupMaxSize : 0,
    packedDot: language?.has('packed_4x8_integer_dot_product') ?? false,
    matrices: has('chromium-experimental-subgroup-matrix') && has('shader-f16') && hasMatrices(info),
    maxThreads: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
    maxSharedBytes: limits.maxComputeWorkgroupStorageSize,
    maxBuffers: limits.maxStorageBuffersPerShaderStage,
  };
}

/** True if the adapter multiplies both kinds of matrices that kernels are written for, in subgroups of their size. */
function hasMatrices({
  subgroupMinSize,
  subgroupMaxSize,
  subgroupMatrixConfigs = [],
}: SubgroupInfo): boolean {
  const known = Array.from(
    subgroupMatrixConfigs,
    ({ componentType, resultComponentType, M, N, K }) =>
      `${componentType} ${resultComponentType} ${M} ${N} ${K}`,
  );
  const isWhole = subgroupMinSize === matrixThreads && subgroupMaxSize === matrixThreads;
  return isWhole && ['f16 f32 16 16 16', 'i8 i32 16 16 32'].every((config) => known.includes(config));
}

/** What the device reported outside of any call. */
class Faults {
  #lost: string | undefined;
  #error: string | undefined;
  #isClosed = false;

  constructor(
    readonly device: GPUDevice,
    readonly name: string,
  ) {
    void device.lost.then(({ message }) => {
      if (!this.#isClosed) this.#lost = message || 'without a reason';
    });
    device.addEventListener('uncapturederror', (event) => {
      this.#error ??= (event as GPUUncapturedErrorEvent).error.message;
    });
  }

  check(): void {
    if (this.#lost !== undefined)
      throw new Error(
        `target webgpu: the GPU ${this.name} was lost (${this.#lost}): a reset, a driver update, or work of more than ` +
          "some seconds. Call closeTarget('webgpu') and compile and bind anew",
      );
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw new Error(`target webgpu: ${this.name} refused work: ${error}`);
  }

  close(): void {
    this.#isClosed = true;
    this.device.destroy();
  }
}
