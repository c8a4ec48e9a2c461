// 100 random graphs on the GPU against the reference interpreter: with the plain kernels, and with all.
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { Target } from '../../../lib/jit/target.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';
import { checkRandomGraphs } from '../randomGraphs.js';

describe.skipIf(!hasWebgpu).each(['plain', 'all'] as const)(`%s kernels (${webgpuReason})`, (kernels) => {
  let target: Target;
  beforeAll(async () => {
    target = await createWebgpuTarget({ kernels, guard: false });
  });
  afterAll(() => target.dispose());

  test('100 random graphs', () => checkRandomGraphs(target, kernels === 'plain' ? 100 : 40));
});
