// All passes together: 500 random graphs compute the same with and without them, and stay well-formed after each.
import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isKernelNode } from '../../lib/jit/graph.js';
import { optimize } from '../../lib/jit/optimize.js';
import { traceFunction } from '../../lib/jit/trace.js';
import { expectClose } from './agree.js';
import { randomFunctions, runSteps } from './randomFunctions.js';
import { runGraph } from './traced.js';

test('500 random graphs compute the same after all passes', () => {
  fc.assert(
    fc.property(randomFunctions, (random) => {
      const inputs = [tf.zeros([...random.shape]), tf.zeros([...random.shape])];
      const { graph } = traceFunction((...args: tf.Tensor[]) => runSteps(random, args), inputs);
      const optimized = optimize(graph, { check: true });
      const [expected, received] = [runGraph(graph), runGraph(optimized)];
      for (const [i, { values }] of expected.entries())
        expectClose(Array.from(received[i]!.values), Array.from(values), 2e-5, 4);
      const isLow = optimized.nodes.every(
        (node) => isKernelNode(node) || node.op === 'Reshape' || node.op === 'Constant',
      );
      expect(isLow).toBe(true);
    }),
    { numRuns: 500, seed: 5 },
  );
});

test('100 random graphs compute the same with only the passes that targets need', () => {
  fc.assert(
    fc.property(randomFunctions, (random) => {
      const inputs = [tf.zeros([...random.shape]), tf.zeros([...random.shape])];
      const { graph } = traceFunction((...args: tf.Tensor[]) => runSteps(random, args), inputs);
      const [expected, received] = [runGraph(graph), runGraph(optimize(graph, { fuse: false, check: true }))];
      for (const [i, { values }] of expected.entries()) expect(received[i]!.values).toEqual(values);
    }),
    { numRuns: 100, seed: 6 },
  );
});
