// lib/backend.ts: which tfjs backend computes here, and why none of the better ones does.
// In: a wish -> out: the chosen backend, made current in tfjs, with a reason for the choice and for each refusal.
// From best to last: tensorflow (native), webgpu (a real GPU, through Dawn), wasm (SIMD), cpu (JavaScript).
// Source: the four backends' README files; measurements of the flags are named where they are set.

import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as tf from '@tensorflow/tfjs-core';
import { type GpuInfo, gpuName, isSoftwareGpu, noGpuAdvice } from './gpu.js';
import { cacheFolder, type Environment } from './paths.js';

export const BACKENDS = ['tensorflow', 'webgpu', 'wasm', 'cpu'] as const;
export type BackendName = (typeof BACKENDS)[number];

export interface Backend {
  readonly name: BackendName;
  /** What computes: 'TensorFlow 2.20.0, CPU', the GPU's name, 'WebAssembly SIMD, 1 thread', 'JavaScript'. */
  readonly device: string;
  /** One sentence: why this one. */
  readonly reason: string;
  /** The better backends that could not be taken, best first. */
  readonly refused: readonly Refusal[];
}

export interface Refusal {
  readonly name: BackendName;
  readonly reason: string;
}

export interface BackendOptions {
  /** Accept a GPU that is emulated on the CPU (SwiftShader, llvmpipe): for tests, far slower than wasm. */
  readonly softwareGpu?: boolean;
}

/** What starting a backend gives: the device it computes on, or why it cannot. */
type Started = { readonly device: string } | { readonly unavailable: string };

const requireHere = createRequire(import.meta.url);
const STARTERS = {
  tensorflow: startTensorflow,
  webgpu: startWebgpu,
  wasm: startWasm,
  cpu: startCpu,
} satisfies Record<BackendName, (options: BackendOptions) => Promise<Started>>;

/**
 * Makes the best available tfjs backend current, or the one asked for.
 * @param preference 'auto' takes the first of BACKENDS that starts
 * @throws RangeError if the preference is no backend (gives the list)
 * @throws Error if the backend asked for cannot start (gives the reason and what to do)
 */
export async function selectBackend(
  preference: BackendName | 'auto' = 'auto',
  options: BackendOptions = {},
): Promise<Backend> {
  if (preference !== 'auto' && !BACKENDS.includes(preference)) {
    throw new RangeError(`backend: expected auto, ${BACKENDS.join(', ')}, received ${preference}`);
  }
  // Production mode only silences tfjs: its banner on the first cpu tensor, and a line for every kernel that a second
  // copy of tfjs (tfjs-node brings one) registers again. No result depends on it.
  tf.env().set('PROD', true);
  const refused: Refusal[] = [];
  for (const name of preference === 'auto' ? BACKENDS : [preference]) {
    const started = await STARTERS[name](options);
    if ('unavailable' in started) {
      refused.push({ name, reason: started.unavailable });
      continue;
    }
    if (!(await tf.setBackend(name))) {
      refused.push({ name, reason: `tfjs could not start it on ${started.device}` });
      continue;
    }
    const reason = preference === 'auto' ? reasonFor(name, refused) : 'asked for by name';
    return { name, device: started.device, reason, refused };
  }
  throw new Error(
    `backend ${preference} cannot be used here: ${refused[0]?.reason}. Take another, or auto for the best there is`,
  );
}

function reasonFor(name: BackendName, refused: readonly Refusal[]): string {
  if (refused.length === 0) return 'the best of the four';
  return `the best of those available: ${refused.map((other) => `no ${other.name} (${other.reason})`).join('; ')}${
    name === 'cpu' ? '. Expect it to be some ten times slower than wasm' : ''
  }`;
}

// tensorflow ---------------------------------------------------------------------------------------------------------

/** A folder with a working copy of tfjs-node or tfjs-node-gpu. */
export interface NativePackage {
  readonly name: '@tensorflow/tfjs-node-gpu' | '@tensorflow/tfjs-node';
  readonly folder: string;
}

/**
 * Finds TensorFlow's native package with its compiled binding, the GPU build first: in RESPONSE_TIME_TFJS_NODE
 * (a node_modules folder), in this project, in the folders that `npm run native` fills.
 * @returns undefined when none is installed; the package that only borrows the name (danfojs's override) never counts
 */
export function findNativePackage(environment: Environment = process.env): NativePackage | undefined {
  const chosen = environment.RESPONSE_TIME_TFJS_NODE;
  const native = join(cacheFolder(environment), 'native');
  const modules = [
    ...(chosen ? chosen.split(delimiter).map((folder) => resolve(folder)) : []),
    ...(requireHere.resolve.paths('@tensorflow/tfjs-node') ?? []),
    join(native, 'gpu', 'node_modules'),
    join(native, 'cpu', 'node_modules'),
  ];
  for (const name of ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const) {
    const folder = modules
      .map((path) => join(path, ...name.split('/')))
      .find((path) => isNativePackage(path, name));
    if (folder) return { name, folder };
  }
  return undefined;
}

function isNativePackage(folder: string, name: string): boolean {
  const manifest = join(folder, 'package.json');
  if (!existsSync(manifest) || !existsSync(join(folder, 'lib'))) return false;
  if ((JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }).name !== name) return false;
  return readdirSync(join(folder, 'lib')).some((abi) =>
    existsSync(join(folder, 'lib', abi, 'tfjs_binding.node')),
  );
}

interface TensorflowBackend {
  readonly isUsingGpuDevice: boolean;
  readonly binding: { readonly TF_Version: string };
}

async function startTensorflow(): Promise<Started> {
  const native = findNativePackage();
  if (!native) return { unavailable: 'TensorFlow is not installed: npm run native [-- gpu]' };
  // Set before the library loads; what the user chose stays. Log level 3 keeps TensorFlow's greetings off stderr.
  // oneDNN costs a third of the speed at batch 1: 26 to 30 ms for GPT-2's layers, 17 to 21 without (two cores).
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '3';
  process.env.TF_ENABLE_ONEDNN_OPTS ??= '0';
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= 'true';
  try {
    createRequire(join(native.folder, 'package.json'))(native.folder);
  } catch (error) {
    return { unavailable: `${native.name} in ${native.folder} does not load: ${firstLine(error)}` };
  }
  // tfjs-node holds its own copy of tfjs-core, but all copies in a process share one engine and its registry.
  const backend = tf.findBackend('tensorflow') as unknown as TensorflowBackend; // its types are in a package that may be absent
  if (!backend) return { unavailable: `${native.name} in ${native.folder} registered no backend` };
  const cpu = native.name.endsWith('-gpu') ? 'CPU (no CUDA device was found)' : 'CPU';
  return {
    device: `TensorFlow ${backend.binding.TF_Version}, ${backend.isUsingGpuDevice ? 'CUDA GPU' : cpu}`,
  };
}

// webgpu -------------------------------------------------------------------------------------------------------------

/** Float16 and subgroup matrices on NVIDIA's driver need these; without them the adapter still works. */
const DAWN_FEATURES = ['vulkan_enable_f16_on_nvidia', 'allow_unsafe_apis'];

function dawnFlags(features: readonly string[]): string[] {
  return [
    `enable-dawn-features=${features.join(',')}`,
    'disable-dawn-features=timestamp_quantization', // a kernel takes less than the 0.1 ms that times are rounded to
  ];
}

const DAWN_FLAGS = dawnFlags(DAWN_FEATURES);

/**
 * The GPU that Dawn finds, asked in a process of its own: where Vulkan is missing or broken, Dawn writes to stderr or
 * ends the process, and neither may happen here.
 * @returns the adapter's description, or undefined if there is none
 */
export function findGpu(): Promise<GpuInfo | undefined> {
  const script = `
    import { create } from ${JSON.stringify(pathToFileURL(requireHere.resolve('webgpu')).href)};
    const gpu = create(${JSON.stringify(DAWN_FLAGS)});
    const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter?.info ?? {};
    if (adapter) console.log(JSON.stringify({ vendor, architecture, device, description, isFallbackAdapter }));
    process.exit(gpu ? 0 : 1);`;
  return new Promise((found) => {
    const settings = { timeout: 20_000 };
    execFile(process.execPath, ['--input-type=module', '--eval', script], settings, (error, stdout) => {
      found(error || stdout === '' ? undefined : (JSON.parse(stdout) as GpuInfo));
    });
  });
}

async function startWebgpu({ softwareGpu = false }: BackendOptions): Promise<Started> {
  const info = await findGpu();
  if (!info) return { unavailable: `no GPU adapter: ${noGpuAdvice}` };
  const name = gpuName(info);
  if (isSoftwareGpu(info) && !softwareGpu) {
    return { unavailable: `${name} is no GPU but emulates one on the CPU` };
  }
  if (!tf.findBackendFactory('webgpu')) await registerWebgpu();
  return { device: name };
}

async function registerWebgpu(): Promise<void> {
  await openNodeGpu();
  await import('@tensorflow/tfjs-backend-webgpu'); // registers itself now that navigator.gpu is there
}

/** Dawn as navigator.gpu, opened once. Ask findGpu first: without a driver Dawn may end the process. */
export async function openNodeGpu(): Promise<GPU> {
  const held = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (held) return held;
  const gpu = await createGpu(DAWN_FLAGS);
  // Node before 21 has no navigator. It also keeps `gpu` alive: collected, it would take the process down.
  if (!('navigator' in globalThis)) Object.defineProperty(globalThis, 'navigator', { value: {} });
  Object.defineProperty(globalThis.navigator, 'gpu', { value: gpu, configurable: true });
  return gpu;
}

let compilerGpu: Promise<GPU | undefined> | undefined;

/**
 * Dawn for the compiler's kernels, which check all that they read and write by themselves: without Dawn's own checks
 * Mistral-7B writes 455 tokens/s on an H200 instead of 394. tfjs's kernels keep them. Opened once.
 * @returns undefined if there is no GPU; the next call asks again
 */
export async function openCompilerGpu(): Promise<GPU | undefined> {
  const flags = dawnFlags([...DAWN_FEATURES, 'disable_robustness']);
  compilerGpu ??= findGpu().then((info) => (info ? createGpu(flags) : undefined));
  const gpu = await compilerGpu;
  if (!gpu) compilerGpu = undefined;
  return gpu;
}

async function createGpu(flags: string[]): Promise<GPU> {
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals); // GPUBufferUsage and its like, which are globals in browsers
  return create(flags);
}

// wasm and cpu -------------------------------------------------------------------------------------------------------

async function startWasm(): Promise<Started> {
  const wasm = await import('@tensorflow/tfjs-backend-wasm');
  const simd = await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT');
  if (!simd) return { unavailable: 'this processor or Node has no WebAssembly SIMD' };
  // Its threads need a browser's workers: in Node more than one is unusably slow.
  tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
  wasm.setThreadsCount(1);
  if (tf.findBackend('wasm') === null) {
    wasm.setWasmPaths(dirname(requireHere.resolve('@tensorflow/tfjs-backend-wasm')) + sep);
    await withoutNewCrashHandlers(() => tf.setBackend('wasm'));
  }
  return { device: 'WebAssembly SIMD, 1 thread' };
}

/**
 * Drops the process-wide handlers that a start leaves behind: Emscripten's rethrow every uncaught error, which hides
 * the line that threw it, and in a notebook they would take the kernel down.
 */
async function withoutNewCrashHandlers(start: () => Promise<unknown>): Promise<void> {
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = events.map((event) => new Set<unknown>(process.listeners(event as 'exit')));
  await start();
  events.forEach((event, i) => {
    for (const listener of process.listeners(event as 'exit')) {
      if (!before[i]!.has(listener)) process.off(event, listener);
    }
  });
}

async function startCpu(): Promise<Started> {
  await import('@tensorflow/tfjs-backend-cpu');
  return { device: 'JavaScript, 1 thread' };
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split('\n')[0]!;
}
