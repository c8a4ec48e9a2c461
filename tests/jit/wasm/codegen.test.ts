// The code of fixed graphs, as text files: a change that should change no code changes none of them.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, test } from 'vitest';
import { optimize } from '../../../lib/jit/optimize.js';
import { planMemory } from '../../../lib/jit/plan.js';
import { scan } from '../../../lib/jit/scan.js';
import { compilePlan } from '../../../lib/jit/targets/wasm/compile.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { linear } from '../../../lib/ops.js';
import { randomNumbers } from '../../smallModel.js';
import { numbers } from '../agree.js';
import { makeWeight } from './anyWeight.js';

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
  const plan = planMemory(optimize(traceFunction(fn as never, args).graph));
  const program = compilePlan(plan);
  expect(WebAssembly.validate(program.bytes)).toBe(true);
  await expect(program.listing()).toMatchFileSnapshot(`snapshots/${name}.wat`);
});

test('the same plan gives the same bytes', () => {
  const build = () =>
    compilePlan(
      planMemory(
        optimize(traceFunction(((x: tf.Tensor) => tf.softmax(x)) as never, [numbers([2, 9])]).graph),
      ),
    ).bytes;
  expect(build()).toEqual(build());
});
