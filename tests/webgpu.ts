// tests/webgpu.ts: whether this machine has a WebGPU adapter for the compiler's target, and which. An emulated one counts:
// the tests ask for it by name. To have one without a GPU: Debian's chromium and libvulkan1, and
// VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json.
import { findGpu } from '../lib/backend.js';
import { gpuName, isSoftwareGpu } from '../lib/gpu.js';

const info = await findGpu();

export const hasWebgpu = info !== undefined;
export const isEmulated = info !== undefined && isSoftwareGpu(info);
/** For test names: the adapter, or why the tests are skipped. */
export const webgpuReason = info ? gpuName(info) : 'skipped: no WebGPU adapter on this machine';

if (isEmulated) process.env.RESPONSE_TIME_WEBGPU ??= info?.architecture || 'swiftshader';
