// Loops on the GPU: rounds are sent ahead and stop by themselves, outputs arrive while it runs, nothing is left behind.
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ElementValues } from '../../../lib/jit/graph.js';
import { scan } from '../../../lib/jit/jit.js';
import type { Target } from '../../../lib/jit/target.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';
import { numbers } from '../agree.js';
import { checkOnTarget } from '../onTarget.js';

const one = () => tf.scalar(1, 'int32');
const counter = (length: number, end: number) => (x: tf.Tensor) =>
  scan(
    ({ n, x }) => ({ carry: { n: tf.add(n, one()), x: tf.mul(x, 1.01) }, output: { n, sum: tf.sum(x) } }),
    { n: tf.scalar(0, 'int32') as tf.Tensor, x },
    length,
    { until: ({ n }) => tf.greaterEqual(n, tf.scalar(end, 'int32')) },
  );

describe.skipIf(!hasWebgpu)(`loops on webgpu (${webgpuReason})`, () => {
  let target: Target;
  beforeAll(async () => {
    target = await createWebgpuTarget({ kernels: 'plain', guard: false });
  });
  afterAll(() => target.dispose());

  test.each([
    [20, 7],
    [5, 100],
    [1, 1],
    [64, 1],
  ])('of at most %d rounds, ended after %d: each round is told once, in order', async (length, end) => {
    const rounds: number[] = [];
    const onRound = (round: number, [n]: readonly ElementValues[]) => {
      expect(n![0]).toBe(round);
      rounds.push(round);
    };
    const { loop } = await checkOnTarget(target, counter(length, end), [numbers([6])], 1e-5, 1, { onRound });
    expect(rounds).toEqual(Array.from({ length: Math.min(length, end) }, (_, i) => i));
    expect(loop?.rounds).toBe(Math.min(length, end));
    expect(loop?.submissions).toBeLessThanOrEqual(length);
    expect(loop?.hostMicrosecondsPerRound).toBeGreaterThan(0);
  });

  test('a long loop is sent in few submissions, and stops sending soon after its end', async () => {
    const { loop } = await checkOnTarget(target, counter(400, 40), [numbers([6])], 1e-5, 1);
    expect(loop?.roundsPerSubmission).toBeGreaterThan(2);
    expect(loop!.submissions * loop!.roundsPerSubmission).toBeLessThan(400);
    if (loop!.gpuIdleShare !== null) expect(loop!.gpuIdleShare).toBeLessThan(1);
  });

  test.each([
    ['as expected', 40, 40],
    ['earlier', 25, 40],
    ['later', 61, 40],
  ])('no rounds are sent beyond the expected ones: it ends %s', async (_, end, expectedRounds) => {
    const { loop } = await checkOnTarget(target, counter(400, end), [numbers([6])], 1e-5, 1, {
      expectedRounds,
    });
    expect(loop?.rounds).toBe(end);
    const sent = Math.round(loop!.submissions * loop!.roundsPerSubmission);
    if (end <= expectedRounds) expect(sent).toBeLessThanOrEqual(expectedRounds);
  });

  test('an abort ends it between two submissions, with its reason', async () => {
    const abort = new AbortController();
    const running = checkOnTarget(target, counter(5000, 5000), [numbers([6])], 1e-5, 1, {
      signal: abort.signal,
      onRound: (round) => round === 10 && abort.abort(new Error('enough')),
    });
    await expect(running).rejects.toThrow('enough');
  });

  test('a profile has the time of every step, the loop’s own after it', async () => {
    const { stepMs } = await checkOnTarget(target, counter(3, 3), [numbers([600])], 1e-5, 1, {
      profile: true,
    });
    expect(stepMs!.length).toBeGreaterThan(4);
    expect(stepMs!.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThan(0);
  });
});

test.skipIf(!hasWebgpu)(`the speed of reading is measured (${webgpuReason})`, async () => {
  const target = await createWebgpuTarget();
  const speed = await target.readGBps!();
  expect(speed).toBeGreaterThan(0.01);
  expect(speed).toBeLessThan(20_000);
  await target.dispose();
});

describe.skipIf(!hasWebgpu)(`the memory of webgpu (${webgpuReason})`, () => {
  test('what is too large for one buffer is refused at once', async () => {
    const target = await createWebgpuTarget();
    expect(() => target.allocate(2 ** 50)).toThrow(/needs one buffer of .* has none over/);
    expect(target.memory()).toEqual({ weightBytes: 0, bufferBytes: 0, arenaBytes: 0 });
    await target.dispose();
  });

  test('programs, tensors and Weights are given back', async () => {
    const target = await createWebgpuTarget({ kernels: 'plain', guard: false });
    await checkOnTarget(target, (x) => tf.softmax(tf.matMul(x, x, false, true)), [numbers([5, 7])], 1e-5, 1);
    expect(target.memory()).toEqual({ weightBytes: 0, bufferBytes: 0, arenaBytes: 0 });
    await target.dispose();
  });

  test('a lost device says so', async () => {
    const target = await createWebgpuTarget({ kernels: 'plain', guard: false });
    const buffer = target.allocate(64);
    await target.dispose();
    await expect(target.readLater!(buffer, 'f32')).rejects.toThrow();
  });
});
