// tests/jit/onTarget.ts: a function on a target that was made by hand, against the reference interpreter.
import * as tf from '@tensorflow/tfjs-core';
import { optimize } from '../../lib/jit/optimize.js';
import { groupKernels } from '../../lib/jit/passes/groupKernels.js';
import { planMemory } from '../../lib/jit/plan.js';
import type { Mode, RunOptions, RunReport, Target } from '../../lib/jit/target.js';
import { interpret } from '../../lib/jit/targets/reference/interpret.js';
import { traceFunction } from '../../lib/jit/trace.js';
import { boundWeight, weightUses } from '../../lib/jit/weights.js';
import { expectClose } from './agree.js';
import './traced.js'; // sets the backend

/**
 * Runs a function of float32 and int32 tensors, and compares all results.
 * @param tolerance of the largest value, `least` at least
 * @returns what the target says of the run
 */
export async function checkOnTarget(
  target: Target,
  fn: (...args: tf.Tensor[]) => unknown,
  inputs: readonly tf.Tensor[],
  tolerance: number,
  least: number,
  { mode, ...options }: RunOptions & { readonly mode?: Mode } = {},
): Promise<RunReport> {
  const traced = traceFunction(fn as (...args: never[]) => unknown, inputs);
  const plain = optimize(traced.graph);
  const { graph, groups } = target.groups ? groupKernels(plain) : { graph: plain, groups: undefined };
  const plan = planMemory(graph, [], groups, target.planOptions);
  const program = await target.compile(plan, mode ? { mode } : {});
  const uses = weightUses(graph);
  const weights = graph.weights.map((slot, i) => boundWeight(target, slot.weight!, uses[i]!));
  const given = inputs.map((input) => ({
    dtype: input.dtype === 'float32' ? ('f32' as const) : ('i32' as const),
    shape: input.shape,
    values: input.dataSync() as Float32Array | Int32Array,
  }));
  const buffers = given.map(({ values }) => {
    const buffer = target.allocate(values.byteLength);
    target.write(buffer, values);
    return buffer;
  });
  const outputs = plan.outputs.map(({ bytes }) => target.allocate(bytes));
  const report = await program.run(buffers, weights, outputs, options);
  const expected = interpret(
    graph,
    given,
    graph.weights.map((slot) => slot.weight!),
  );
  for (const [i, { dtype, values }] of expected.entries()) {
    const received = (await target.readLater?.(outputs[i]!, dtype)) ?? target.read(outputs[i]!, dtype);
    expectClose(Array.from(received), Array.from(values), tolerance, least);
  }
  for (const buffer of [...buffers, ...outputs]) target.release(buffer);
  program.dispose();
  tf.dispose([...inputs]);
  return report;
}
