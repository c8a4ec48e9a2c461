import { describe, expect, test } from 'vitest';
import { findGpu } from '../../lib/backend.js';
import { isSoftwareGpu } from '../../lib/gpu.js';
import { EXPECTED_PRODUCT, runBackend } from '../backendProcess.js';

const info = await findGpu();
const software = info !== undefined && isSoftwareGpu(info);
const reason = info ? info.description : 'skipped: no WebGPU adapter on this machine';

describe.skipIf(!info)(`tfjs's webgpu backend (${reason})`, () => {
  test('it computes, survives a garbage collection, and stderr stays empty', () => {
    const run = runBackend('webgpu', {}, true, ['--expose-gc']);
    expect(run.stderr).toBe('');
    expect(run).toMatchObject({ status: 0, current: 'webgpu', product: EXPECTED_PRODUCT });
  });

  test('an emulated GPU is refused unless asked for, a real one is taken', () => {
    const run = runBackend('webgpu');
    expect(run.status).toBe(software ? 1 : 0);
    if (software) expect(run.stderr).toMatch(/is no GPU but emulates one on the CPU/);
  });
});
