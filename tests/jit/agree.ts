// tests/jit/agree.ts: runs a function eagerly on tfjs's cpu backend and compiled, and compares.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { expect } from 'vitest';
import type { JitOptions, TargetName } from '../../lib/jit/jit.js';
import { jit } from '../../lib/jit/jit.js';
import { flatten } from '../../lib/jit/trees.js';

/** Target that the suites run on; the wasm suite sets it. */
export const defaultTarget: TargetName =
  (process.env.RT_TEST_TARGET as TargetName | undefined) ?? 'reference';

/** Tensors of a tree with what is compared of each. */
async function read(
  tree: unknown,
): Promise<{ path: string; dtype: string; shape: number[]; values: number[] }[]> {
  return Promise.all(
    flatten(tree).tensors.map(async ({ tensor, path }) => {
      const { dtype, shape } = tensor;
      return { path, dtype, shape, values: Array.from(await tensor.data()) };
    }),
  );
}

function largest(values: readonly number[]): number {
  return values.reduce((max, value) => (Number.isFinite(value) ? Math.max(max, Math.abs(value)) : max), 0);
}

/**
 * Fails unless every value is within `tolerance` of the largest magnitude; NaN and infinities have to be the same.
 * @param least magnitude to compare with at least: that of the terms, where sums may cancel
 */
export function expectClose(
  received: readonly number[],
  expected: readonly number[],
  tolerance = 1e-5,
  least = 1e-3,
): void {
  expect(received.length).toBe(expected.length);
  const allowed = tolerance * Math.max(largest(expected), least);
  for (const [i, value] of expected.entries()) {
    const other = received[i]!;
    const same = Object.is(value, other) || value === other || Math.abs(value - other) <= allowed;
    if (!same) throw new Error(`element ${i}: expected ${value}, received ${other} (allowed ${allowed})`);
  }
}

/** Compiles a function, runs it, and compares types, shapes and values with an eager run. */
export async function agrees<Args extends unknown[]>(
  fn: (...args: Args) => unknown,
  args: Args,
  options: JitOptions & { tolerance?: number } = {},
): Promise<void> {
  await tf.setBackend('cpu');
  const eager = fn(...args);
  const compiled = jit(fn, { target: defaultTarget, check: true, ...options });
  const result = await compiled(...args);
  const [expected, received] = [await read(eager), await read(result)];
  expect(received.map(({ path, dtype, shape }) => ({ path, dtype, shape }))).toEqual(
    expected.map(({ path, dtype, shape }) => ({ path, dtype, shape })),
  );
  for (const [i, { values }] of expected.entries())
    expectClose(received[i]!.values, values, options.tolerance);
  compiled.dispose();
}

/** Numbers that look random and are the same each time, in -2..2. */
export function numbers(shape: number[], seed = 1): tf.Tensor {
  const size = tf.util.sizeFromShape(shape);
  const values = Float32Array.from({ length: size }, (_, i) => 2 * Math.sin((i + 1) * 12.9898 * seed + seed));
  return tf.tensor(values, shape, 'float32');
}

/** Integers in -5..5, or in 0..below - 1. */
export function integers(shape: number[], below?: number): tf.Tensor {
  const size = tf.util.sizeFromShape(shape);
  const values = Int32Array.from({ length: size }, (_, i) =>
    below ? (i * 7 + 3) % below : ((i * 7 + 3) % 11) - 5,
  );
  return tf.tensor(values, shape, 'int32');
}

export function flags(shape: number[]): tf.Tensor {
  const size = tf.util.sizeFromShape(shape);
  return tf.tensor(
    Array.from({ length: size }, (_, i) => (i * 5) % 3 === 0),
    shape,
    'bool',
  );
}
