// Memory planning: plans are executed on bytes, with the reference target's kernels, and compared with the interpreter.
import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ElementType, ElementValues, Graph, Value } from '../../lib/jit/graph.js';
import { scan } from '../../lib/jit/jit.js';
import { optimize } from '../../lib/jit/optimize.js';
import { planMemory } from '../../lib/jit/plan.js';
import type { Place, Plan, Step } from '../../lib/jit/steps.js';
import { valueBytes } from '../../lib/jit/steps.js';
import { interpret, runNode } from '../../lib/jit/targets/reference/interpret.js';
import type { Tensor } from '../../lib/jit/targets/reference/tensors.js';
import { traceFunction } from '../../lib/jit/trace.js';
import { float32Values, sizeOf } from '../../lib/tensor.js';
import { randomFunctions, runSteps } from './randomFunctions.js';
import { trace } from './traced.js';

function viewOf(buffer: ArrayBuffer, offset: number, dtype: ElementType, length: number): ElementValues {
  return dtype === 'f32' ? new Float32Array(buffer, offset, length) : new Int32Array(buffer, offset, length);
}

/** Executes a plan on bytes. The arena starts full of NaN, so that a read before a write shows. */
function runPlan(plan: Plan, inputs: readonly Tensor[]): Tensor[] {
  const arena = new ArrayBuffer(plan.arenaBytes);
  new Uint8Array(arena).fill(0xff);
  const buffers = inputs.map(({ values }) => values.slice().buffer as ArrayBuffer);
  const outputs = plan.outputs.map(({ bytes, alias }) =>
    alias === null ? new ArrayBuffer(bytes) : buffers[alias]!,
  );
  const constants = plan.constants.map((values) => values.slice().buffer as ArrayBuffer);
  const weights = plan.weights.map((slot) => float32Values(slot.weight!).slice().buffer as ArrayBuffer);
  const bufferOf = (place: Place): [ArrayBuffer, number] => {
    if (place.space === 'arena') return [arena, place.offset];
    const space = { input: buffers, output: outputs, constant: constants, weight: weights }[place.space];
    return [space[place.index]!, 0];
  };
  const read = (place: Place, { dtype, shape }: Value): Tensor => {
    const [buffer, offset] = bufferOf(place);
    return { dtype, shape, values: viewOf(buffer, offset, dtype, sizeOf(shape)) };
  };
  const copy = (from: Place, to: Place, bytes: number, shift = 0): void => {
    const [source, sourceAt] = bufferOf(from);
    const [target, targetAt] = bufferOf(to);
    new Uint8Array(target, targetAt + shift, bytes).set(new Uint8Array(source, sourceAt, bytes));
  };
  const captured = plan.weights.map((slot) => slot.weight!);
  const run = (step: Step): void => {
    if (step.kind === 'copy') {
      copy(step.from, step.to, step.bytes);
      return;
    }
    if (step.kind === 'kernel') {
      const { node } = step;
      const results = runNode(
        node,
        node.inputs.map((input, i) => read(step.inputs[i]!, input)),
        captured,
      );
      for (const [i, output] of node.outputs.entries())
        read(step.outputs[i]!, output).values.set(results[i]!.values as Float32Array);
      return;
    }
    const { length, carry } = step.node.attrs;
    let round = 0;
    for (let ended = false; round < length && !ended; round++) {
      step.steps.forEach(run);
      for (const { from, to, bytes } of step.outputs) copy(from, to, bytes, round * bytes);
      const [flags, at] = step.until ? bufferOf(step.until) : [undefined, 0];
      ended = flags !== undefined && new Int32Array(flags, at, 1)[0] === 1;
      step.carries.forEach(run);
    }
    for (const [i, { to, bytes }] of step.outputs.entries()) {
      const all = read(to, step.node.outputs[carry + i]!).values;
      all.subarray((round * bytes) / 4).fill(0);
    }
    const [taken, takenAt] = bufferOf(step.taken);
    new Int32Array(taken, takenAt, 1)[0] = round;
  };
  plan.steps.forEach(run);
  for (const [i, input] of inputs.entries()) {
    const isDonated = plan.outputs.some(({ alias }) => alias === i);
    if (!isDonated) expect(viewOf(buffers[i]!, 0, input.dtype, input.values.length)).toEqual(input.values);
  }
  return plan.outputs.map(({ dtype, shape }, i) => ({
    dtype,
    shape,
    values: viewOf(outputs[i]!, 0, dtype, sizeOf(shape)),
  }));
}

function someInputs(graph: Graph): Tensor[] {
  return graph.inputs.map(({ dtype, shape }, seed): Tensor => {
    const values = Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(12.9898 * (i + 1) + seed));
    return {
      dtype,
      shape,
      values: dtype === 'f32' ? Float32Array.from(values) : Int32Array.from(values, Math.round),
    };
  });
}

/** Fails unless the plan does what the graph says, bit for bit. */
function expectPlanned(graph: Graph, donated: readonly boolean[] = []): Plan {
  const plan = planMemory(graph, donated);
  const inputs = someInputs(graph);
  const expected = interpret(
    graph,
    inputs,
    graph.weights.map((slot) => slot.weight!),
  );
  for (const [i, { values }] of runPlan(plan, inputs).entries()) expect(values).toEqual(expected[i]!.values);
  return plan;
}

test('300 random graphs do the same from planned memory', () => {
  fc.assert(
    fc.property(randomFunctions, (random) => {
      const inputs = [tf.zeros([...random.shape]), tf.zeros([...random.shape])];
      expectPlanned(optimize(traceFunction((...args: tf.Tensor[]) => runSteps(random, args), inputs).graph));
    }),
    { numRuns: 300, seed: 3 },
  );
});

const planned = (fn: (...args: tf.Tensor[]) => unknown, shapes: number[][], donated: boolean[] = []): Plan =>
  expectPlanned(optimize(trace(fn, shapes)), donated);

describe('memory is reused', () => {
  const chain = (side: number) =>
    planned(
      (x, w) => [1, 2, 3, 4, 5, 6].reduce((held) => tf.matMul(held, w!), x!),
      [
        [side, side],
        [side, side],
      ],
    );

  test('a chain of products needs room for two', () => {
    expect(chain(96).arenaBytes).toBe(2 * 96 * 96 * 4);
  });

  test('small values take turns, so that none is written where another thread may still read', () => {
    const arena = chain(16).steps.flatMap((step) => (step.kind === 'kernel' ? step.outputs : []));
    const offsets = arena.flatMap((place) => (place.space === 'arena' ? [place.offset] : []));
    expect(new Set(offsets).size).toBe(5); // the sixth is the output
  });

  test('results are written where they belong', () => {
    const plan = planned((x) => [tf.exp(x!), tf.sum(x!)], [[8]]);
    expect(plan.arenaBytes).toBe(0);
    expect(plan.steps.every((step) => step.kind === 'kernel')).toBe(true);
  });

  test('what is made and then updated in place is made where it belongs', () => {
    const plan = planned((x) => tf.scatterND(tf.tensor2d([1, 0], [2, 1], 'int32'), x!, [9000, 2]), [[2, 2]]);
    expect([plan.arenaBytes, plan.steps.map((step) => step.kind)]).toEqual([0, ['kernel', 'kernel']]);
    const loop = planned((x) => scan((c) => ({ carry: tf.add(c, 1) }), tf.exp(x!), 3).carry, [[64]]);
    expect(loop.arenaBytes).toBe(64 * 4 + 64); // the next carry and the number of rounds
  });

  test('a value twice among the results, an argument, a reshape of it: copied', () => {
    const plan = planned((x) => [x!, tf.reshape(x!, [4]), tf.neg(x!), tf.zeros([3])], [[2, 2]]);
    expect(plan.outputs.map(({ alias }) => alias)).toEqual([null, null, null, null]);
  });
});

describe('a donated argument', () => {
  const update = (base: tf.Tensor, x: tf.Tensor) =>
    tf.tensorScatterUpdate(base, tf.tensor2d([1, 0], [2, 1], 'int32'), x);

  test('is updated in place', () => {
    const plan = planned(
      (base, x) => update(base!, x!),
      [
        [4, 2],
        [2, 2],
      ],
      [true, false],
    );
    expect(plan.outputs[0]!.alias).toBe(0);
    expect(plan.steps.map((step) => step.kind)).toEqual(['kernel']);
  });

  test('is copied if it is not donated, or still needed', () => {
    const kinds = (plan: Plan) => plan.steps.map((step) => step.kind);
    expect(
      kinds(
        planned(
          (base, x) => update(base!, x!),
          [
            [4, 2],
            [2, 2],
          ],
        ),
      ),
    ).toEqual(['copy', 'kernel']);
    const both = planned(
      (base, x) => [update(base!, x!), tf.neg(base!)],
      [
        [4, 2],
        [2, 2],
      ],
      [true, false],
    );
    expect(kinds(both)).toContain('copy');
  });

  test('goes through a scan without a copy', () => {
    const plan = planned(
      (base, x) => scan((c) => ({ carry: update(c, x!) }), base!, 3).carry,
      [
        [4, 2],
        [2, 2],
      ],
      [true, false],
    );
    expect(plan.outputs[0]!.alias).toBe(0);
    const [loop] = plan.steps;
    expect(plan.steps).toHaveLength(1);
    expect(loop?.kind === 'scan' && [loop.steps.length, loop.carries.length]).toEqual([1, 0]);
  });
});

describe('carries of a scan', () => {
  test.each([
    ['change places', (a: tf.Tensor, b: tf.Tensor) => ({ a: b, b: a })],
    ['go round', (a: tf.Tensor, b: tf.Tensor) => ({ a: tf.add(b, 1), b: a })],
    ['become one', (a: tf.Tensor) => ({ a, b: a })],
  ])('%s', (_, step) => {
    planned((x, y) => scan((c) => ({ carry: step(c.a, c.b), output: c.a }), { a: x!, b: y! }, 3), [[5], [5]]);
  });

  test('each round finds its first carry whole, also with another loop inside', () => {
    planned(
      (x) =>
        scan(
          (c) => ({ carry: scan((d) => ({ carry: tf.mul(d, c) }), tf.add(c, 1), 2).carry, output: c }),
          x!,
          2,
        ),
      [[6]],
    );
  });
});

test('bytes are four an element', () => {
  expect(valueBytes({ shape: [2, 3] })).toBe(24);
});

test('a graph of the traced level is refused', () => {
  expect(() => planMemory(trace((x) => tf.exp(x!), [[2]]))).toThrow(/Exp is not a kernel/);
});
