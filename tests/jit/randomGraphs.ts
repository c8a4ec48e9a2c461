// tests/jit/randomGraphs.ts: random graphs, all passes on, on a target against the reference interpreter.
import type * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import type { Target } from '../../lib/jit/target.js';
import { numbers } from './agree.js';
import { checkOnTarget } from './onTarget.js';
import { randomFunctions, runSteps } from './randomFunctions.js';

/** Runs so many random graphs, always the same ones. @throws Error with the smallest graph that differs */
export async function checkRandomGraphs(target: Target, numRuns: number): Promise<void> {
  const property = fc.asyncProperty(randomFunctions, async (random) => {
    const inputs = [numbers([...random.shape]), numbers([...random.shape], 2)];
    await checkOnTarget(target, (...args: tf.Tensor[]) => runSteps(random, args), inputs, 2e-5, 4);
  });
  await fc.assert(property, { numRuns, seed: 7 });
}
