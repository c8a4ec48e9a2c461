import { expect, test } from 'vitest';
import { selectBackend } from '../../lib/backend.js';
import { closeTarget } from '../../lib/jit/jit.js';
import { measureMemoryGBps } from '../../lib/notebook/bandwidth.js';

test("a target's memory is measured, where the target can", async () => {
  await selectBackend('cpu');
  expect(await measureMemoryGBps('wasm')).toBeGreaterThan(0.1);
  expect(await measureMemoryGBps('reference')).toBeNull();
  await closeTarget('wasm');
});
