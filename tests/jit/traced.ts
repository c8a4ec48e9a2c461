// tests/jit/traced.ts: graphs for tests of passes: traced from tfjs functions, printed, compared in what they compute.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { expect } from 'vitest';
import { checkGraph } from '../../lib/jit/check.js';
import type { Graph } from '../../lib/jit/graph.js';
import { fuseElementwise } from '../../lib/jit/passes/fuseElementwise.js';
import { mergeEqual } from '../../lib/jit/passes/mergeEqual.js';
import { removeDead } from '../../lib/jit/passes/removeDead.js';
import { interpret } from '../../lib/jit/targets/reference/interpret.js';
import type { Tensor } from '../../lib/jit/targets/reference/tensors.js';
import { traceFunction } from '../../lib/jit/trace.js';
import type { Weight } from '../../lib/tensor.js';
import { floatWeight, sizeOf } from '../../lib/tensor.js';
import { expectClose } from './agree.js';

await tf.setBackend('cpu');

/** The graph of a function of float32 tensors of these shapes, without duplicates. */
export function trace(fn: (...args: tf.Tensor[]) => unknown, shapes: readonly (readonly number[])[]): Graph {
  const args = shapes.map((shape) => tf.zeros([...shape]));
  return removeDead(mergeEqual(traceFunction(fn, args).graph));
}

/** The same on the kernel level. */
export function traceKernels(
  fn: (...args: tf.Tensor[]) => unknown,
  shapes: readonly (readonly number[])[],
): Graph {
  return removeDead(fuseElementwise(trace(fn, shapes)));
}

/** A float32 Weight of numbers that look random. */
export function someWeight(shape: readonly number[], seed = 1): Weight {
  const values = Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin((i + 1) * 78.233 * seed));
  return floatWeight(values, shape);
}

/** Runs a graph on numbers that look random: floats in -1..1, integers 0 to 2. */
export function runGraph(graph: Graph): Tensor[] {
  const inputs = graph.inputs.map(({ dtype, shape }, seed): Tensor => {
    const wave = Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin((i + 1) * 12.9898 + seed));
    if (dtype === 'f32') return { dtype, shape, values: Float32Array.from(wave) };
    return {
      dtype,
      shape,
      values: Int32Array.from(wave, (value) => Math.floor(Math.abs(value) * 3) % (dtype === 'bool' ? 2 : 3)),
    };
  });
  return interpret(
    graph,
    inputs,
    graph.weights.map((slot, i) => slot.weight ?? someWeight(slot.format.shape, i + 1)),
  );
}

/** Runs a pass, verifies the graph, and fails unless it computes the same as before. */
export function passed(graph: Graph, pass: (graph: Graph) => Graph): Graph {
  const after = removeDead(pass(graph));
  checkGraph(after, pass.name);
  const [expected, received] = [runGraph(graph), runGraph(after)];
  expect(received.length).toBe(expected.length);
  for (const [i, { values }] of expected.entries())
    expectClose(Array.from(received[i]!.values), Array.from(values));
  return after;
}
