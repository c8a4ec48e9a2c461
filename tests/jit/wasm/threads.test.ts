// Worker threads: the same bits with any number of them, streaming past a blocked main thread, abort, failure, end.
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { cachedAttention, type KVCache, openStep } from '../../../lib/cache.js';
import type { Graph } from '../../../lib/jit/graph.js';
import { optimize } from '../../../lib/jit/optimize.js';
import { planMemory } from '../../../lib/jit/plan.js';
import { scan } from '../../../lib/jit/scan.js';
import type { Plan } from '../../../lib/jit/steps.js';
import type { RunOptions, Target } from '../../../lib/jit/target.js';
import { createReferenceTarget } from '../../../lib/jit/targets/reference/run.js';
import { createWasmTarget } from '../../../lib/jit/targets/wasm/run.js';
import { traceFunction } from '../../../lib/jit/trace.js';
import { expectClose, numbers } from '../agree.js';
import { randomFunctions, runSteps } from '../randomFunctions.js';

const targets: Target[] = [];

beforeEach(async () => {
  await tf.setBackend('cpu');
});

afterEach(async () => {
  await Promise.all(targets.splice(0).map((target) => target.dispose()));
});

function open(threads: number): Target {
  const target = createWasmTarget({ threads, inline: false });
  targets.push(target);
  return target;
}

function planOf(fn: (...args: never[]) => unknown, args: readonly tf.Tensor[]): Plan {
  const graph: Graph = optimize(traceFunction(fn, args).graph, { fuse: true, check: false });
  return planMemory(graph);
}

/** Runs a plan without Weights; closure tensors come after the arguments. */
async function run(target: Target, plan: Plan, args: readonly tf.Tensor[], options: RunOptions = {}) {
  const inputs = await Promise.all(
    args.map(async (arg) => {
      const values = (await arg.data()) as Float32Array;
      const buffer = target.allocate(values.byteLength);
      target.write(buffer, values);
      return buffer;
    }),
  );
  const outputs = plan.outputs.map(({ bytes }) => target.allocate(bytes));
  const executable = await target.compile(plan);
  const report = await executable.run(inputs, [], outputs, options);
  const values = outputs.map((buffer, i) => target.read(buffer, plan.outputs[i]!.dtype));
  executable.dispose();
  for (const buffer of [...inputs, ...outputs]) target.release(buffer);
  return { values, report };
}

/** A step with products, a norm, a softmax, reductions and odd sizes. */
const cell = (w: tf.Tensor, v: tf.Tensor) => (x: tf.Tensor) => {
  const hidden = tf.tanh(tf.matMul(x, w)); // [3, 203]
  const mixed = tf.matMul(tf.softmax(tf.mul(hidden, 3)), v); // [3, 101]
  const centred = tf.sub(mixed, tf.mean(mixed, 1, true));
  return tf.div(centred, tf.sqrt(tf.add(tf.mean(tf.square(centred), 1, true), 1e-3)));
};

test('one, two and three threads give the same bits', async () => {
  const args = [numbers([3, 101]), numbers([101, 203], 2), numbers([203, 101], 3)] as const;
  const fn = (x: tf.Tensor, w: tf.Tensor, v: tf.Tensor) =>
    scan((c) => ({ carry: cell(w, v)(c), output: tf.max(c, 1) }), x, 6);
  const plan = planOf(fn as never, args);
  const results = [];
  for (const threads of [1, 2, 3]) {
    const { values, report } = await run(open(threads), plan, args);
    expect(report).toMatchObject({ threads, hostCalls: 0 });
    results.push(values.map((each) => Buffer.from(each.buffer as ArrayBuffer).toString('hex')));
  }
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
});

test.each([
  ['a token', 1, null, 16, [3, 8]],
  ['a token, whose positions are split into parts', 1, null, 150, [141, 40]],
  ['a token and a window that goes over the end of a ring', 1, 70, 80, [203, 61]],
  ['a prompt', 7, null, 16, [3, 8]],
  ['a prompt and a window', 7, 5, 16, [3, 8]],
  ['a long prompt and a window', 90, 50, 140, [30, 0]],
] as const)(
  'attention over a cache gives the same bits with any number of threads: %s',
  async (_, query, window, capacity, starts) => {
    const [batch, heads, kvHeads, headDim] = [2, 9, 3, 6];
    const spec = { layers: 1, kvHeads, headDim, capacity, window };
    const fn = (...args: tf.Tensor[]) => {
      const [q, k, v, keys, values] = args as tf.Tensor4D[];
      const [start, count] = args.slice(5) as tf.Tensor1D[];
      const cache: KVCache = {
        spec,
        layout: 'fixed',
        keys: [keys!],
        values: [values!],
        positions: null,
        padding: 0,
      };
      return cachedAttention(openStep(cache, start!, count!, query), 0, q!, k!, v!, 0.4);
    };
    const held = (seed: number) => numbers([batch, kvHeads, capacity, headDim], seed);
    const given = (count: number, seed: number) => numbers([batch, count, query, headDim], seed);
    const args = [given(heads, 1), given(kvHeads, 2), given(kvHeads, 3), held(4), held(5)];
    const counts = [query, Math.ceil(query / 2)] as const;
    const lengths = [tf.tensor1d([...starts], 'int32'), tf.tensor1d([...counts], 'int32')];
    const plan = planOf(fn as never, [...args, ...lengths]);
    expect(plan.steps.some((step) => step.kind === 'kernel' && step.node.op === 'CachedAttention')).toBe(
      true,
    );
    const results = [];
    for (const threads of [1, 2, 3, 6])
      results.push((await run(open(threads), plan, [...args, ...lengths])).values[0]);
    for (const other of results.slice(1)) expect(other).toEqual(results[0]);
    const reference = createReferenceTarget();
    targets.push(reference);
    const expected = (await run(reference, plan, [...args, ...lengths])).values[0]!;
    expectClose(Array.from(results[0]!), Array.from(expected));
    expect(new Set(results[0]).size).toBeGreaterThan(100);
    const { report } = await run(open(2), plan, [...args, ...lengths], { profile: true });
    const at = plan.steps.findIndex((step) => step.kind === 'kernel' && step.node.op === 'CachedAttention');
    const most = window ?? capacity;
    const seen = Math.min(starts[0] + counts[0], most) + Math.min(starts[1] + counts[1], most);
    expect(report.stepPositions![at]).toBe(seen);
  },
);

test('100 random graphs give the same bits with one thread and three', { timeout: 60_000 }, async () => {
  const [here, threaded] = [createWasmTarget({ threads: 1 }), open(3)];
  targets.push(here);
  await fc.assert(
    fc.asyncProperty(randomFunctions, async (random) => {
      const inputs = [numbers([...random.shape]), numbers([...random.shape], 2)];
      const plan = planOf(((...args: tf.Tensor[]) => runSteps(random, args)) as never, inputs);
      if (plan.weights.length > 0) return; // run() binds none; Weights are read, never written
      const expected = await run(here, plan, inputs);
      expect((await run(threaded, plan, inputs)).values).toEqual(expected.values);
    }),
    { numRuns: 100, seed: 3 },
  );
});

test('more threads than cores: rounds alone and together give the same bits', {
  timeout: 60_000,
}, async () => {
  const args = [numbers([3, 101]), numbers([101, 203], 2), numbers([203, 101], 3)] as const;
  const fn = (x: tf.Tensor, w: tf.Tensor, v: tf.Tensor) =>
    scan((c) => ({ carry: cell(w, v)(c), output: tf.max(c, 1) }), x, 150);
  const plan = planOf(fn as never, args);
  const [one, many] = [await run(open(1), plan, args), await run(open(6), plan, args)];
  expect(many.values).toEqual(one.values);
});

test('rounds arrive in order, and go on while the main thread is blocked', async () => {
  const plan = planOf(
    ((x: tf.Tensor) => scan((c) => ({ carry: tf.add(c, 1), output: c }), x, 200)) as never,
    [tf.zeros([2000])],
  );
  const rounds: number[] = [];
  const first: number[] = [];
  let timers = 0;
  const timer = setInterval(() => timers++, 1);
  const running = run(open(2), plan, [tf.zeros([2000])], {
    onRound: (round, [values]) => {
      if (round === 0) for (const end = performance.now() + 50; performance.now() < end; );
      rounds.push(round);
      first.push(values![0]!);
    },
  });
  await running;
  clearInterval(timer);
  expect(rounds).toEqual(Array.from({ length: 200 }, (_, i) => i));
  expect(first).toEqual(rounds);
});

test('an abort ends the loop between two rounds, and the target goes on working', async () => {
  const target = open(2);
  const args = [tf.zeros([50_000])];
  const long = (length: number) =>
    planOf(
      ((x: tf.Tensor) =>
        scan((c) => ({ carry: tf.tanh(tf.add(c, 1)), output: tf.sum(c) }), x, length)) as never,
      args,
    );
  const controller = new AbortController();
  let seen = 0;
  const running = run(target, long(1_000_000), args, {
    signal: controller.signal,
    onRound: () => {
      if (++seen === 3) controller.abort(new Error('enough'));
    },
  });
  await expect(running).rejects.toThrow('enough');
  expect(seen).toBeLessThan(500_000); // of a million: how many depends on how late this thread reads
  expect((await run(target, long(4), args)).values.at(-1)).toEqual(Int32Array.of(4));
});

test('profile: a time for each step of the plan', async () => {
  const args = [numbers([3, 101]), numbers([101, 203], 2), numbers([203, 101], 3)] as const;
  const plan = planOf(
    ((x: tf.Tensor, w: tf.Tensor, v: tf.Tensor) => scan((c) => ({ carry: cell(w, v)(c) }), x, 20)) as never,
    args,
  );
  const { report } = await run(open(2), plan, args, { profile: true });
  const scanIndex = plan.steps.findIndex(({ kind }) => kind === 'scan');
  const times = [...report.stepMs!];
  expect(times.every((ms) => ms >= 0)).toBe(true);
  const inner = times.slice(scanIndex + 1, scanIndex + 5).reduce((sum, ms) => sum + ms, 0);
  expect(inner).toBeGreaterThan(0);
  expect(times[scanIndex]!).toBeGreaterThanOrEqual(inner * 0.9);
});

test('what does not fit is refused before it is allocated, with what is left', async () => {
  const target = createWasmTarget({ limitBytes: 1 << 20 });
  targets.push(target);
  expect(() => target.allocate(1 << 20)).toThrow(/expected at most \d+ bytes.*received 1048576/);
  const big = { kind: 'float', dtype: 'f32', shape: [1000, 1000], bytes: new Uint8Array(4e6) } as const;
  expect(() => target.bind(big, { path: 'h.0.kernel', outputAxis: 1 })).toThrow(/h\.0\.kernel.*int4/s);
  expect(target.memory()).toEqual({ weightBytes: 0, bufferBytes: 0, arenaBytes: 0 });
});
