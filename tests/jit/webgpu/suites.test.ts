// The suites of tests/jit, run on this target: on an emulated GPU in a clone without one.
import { test } from 'vitest';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';

if (hasWebgpu) {
  process.env.RT_TEST_TARGET = 'webgpu';
  await import('../kernels.test.js');
  await import('../scan.test.js');
  await import('../jit.test.js');
  await import('../functions.test.js');
  await import('../operations.test.js');
  await import('../models.test.js');
}

test.skipIf(!hasWebgpu)(`the suites of tests/jit on webgpu (${webgpuReason})`, () => {});

test.runIf(process.env.RESPONSE_TIME_REQUIRE === 'webgpu')(
  'an adapter is here (RESPONSE_TIME_REQUIRE)',
  ({ expect }) => {
    expect(hasWebgpu, webgpuReason).toBe(true);
  },
);
