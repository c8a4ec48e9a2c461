// Every target against the reference interpreter: random graphs, all passes on. tests/jit/webgpu has the GPU's.
import { test } from 'vitest';
import { openTarget, type TargetName } from '../../lib/jit/targets.js';
import { checkRandomGraphs } from './randomGraphs.js';

const targets: TargetName[] = ['wasm'];

test.each(targets)('500 random graphs on %s', { timeout: 60_000 }, async (name) => {
  await checkRandomGraphs(await openTarget(name), 500);
});
