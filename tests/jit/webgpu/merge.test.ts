// Small dispatches side by side: which ones may be, and what their kernel looks like. No GPU.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { expect, test } from 'vitest';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import { writtenArrays } from '../../../lib/jit/kernels/side.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { planMemory } from '../../../lib/jit/plan.js';
import { type Dispatch, useKey } from '../../../lib/jit/targets/webgpu/dispatch.js';
import { lowerPlan } from '../../../lib/jit/targets/webgpu/lower.js';
import { printWgsl } from '../../../lib/jit/targets/webgpu/wgsl.js';
import { trace } from '../traced.js';

function dispatchesOf(fn: (...args: tf.Tensor[]) => unknown, shapes: number[][], maxBuffers = 8): Dispatch[] {
  const plan = planMemory(optimize(trace(fn, shapes)), [], undefined, { alignmentBytes: 256 });
  const { items } = lowerPlan(plan, { features: { ...plainFeatures, maxBuffers }, bindingBytes: 2 ** 31 });
  return items.flatMap((item) => (item.kind === 'dispatch' ? [item.dispatch] : []));
}

const three = (x: tf.Tensor) => [tf.mul(x, 2), tf.reverse(x, 0), tf.neg(tf.slice(x, [0], [70]))];

test('three that read the same value are one', () => {
  const [only, ...others] = dispatchesOf((x) => three(x!), [[100]]);
  expect(others).toHaveLength(0);
  expect(only!.workgroups).toEqual([6, 1, 1]);
  expect(only!.buffers.map(useKey)).toEqual(['input 0', 'output 0', 'output 1', 'output 2']);
  expect(printWgsl(only!.kernel)).toMatchInlineSnapshot(`
    "@group(0) @binding(0) var<storage, read> memory0: array<f32>;
    @group(0) @binding(1) var<storage, read_write> memory1: array<f32>;
    @group(0) @binding(2) var<storage, read_write> memory2: array<f32>;
    @group(0) @binding(3) var<storage, read_write> memory3: array<f32>;
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
      if ((workgroup.x < 2u)) {
        let ownGroup = workgroup.x;
        let index = ((ownGroup * 64u) + localIndex);
        if ((index >= 100u)) {
          return;
        }
        let element = i32(index);
        let value0 = memory0[element];
        memory1[index] = (value0 * 2.0f);
      } else {
        if ((workgroup.x < 4u)) {
          let ownGroup = (workgroup.x - 2u);
          let index = ((ownGroup * 64u) + localIndex);
          if ((index >= 100u)) {
            return;
          }
          let element = ((i32(index) * -1i) + 99i);
          let value0 = memory0[element];
          memory2[index] = value0;
        } else {
          let ownGroup = (workgroup.x - 4u);
          let index = ((ownGroup * 64u) + localIndex);
          if ((index >= 70u)) {
            return;
          }
          let element = i32(index);
          let value0 = memory0[element];
          memory3[index] = (-value0);
        }
      }
    }
    "
  `);
});

test('one that reads what another writes comes after it', () => {
  const fn = (x: tf.Tensor) => [tf.mul(x, 2), tf.cumsum(x, 0), tf.add(tf.cumsum(x, 0), 1), tf.neg(x)];
  const names = dispatchesOf((x) => fn(x!), [[100]]).map(({ kernel }) => kernel.name);
  expect(names).toEqual(['elementwise', 'cumulativeSum', 'elementwise side by side']);
});

test('a small one joins another across a product that has nothing to do with it', () => {
  const dispatches = dispatchesOf(
    (x, y) => [tf.mul(x!, 2), tf.matMul(y!, y!), tf.add(x!, 1)],
    [[100], [8, 8]],
  );
  expect(dispatches.map(({ kernel }) => kernel.name)).toEqual(['elementwise side by side', 'batchMatMul']);
});

test('a kernel has no more buffers than the adapter can bind', () => {
  const dispatches = dispatchesOf((x, y) => [...three(x!), ...three(y!)], [[100], [100]], 4);
  expect(dispatches.map(({ buffers }) => buffers.length)).toEqual([4, 4]);
});

test('memory that is used again is not written while it is read', () => {
  // Sums are stored one after another, two chains in turns, in an arena that has little more than what they need.
  const chains = (x: tf.Tensor, y: tf.Tensor) => {
    let held = [x, y];
    for (let i = 0; i < 6; i++)
      held = held.map((each) => tf.gather(tf.reverse(each, 0), each as tf.Tensor1D));
    return held;
  };
  const plan = planMemory(
    optimize(trace((x, y) => chains(tf.cast(x!, 'int32'), tf.cast(y!, 'int32')), [[9000], [9000]])),
  );
  const { items } = lowerPlan(plan, { features: plainFeatures, bindingBytes: 2 ** 31 });
  expect(items.length).toBeLessThan(plan.steps.length);
  for (const item of items) {
    if (item.kind !== 'dispatch') continue;
    const { kernel, buffers } = item.dispatch;
    const written = writtenArrays(kernel);
    const keys = buffers.map(useKey);
    expect(new Set(keys).size).toBe(keys.length); // the same memory under two names could not be written
    expect(written.size).toBeGreaterThan(0);
  }
});
