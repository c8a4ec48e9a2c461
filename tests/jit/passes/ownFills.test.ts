import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { allocate, cachedAttention, openStep } from '../../../lib/cache.js';
import { checkGraph } from '../../../lib/jit/check.js';
import type { Graph } from '../../../lib/jit/graph.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { planMemory } from '../../../lib/jit/plan.js';
import { trace } from '../traced.js';

/** Two layers write into their new cache, and attend to it. */
function newCache(x: tf.Tensor, start: tf.Tensor): unknown {
  const spec = { layers: 2, kvHeads: 2, headDim: 4, capacity: 16, window: null };
  const position = tf.cast(tf.reshape(start, [1]), 'int32') as tf.Tensor1D;
  const step = openStep(allocate(spec, 1, 'fixed'), position, tf.tensor1d([3], 'int32'), 3);
  const heads = x as tf.Tensor4D; // [1, 2, 3, 4]
  const first = cachedAttention(step, 0, heads, heads, tf.mul(heads, 2), 0.5);
  const second = cachedAttention(step, 1, first, first, tf.mul(first, 2), 0.5);
  return [second, ...step.keys, ...step.values];
}

const traced = (): Graph => optimize(trace((x, start) => newCache(x!, start!), [[1, 2, 3, 4], [1]]));
const fills = (graph: Graph): number =>
  graph.nodes.filter(({ op, inputs }) => op === 'Elementwise' && inputs.length === 0).length;

test('each layer fills its own keys and values, and the plan copies nothing', () => {
  const graph = traced();
  checkGraph(graph);
  expect(fills(graph)).toBe(4);
  expect(planMemory(graph).steps.filter(({ kind }) => kind === 'copy')).toHaveLength(0);
});

test('where outputs come full of zeros nothing is filled', () => {
  const graph = traced();
  const [plain, zeroed] = [planMemory(graph), planMemory(graph, [], undefined, { zeroedOutputs: true })];
  expect(plain.steps.length - zeroed.steps.length).toBe(4);
});

test('zeros that are returned as well stay as they are', () => {
  const graph = optimize(
    trace(() => {
      const zeros = tf.fill([40, 2], 0);
      return [zeros, tf.tensorScatterUpdate(zeros, tf.tensor2d([[3]], [1, 1], 'int32'), tf.ones([1, 2]))];
    }, []),
  );
  checkGraph(graph);
  expect(fills(graph)).toBe(2);
  expect(planMemory(graph).steps.filter(({ kind }) => kind === 'copy')).toHaveLength(0);
});
