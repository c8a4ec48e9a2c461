import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { findNativePackage, selectBackend } from '../lib/backend.js';
import { gpuName, isSoftwareGpu } from '../lib/gpu.js';
import { EXPECTED_PRODUCT, runBackend } from './backendProcess.js';

const scratch = mkdtempSync(join(tmpdir(), 'backend-'));
afterAll(() => rmSync(scratch, { recursive: true }));

// No native package and no GPU, whatever this machine has.
const BARE = {
  RESPONSE_TIME_CACHE: join(scratch, 'no-cache'),
  RESPONSE_TIME_TFJS_NODE: '',
  VK_DRIVER_FILES: join(scratch, 'no-driver.json'),
};

describe('in a process of its own', () => {
  test.each(['wasm', 'cpu'] as const)('%s computes and writes nothing to stderr', (name) => {
    const run = runBackend(name, BARE);
    expect(run.stderr).toBe('');
    expect(run).toMatchObject({ status: 0, current: name, product: EXPECTED_PRODUCT });
    expect(run.backend).toMatchObject({ name, reason: 'asked for by name', refused: [] });
  });

  test('auto without a native package and a GPU takes wasm and says why, silently', () => {
    const run = runBackend('auto', BARE);
    expect(run.stderr).toBe('');
    expect(run).toMatchObject({ status: 0, current: 'wasm', product: EXPECTED_PRODUCT });
    expect(run.backend?.refused.map(({ name }) => name)).toEqual(['tensorflow', 'webgpu']);
    expect(run.backend?.reason).toMatch(/no tensorflow \(.*npm run native.*no webgpu \(no GPU adapter/s);
  });

  test('a backend that cannot start is refused by name', () => {
    const run = runBackend('tensorflow', BARE);
    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(/backend tensorflow cannot be used here: .*npm run native.* Take another/);
  });
});

test('an unknown backend is refused with the list of those known', async () => {
  await expect(selectBackend('webgl' as 'wasm')).rejects.toThrow(
    /expected auto, tensorflow, webgpu, wasm, cpu, received webgl/,
  );
});

describe('the native package', () => {
  const install = (modules: string, folder: string, name: string, binding: boolean) => {
    const at = join(scratch, modules, ...folder.split('/'));
    mkdirSync(join(at, 'lib', 'napi-v8'), { recursive: true });
    writeFileSync(join(at, 'package.json'), JSON.stringify({ name }));
    if (binding) writeFileSync(join(at, 'lib', 'napi-v8', 'tfjs_binding.node'), '');
    return at;
  };
  const find = (modules: string) =>
    findNativePackage({ ...BARE, RESPONSE_TIME_TFJS_NODE: join(scratch, modules) });

  test('an alias under its name is not taken for it, nor a copy without its binding', () => {
    install('alias', '@tensorflow/tfjs-node', '@tensorflow/tfjs', true);
    expect(find('alias')).toBeUndefined();
    install('unbuilt', '@tensorflow/tfjs-node', '@tensorflow/tfjs-node', false);
    expect(find('unbuilt')).toBeUndefined();
  });

  test('one that does not load is refused with its reason, and auto goes on', () => {
    const at = install('broken', '@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node-gpu', true);
    writeFileSync(join(at, 'index.js'), 'throw new Error("libcudart.so.12: cannot open shared object file")');
    const run = runBackend('auto', { ...BARE, RESPONSE_TIME_TFJS_NODE: join(scratch, 'broken') });
    expect(run.stderr).toBe('');
    expect(run).toMatchObject({ status: 0, current: 'wasm', product: EXPECTED_PRODUCT });
    expect(run.backend?.refused[0]?.reason).toBe(
      `@tensorflow/tfjs-node-gpu in ${at} does not load: libcudart.so.12: cannot open shared object file`,
    );
  });

  test('the GPU build comes first, wherever it lies', () => {
    const cpu = install('both', '@tensorflow/tfjs-node', '@tensorflow/tfjs-node', true);
    expect(find('both')).toEqual({ name: '@tensorflow/tfjs-node', folder: cpu });
    const gpu = install(
      'cache/native/gpu/node_modules',
      '@tensorflow/tfjs-node-gpu',
      '@tensorflow/tfjs-node-gpu',
      true,
    );
    expect(
      findNativePackage({
        RESPONSE_TIME_TFJS_NODE: join(scratch, 'both'),
        RESPONSE_TIME_CACHE: join(scratch, 'cache'),
      }),
    ).toEqual({ name: '@tensorflow/tfjs-node-gpu', folder: gpu });
  });
});

test('emulated GPUs are known by what their adapters say', () => {
  const info = (description: string, vendor = '') => ({ vendor, architecture: '', device: '', description });
  expect(isSoftwareGpu(info('SwiftShader driver 5.0.0', 'google'))).toBe(true);
  expect(isSoftwareGpu(info('llvmpipe (LLVM 15.0.6, 256 bits)', 'mesa'))).toBe(true);
  expect(isSoftwareGpu(info('Microsoft Basic Render Driver', 'microsoft'))).toBe(true);
  expect(isSoftwareGpu({ ...info('anything'), isFallbackAdapter: true })).toBe(true);
  expect(isSoftwareGpu({ ...info('NVIDIA H100 80GB HBM3', 'nvidia'), isFallbackAdapter: false })).toBe(false);
  expect(isSoftwareGpu(info('Apple M3', 'apple'))).toBe(false);
});

test('a GPU is called by its device and driver, or by what it says', () => {
  const silent = { vendor: '', architecture: '', device: '', description: '' };
  const h100 = { vendor: 'nvidia', device: 'nvidia-h100-80gb-hbm3', description: 'NVIDIA: 580.159.04' };
  expect(gpuName({ ...silent, ...h100 })).toBe('nvidia-h100-80gb-hbm3, NVIDIA: 580.159.04');
  expect(gpuName({ ...silent, vendor: 'apple', architecture: 'metal-3' })).toBe('apple metal-3');
});
