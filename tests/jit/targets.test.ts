// Every target against the reference interpreter: 500 random graphs, all passes on.
import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { test } from 'vitest';
import { optimize } from '../../lib/jit/optimize.js';
import { planMemory } from '../../lib/jit/plan.js';
import { interpret } from '../../lib/jit/targets/reference/interpret.js';
import { openTarget, type TargetName } from '../../lib/jit/targets.js';
import { traceFunction } from '../../lib/jit/trace.js';
import { boundWeight, weightUses } from '../../lib/jit/weights.js';
import { expectClose, numbers } from './agree.js';
import { randomFunctions, runSteps } from './randomFunctions.js';
import './traced.js'; // sets the backend

const targets: TargetName[] = ['wasm'];

test.each(targets)('500 random graphs on %s', { timeout: 60_000 }, async (name) => {
  const target = await openTarget(name);
  await fc.assert(
    fc.asyncProperty(randomFunctions, async (random) => {
      const inputs = [numbers([...random.shape]), numbers([...random.shape], 2)];
      const traced = traceFunction((...args: tf.Tensor[]) => runSteps(random, args), inputs);
      const graph = optimize(traced.graph);
      const plan = planMemory(graph);
      const program = await target.compile(plan);
      const uses = weightUses(graph);
      const weights = graph.weights.map((slot, i) => boundWeight(target, slot.weight!, uses[i]!));
      const buffers = inputs.map((input) => {
        const buffer = target.allocate(4 * input.size);
        target.write(buffer, input.dataSync() as Float32Array);
        return buffer;
      });
      const outputs = plan.outputs.map(({ bytes }) => target.allocate(bytes));
      await program.run(buffers, weights, outputs);
      const expected = interpret(
        graph,
        inputs.map((input) => ({
          dtype: 'f32',
          shape: input.shape,
          values: input.dataSync() as Float32Array,
        })),
        graph.weights.map((slot) => slot.weight!),
      );
      for (const [i, { dtype, values }] of expected.entries())
        expectClose(Array.from(target.read(outputs[i]!, dtype)), Array.from(values), 2e-5, 4);
      for (const buffer of [...buffers, ...outputs]) target.release(buffer);
      program.dispose();
      tf.dispose(inputs);
    }),
    { numRuns: 500, seed: 7 },
  );
});
