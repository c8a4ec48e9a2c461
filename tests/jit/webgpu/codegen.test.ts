// WGSL of fixed graphs on plain adapters, as text files: a change that should change no code changes none of them. And
// the printer: names that WGSL keeps for itself, numbers, what a text asks of the adapter.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildKernel, type KernelBuilder } from '../../../lib/jit/kernels/builder.js';
import { literal, vector } from '../../../lib/jit/kernels/expression.js';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import { reduceWorkgroup } from '../../../lib/jit/kernels/reduce.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { planMemory } from '../../../lib/jit/plan.js';
import { scan } from '../../../lib/jit/scan.js';
import { kernelsOf, lowerPlan } from '../../../lib/jit/targets/webgpu/lower.js';
import { printWgsl } from '../../../lib/jit/targets/webgpu/wgsl.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { linear } from '../../../lib/ops.js';
import { randomNumbers } from '../../smallModel.js';
import { makeWeight } from '../wasm/anyWeight.js';

beforeAll(async () => {
  await tf.setBackend('cpu');
});

const kernel = makeWeight('int8', [24, 18], 1, randomNumbers(3));
const graphs: Record<string, [(...args: tf.Tensor[]) => unknown, tf.Tensor[]]> = {
  elementwise: [(x) => tf.relu(tf.add(tf.mul(tf.transpose(x), 2), 1)), [tf.zeros([3, 6])]],
  linear: [(x) => tf.tanh(linear(x, kernel)), [tf.zeros([1, 24])]],
  scan: [(x) => scan((c) => ({ carry: tf.softmax(c), output: tf.argMax(c, -1) }), x, 3), [tf.zeros([2, 5])]],
};

test.each(Object.entries(graphs))('codegen: %s', async (name, [fn, args]) => {
  const plan = planMemory(optimize(traceFunction(fn as never, args).graph), [], undefined, {
    alignmentBytes: 256,
  });
  const options = { features: plainFeatures, bindingBytes: 2 ** 27, kernels: 'plain' } as const;
  const texts = [...kernelsOf(lowerPlan(plan, options).items)].map((each) => printWgsl(each));
  await expect(texts.join('\n')).toMatchFileSnapshot(`snapshots/${name}.wgsl`);
});

const print = (body: (k: KernelBuilder) => void, subgroupId = true): string =>
  printWgsl(buildKernel({ name: 'test', threads: 64 }, body), { subgroupId });

describe('the printer', () => {
  test('lets no name hide one of WGSL’s own', () => {
    const text = print((k) => {
      const target = k.buffer('target', 'f32', 'readWrite');
      const max = k.let('max', target.at(0).max(1));
      k.store(target, 1, max.max(2));
    });
    expect(text).toContain('var<storage, read_write> target_: array<f32>;');
    expect(text).toContain('let max_ = max(target_[0u], 1.0f);');
    expect(text).toContain('target_[1u] = max(max_, 2.0f);');
  });

  test.each([
    [0.1, '0.1f'],
    [1, '1.0f'],
    [-0, '-0.0f'],
    [1e-7, '1e-7f'],
    [16777216, '16777216.0f'],
    [Math.fround(Math.PI), '3.1415927f'],
    [Number.POSITIVE_INFINITY, 'bitcast<f32>(infinityBits)'],
    [Number.NaN, 'bitcast<f32>(infinityBits | 0x400000u)'],
  ])('writes %d as %s', (value, text) => {
    expect(print((k) => k.store(k.buffer('y', 'f32', 'readWrite'), 0, literal('f32', value)))).toContain(
      `y[0u] = ${text};`,
    );
  });

  test('asks for what is used, and for nothing on plain adapters', () => {
    const sum = (subgroups: boolean) => (k: KernelBuilder) => {
      const x = k.buffer('x', 'f32', 'readWrite');
      const features = { ...plainFeatures, subgroups, minSubgroupSize: 4 };
      const [total] = reduceWorkgroup(k, features, 'add', x.at(k.localIndex));
      k.store(x, 0, total!);
    };
    expect(print(sum(false))).not.toMatch(/enable|requires|subgroup/);
    expect(print(sum(true))).toMatch(/^enable subgroups;\nrequires subgroup_id;/);
    expect(print(sum(true), false)).toContain('(localIndex / subgroupSize)');
    const half = print((k) => k.store(k.buffer('y', 'f16', 'readWrite'), 0, 0.5));
    expect(half).toMatch(/^enable f16;/);
    expect(half).toContain('0.5h');
  });

  test('names are made unique, functions are printed once, parameters come last', () => {
    const text = print((k) => {
      const y = k.buffer('y', 'f32x4', 'readWrite');
      const scale = k.parameter('scale', 'f32');
      const a = k.let('value', y.at(0));
      const b = k.let('value', a.mul(vector(scale, scale, scale, scale)));
      k.store(y, 0, b);
    });
    expect(text).toContain('@binding(1) var<uniform> parameters: Parameters;');
    expect(text).toContain('let value1 = (value * vec4<f32>(parameters.scale');
  });
});

describe('the language refuses', () => {
  test.each<[string, (k: KernelBuilder) => unknown, RegExp]>([
    [
      'operands of two types',
      (k) => literal('f32', 1).add(k.localIndex),
      /add: expected an operand of f32, received u32/,
    ],
    [
      'a lane that is not there',
      () => literal('f32x2', 1).lane(2),
      /lane: expected 0 to 1 of f32x2, received 2/,
    ],
    ['a vector of three', () => vector(literal('f32', 1), literal('f32x2', 1)), /2 or 4 lanes, received 3/],
    [
      'a store of another type',
      (k) => k.store(k.shared('s', 'i32', 4), 0, literal('f32', 1)),
      /store to s: expected/,
    ],
    ['a condition that is a number', (k) => k.if(k.localIndex, () => {}), /if: expected an operand of bool/],
  ])('%s', (_, body, message) => {
    expect(() => print(body)).toThrow(message);
  });
});
