// tests/jit/webgpu/attendMatrices.test.ts: attention of many queries on matrix units, spelled out where the adapter has
// none, against plain sums: windows, rings, padding, several ways to cut it, and scores that grow from key to key.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { cachedAttention, openStep } from '../../../lib/cache.js';
import { type ArrayRef, buildKernel } from '../../../lib/jit/kernels/builder.js';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import {
  halvesBytes,
  halvesTasks,
  writeHalves,
} from '../../../lib/jit/targets/webgpu/kernels/attendHalves.js';
import { writeAttendMatrices } from '../../../lib/jit/targets/webgpu/kernels/attendMatrices.js';
import type { AttendMatricesSpec, AttendTile } from '../../../lib/jit/targets/webgpu/kernels/attendTile.js';
import { attendLayout, attendTile } from '../../../lib/jit/targets/webgpu/kernels/attendTile.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { hasWebgpu, isEmulated, webgpuReason } from '../../webgpu.js';
import { expectClose } from '../agree.js';
import { checkOnTarget } from '../onTarget.js';
import { runKernel, testGpu, type Words } from './runKernel.js';

const gpu = await testGpu();

/** Numbers from -1 to 1 that look random. */
const waves = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin((i + 1) * 12.9898 * (seed + 1)));

interface Problem extends AttendMatricesSpec {
  readonly start: readonly number[]; // [batch]
  readonly count: readonly number[]; // [batch]
  /** What the keys of a position are multiplied by: integers up to 128, so that they stay exact as halves. */
  readonly growth?: (position: number) => number;
}

interface Inputs {
  readonly q: Float32Array; // [batch, heads, queries, headDim]
  readonly keys: Float32Array; // [batch, kvHeads, capacity, headDim]
  readonly values: Float32Array; // the same
}

/** What the slots hold: positions up to the last query's, the newest where they share a slot. */
function inputsOf({
  batch,
  heads,
  kvHeads,
  queries,
  headDim,
  capacity,
  start,
  count,
  growth,
}: Problem): Inputs {
  const size = batch * kvHeads * capacity * headDim;
  const q = waves(batch * heads * queries * headDim, 1);
  const keys = waves(size, 2);
  if (growth) {
    // All have the same sign, so that scores grow as keys do, and few bits: large scores would round to other weights.
    for (const array of [q, keys])
      for (let i = 0; i < array.length; i++) array[i] = Math.ceil(16 * Math.abs(array[i]!)) / 16;
    for (let row = 0; row < batch * kvHeads; row++) {
      const end = start[Math.floor(row / kvHeads)]! + count[Math.floor(row / kvHeads)]!;
      for (let position = Math.max(0, end - capacity); position < end; position++)
        for (let d = 0; d < headDim; d++)
          keys[(row * capacity + (position % capacity)) * headDim + d]! *= growth(position);
    }
  }
  return { q, keys, values: waves(size, 3) };
}

/** Zeros for queries that are not given. */
function plainAttention(problem: Problem, { q, keys, values }: Inputs): Float32Array {
  const { batch, heads, kvHeads, queries, headDim, capacity, window, scale, start, count } = problem;
  const expected = new Float32Array(q.length);
  for (let row = 0; row < batch * heads; row++) {
    const b = Math.floor(row / heads);
    const kv = b * kvHeads + Math.floor((row % heads) / (heads / kvHeads));
    for (let i = 0; i < count[b]!; i++) {
      const last = start[b]! + i;
      const first = window === null ? 0 : Math.max(0, last + 1 - window);
      const slot = (p: number) => (kv * capacity + (p % capacity)) * headDim;
      const dot = (p: number) => {
        let sum = 0;
        for (let d = 0; d < headDim; d++) sum += q[(row * queries + i) * headDim + d]! * keys[slot(p) + d]!;
        return sum * scale;
      };
      const scores = Array.from({ length: last + 1 - first }, (_, at) => dot(first + at));
      const most = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - most));
      const total = weights.reduce((a, b) => a + b);
      for (const [at, weight] of weights.entries())
        for (let d = 0; d < headDim; d++)
          expected[(row * queries + i) * headDim + d]! += (weight / total) * values[slot(first + at) + d]!;
    }
  }
  return expected;
}

async function copiedAsHalves(
  problem: Problem,
  { keys, values }: Inputs,
): Promise<Record<'keys' | 'values', Words>> {
  if (typeof gpu === 'string') throw new Error(gpu);
  const tasks = halvesTasks(problem);
  // What is not copied stays NaN.
  const empty = new Uint32Array(halvesBytes(problem) / 4).fill(0xffffffff);
  const kernel = buildKernel({ name: 'copy', threads: 64 }, (k) => {
    const places = { start: k.buffer('start', 'i32', 'read'), count: k.buffer('count', 'i32', 'read') };
    const pair = (name: string) => ({
      from: k.buffer(name, 'f32x4', 'read'),
      to: k.buffer(`${name}Halves`, 'u32x4', 'readWrite'),
    });
    const index = k.let('index', k.builtin('workgroupX').mul(64).add(k.localIndex));
    k.if(index.lt(tasks), () => writeHalves(k, problem, index, places, [pair('keys'), pair('values')]));
  });
  const { start, count } = problem;
  const contents = {
    ...{ start: Int32Array.from(start), count: Int32Array.from(count), keys, values },
    ...{ keysHalves: empty, valuesHalves: empty },
  };
  const found = await runKernel(gpu, kernel, contents, [Math.ceil(tasks / 64)]);
  return { keys: found.keysHalves!, values: found.valuesHalves! };
}

async function attention(problem: Problem, tile: AttendTile, inputs: Inputs, isCopied: boolean) {
  if (typeof gpu === 'string') throw new Error(gpu);
  const { threads, workgroups } = attendLayout(problem, tile);
  const cache = isCopied ? await copiedAsHalves(problem, inputs) : inputs;
  const kernel = buildKernel({ name: 'test', threads }, (k) => {
    const array = (name: string, element: ArrayRef['element']): ArrayRef => k.buffer(name, element, 'read');
    const element = isCopied ? 'u32x4' : 'f32x4';
    const arrays = {
      ...{ q: array('q', 'f32x4'), keys: array('keys', element), values: array('values', element) },
      ...{ start: array('start', 'i32'), count: array('count', 'i32') },
    };
    const y = k.buffer('y', 'f32x4', 'readWrite');
    writeAttendMatrices(k, problem, tile, arrays, (row, query, place, value) => {
      k.store(y, row.mul(problem.queries).add(query).mul(problem.headDim / 4).add(place), value); // biome-ignore format: short
    });
  });
  const contents: Record<string, Words> = {
    ...{ q: inputs.q, ...cache },
    ...{ start: Int32Array.from(problem.start), count: Int32Array.from(problem.count) },
    y: new Float32Array(inputs.q.length).fill(7),
  };
  return (await runKernel(gpu, kernel, contents, [workgroups])).y!;
}

const small: AttendTile = {
  ...{ rowGroups: 2, columnGroups: 1, matrixRows: 1, keys: 32, heads: 2, ahead: true, spare: 1 },
};
const shared: AttendTile = { ...small, rowGroups: 1, columnGroups: 2, matrixRows: 2, ahead: false, spare: 2 };
const base = { batch: 2, heads: 4, kvHeads: 2, queries: 70, headDim: 32, capacity: 80, window: null };
// A power of two times ln 2: queries are multiplied by scale / ln 2 before they are rounded.
const scale = Math.LN2 / 4;
const ring = {
  ...base,
  scale,
  queries: 20,
  headDim: 16,
  window: 24,
  capacity: 48,
  start: [60, 59],
  count: [17, 16],
};
const whole = { ...base, scale, start: [3, 2], count: [70, 65] };
const growing = { ...whole, queries: 40, count: [40, 33], growth: (p: number) => 1 + Math.floor(p / 2) };

describe.skipIf(typeof gpu === 'string')(`attention of many queries (${webgpuReason})`, () => {
  test.each<readonly [string, Problem, AttendTile, boolean]>([
    ['all keys', whole, small, false],
    ['all keys as halves, shared by subgroups', whole, shared, true],
    ['a window in a ring', ring, small, false],
    ['a window in a ring, as halves', ring, { ...small, keys: 64 }, true],
    ['scores that grow', growing, small, true],
    ['scores that grow, shared by subgroups', growing, shared, false],
    [
      'scores that grow in a window',
      { ...ring, growth: (p) => 1 + Math.floor(p / 2) },
      { ...small, spare: 2 },
      false,
    ],
    [
      'scores that fall',
      { ...growing, growth: (p) => 30 - Math.floor(p / 2) },
      { ...small, columnGroups: 2 },
      false,
    ],
    [
      'a result wider than the round, and not a multiple of it',
      { ...growing, headDim: 48, heads: 2, queries: 20, count: [20, 11] },
      { ...small, heads: 4, rowGroups: 1, matrixRows: 2 },
      true,
    ],
    ['no text in a row', { ...whole, queries: 20, count: [20, 0] }, small, true],
  ])('%s', async (_, problem, tile, isCopied) => {
    const inputs = inputsOf(problem);
    const found = await attention(problem, tile, inputs, isCopied);
    const expected = plainAttention(problem, inputs);
    expect(found.every((value) => Number.isFinite(value))).toBe(true);
    expectClose(Array.from(found), Array.from(expected), 2e-3, 0.2);
  });
});

test('many queries are cut for fewer reads of keys, few ones for enough workgroups', () => {
  const features = { ...plainFeatures, maxThreads: 1024, maxSharedBytes: 49152 };
  const large = { batch: 1, heads: 32, kvHeads: 8, headDim: 128, capacity: 4096, window: 4096, scale: 0.1 };
  const cut = (queries: number, adapter = features) => {
    const tile = attendTile({ ...large, queries }, adapter);
    return tile && attendLayout({ ...large, queries }, tile);
  };
  expect(cut(2048)).toMatchObject({ rows: 128, heads: 4, queries: 32, workgroups: 512 });
  expect(cut(2048)!.bytes).toBeLessThanOrEqual(features.maxSharedBytes);
  expect(cut(256)).toMatchObject({ rows: 64, heads: 4, queries: 16, workgroups: 128, threads: 256 });
  expect(cut(256, { ...features, maxThreads: 128 })).toMatchObject({ rows: 64, threads: 128 });
  expect(cut(2048, { ...features, maxSharedBytes: 34000 })).toMatchObject({ rows: 64 });
  expect(cut(2048, plainFeatures)).toBeUndefined();
});

describe.skipIf(!hasWebgpu)(`attention of many queries as the target selects it (${webgpuReason})`, () => {
  test.each([
    ['few, heads apart', 9, false],
    ['many, copied as halves, heads together', 260, true],
  ])('%s', async (_, query, isTurned) => {
    const target = await createWebgpuTarget({
      ...(isEmulated ? { matrices: 'emulated' as const } : {}),
      ...{ kernels: 'all', guard: false },
    });
    const shape: [number, number, number, number] = [1, 2, query, 16];
    const spec = { layers: 1, kvHeads: 1, headDim: 16, capacity: query + 4, window: null };
    const attend = (q: tf.Tensor, fresh: tf.Tensor, keys: tf.Tensor, start: tf.Tensor, count: tf.Tensor) => {
      const held = { spec, layout: 'fixed' as const, positions: null, padding: 0 };
      const cache = { ...held, keys: [keys as tf.Tensor4D], values: [tf.mul(keys, 2) as tf.Tensor4D] };
      const step = openStep(cache, start as tf.Tensor1D, count as tf.Tensor1D, query);
      const mixed = cachedAttention(
        step,
        0,
        q as tf.Tensor4D,
        fresh as tf.Tensor4D,
        fresh as tf.Tensor4D,
        0.4,
      );
      return [isTurned ? tf.transpose(mixed, [0, 2, 1, 3]) : mixed];
    };
    const inputs = [
      tf.tensor4d(waves(2 * query * 16, 1), shape),
      tf.tensor4d(waves(query * 16, 2), [1, 1, query, 16]),
      tf.tensor4d(waves((query + 4) * 16, 3), [1, 1, query + 4, 16]),
      ...[tf.tensor1d([3], 'int32'), tf.tensor1d([query - 2], 'int32')],
    ];
    await checkOnTarget(target, attend as never, inputs, 2e-3, 0.2, { mode: 'fast' });
    await target.dispose();
  });
});
