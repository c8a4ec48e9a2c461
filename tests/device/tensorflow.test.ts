import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { findNativePackage } from '../../lib/backend.js';
import { EXPECTED_PRODUCT, runBackend } from '../backendProcess.js';

const native = findNativePackage();
const reason = native ? native.name : 'skipped: TensorFlow is not installed, run: npm run native';

describe.skipIf(!native)(`TensorFlow's native backend (${reason})`, () => {
  test('auto takes it first, it computes, and stderr stays empty', () => {
    const run = runBackend('auto');
    expect(run.stderr).toBe('');
    expect(run).toMatchObject({ status: 0, current: 'tensorflow', product: EXPECTED_PRODUCT });
    expect(run.backend).toMatchObject({ name: 'tensorflow', reason: 'the best of the four', refused: [] });
    expect(run.backend?.device).toMatch(/^TensorFlow \d+\.\d+\.\d+, (CPU|CUDA GPU)/);
  });
});

test.runIf(process.env.RESPONSE_TIME_REQUIRE === 'tensorflow')(
  'it is installed (RESPONSE_TIME_REQUIRE)',
  () => {
    expect(native?.name).toBe('@tensorflow/tfjs-node');
  },
);

test('npm run native refuses a variant that it does not know', () => {
  const script = fileURLToPath(new URL('../../scripts/native.sh', import.meta.url));
  const { status, stderr } = spawnSync('sh', [script, 'tpu'], { encoding: 'utf8' });
  expect(stderr).toBe("native: expected cpu or gpu, received 'tpu'\n");
  expect(status).toBe(1);
});
