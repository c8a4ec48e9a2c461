// tests/backendProcess.ts: selects a backend in a process of its own and computes with it:
// preference -> what selectBackend returned, the product, and all that was written to stderr.

import { spawnSync } from 'node:child_process';
import type { Backend } from '../lib/backend.js';
import { built } from './built.js';

export interface BackendProcess {
  readonly status: number | null;
  readonly stderr: string;
  readonly backend?: Backend;
  readonly current?: string;
  readonly product?: number[];
}

/** @param environment added to this process's own */
export function runBackend(
  preference: string,
  environment: Record<string, string> = {},
  softwareGpu = false,
  nodeFlags: string[] = [],
): BackendProcess {
  const script = `
    import { createRequire } from 'node:module';
    import { selectBackend } from ${JSON.stringify(built('backend'))};
    const tf = createRequire(${JSON.stringify(built('backend'))})('@tensorflow/tfjs-core');
    const backend = await selectBackend(${JSON.stringify(preference)}, { softwareGpu: ${softwareGpu} });
    globalThis.gc?.();
    // Odd sizes, so that a kernel that pads or vectorizes is put to the test; then a rounding that once gave zeros.
    const a = tf.tensor2d(Float32Array.from({ length: 15 }, (_, i) => i), [3, 5]);
    const product = tf.cast(tf.round(tf.add(tf.matMul(a, a, false, true), 0.25)), 'int32');
    const values = Array.from(await tf.round(product).data());
    console.log(JSON.stringify({ backend, current: tf.getBackend(), product: values }));`;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [...nodeFlags, '--input-type=module', '--eval', script],
    { encoding: 'utf8', env: { ...process.env, ...environment } },
  );
  return { status, stderr, ...(stdout ? JSON.parse(stdout) : {}) };
}

/** [3, 3]: rows 0..4, 5..9, 10..14 times themselves. */
export const EXPECTED_PRODUCT = [30, 80, 130, 80, 255, 430, 130, 430, 730];
