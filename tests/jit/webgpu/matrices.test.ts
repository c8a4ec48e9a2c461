// tests/jit/webgpu/matrices.test.ts: kernels for matrix units, the units spelled out where the adapter has none: products
// of many rows against plain sums, and as the target selects them.
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { buildKernel } from '../../../lib/jit/kernels/builder.js';
import type { MatrixKind } from '../../../lib/jit/kernels/kernel.js';
import type { Packing } from '../../../lib/jit/kernels/unpack.js';
import { splitDepth } from '../../../lib/jit/targets/webgpu/kernels/matmul.js';
import { writeMatrixMatmul } from '../../../lib/jit/targets/webgpu/kernels/matmulMatrices.js';
import {
  type MatrixMatmulSpec,
  type MatrixTile,
  matrixTiles,
  matrixTileThreads,
} from '../../../lib/jit/targets/webgpu/kernels/matrixTile.js';
import { halvesOrder } from '../../../lib/jit/targets/webgpu/kernels/matrixWeights.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { linear } from '../../../lib/ops.js';
import { quantizeMatrix } from '../../../lib/quantize/integers.js';
import { randomWeight } from '../../smallModel.js';
import { hasWebgpu, isEmulated, webgpuReason } from '../../webgpu.js';
import { checkOnTarget } from '../onTarget.js';
import { runKernel, testGpu, type Words } from './runKernel.js';

const gpu = await testGpu();

/** Integers from -limit to limit that look random. */
const integers = (count: number, limit: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => Math.round(limit * Math.sin((i + 1) * 12.9898 * (seed + 1))));

/** Small integers as float16 or bfloat16, whose upper bits of float32 hold them. */
function packedRow(packing: Packing, row: readonly number[]): number[] {
  const bits = { f16: 16, bf16: 16, int8: 8, int4: 4, f32: 32 }[packing];
  const fields = row.map((value) => {
    if (packing === 'int8') return value & 0xff;
    if (packing === 'int4') return value + 8;
    const [word] = new Uint32Array(Float32Array.of(value).buffer) as unknown as [number];
    if (packing === 'bf16') return word >>> 16;
    return value === 0
      ? 0
      : ((word >>> 16) & 0x8000) | ((((word >>> 23) & 0xff) - 112) << 10) | ((word >>> 13) & 0x3ff);
  });
  const perWord = 32 / bits;
  return Array.from({ length: fields.length / perWord }, (_, i) =>
    fields
      .slice(i * perWord, (i + 1) * perWord)
      .reduce((word, field, at) => (word | (field << (at * bits))) >>> 0, 0),
  );
}

/** Numbers as a packing's weights come out. */
function ordered(kind: MatrixKind, packing: Packing, f16: boolean, row: readonly number[]): number[] {
  const order = kind === 'bytes' ? [0, 1, 2, 3, 4, 5, 6, 7] : halvesOrder(packing, f16);
  return row.map((_, i) => row[i - (i % 8) + order[i % 8]!]!);
}

interface Problem {
  readonly kind: MatrixKind;
  readonly packing: Packing;
  readonly rows: number;
  readonly inDim: number;
  readonly width: number;
  readonly products?: number;
  readonly splits?: number;
  readonly pieces?: number;
  readonly group?: number;
}

const tile: MatrixTile = { rows: 32, columns: 32, depth: 32, subgroupRows: 16, subgroupColumns: 32 };

/** One product by the kernel, and by plain sums; numbers are integers, so that both are equal. */
async function multiply(problem: Problem) {
  const { kind, packing, rows, inDim, width, products = 1, splits = 1, group } = problem;
  if (typeof gpu === 'string') throw new Error(gpu);
  const x = integers(rows * inDim, 7, 1);
  const xWords = Array.from({ length: rows }, (_, row) =>
    packedRow(
      kind === 'bytes' ? 'int8' : 'f16',
      ordered(kind, packing, gpu.features.f16, x.slice(row * inDim, (row + 1) * inDim)),
    ),
  );
  const { pieces = kind === 'bytes' ? splits : 1 } = problem;
  const pieceWidth = splitDepth(inDim, pieces, tile);
  // From piece to piece half of the last one's, so that taking a sum from one to the next is exact too.
  const scaleOf = (row: number, piece: number) => (1 + (row % 3)) * 2 ** (pieces - piece);
  const xScales = Float32Array.from({ length: rows * pieces }, (_, i) =>
    scaleOf(Math.floor(i / pieces), i % pieces),
  );
  const perVector = { f16: 8, bf16: 8, int8: 16, int4: 32, f32: 4 }[packing];
  const rowVectors = Math.ceil(inDim / perVector);
  const groups = group ? Math.ceil(inDim / group) : 1;
  const weights = Array.from({ length: products }, (_, p) => integers(width * inDim, 7, p + 2));
  const scales = Array.from({ length: products }, (_, p) =>
    Float32Array.from({ length: width * groups }, (_, i) => 1 + ((i + p) % 4)),
  );
  const isScaled = packing === 'int8' || packing === 'int4';
  const contents: Record<string, Words> = {
    x: Uint32Array.from(xWords.flat()),
    xScales,
    y: new Float32Array(splits * products * rows * width),
  };
  const kernel = buildKernel({ name: 'test', threads: matrixTileThreads(tile) }, (k) => {
    const left = {
      ...{ words: k.buffer('x', 'u32x4', 'read'), scales: k.buffer('xScales', 'f32', 'read') },
      pieces,
    };
    const y = k.buffer('y', 'f32', 'readWrite');
    const rowsOf = weights.map((values, p) => {
      const words = Array.from({ length: width }, (_, row) => {
        const own = values.slice(row * inDim, (row + 1) * inDim);
        return packedRow(packing, [...own, ...new Array<number>(rowVectors * perVector - inDim).fill(0)]);
      });
      contents[`w${p}`] = Uint32Array.from(words.flat());
      contents[`s${p}`] = scales[p]!;
      return {
        words: k.buffer(`w${p}`, 'u32x4', 'read'),
        scales: isScaled ? k.buffer(`s${p}`, 'f32', 'read') : null,
        firstRow: 0,
      };
    });
    const spec: MatrixMatmulSpec = {
      ...{ kind, rows, inDim, left, packing, rowVectors, splits, f16: gpu.features.f16 },
      scales: !isScaled ? 'none' : group ? { groupSize: group } : 'row',
      parts: [
        {
          ...{ width, products: rowsOf },
          finish: (row, column, values, count, split) => () => {
            for (const [p, value] of values.entries()) {
              const piece = split.mul(products).add(p).mul(rows * width); // biome-ignore format: short
              const place = k.let('place', piece.add(row.mul(width)).add(column));
              for (let i = 0; i < count; i++) k.store(y, place.add(i), value.lane(i));
            }
          },
        },
      ],
    };
    writeMatrixMatmul(k, spec, tile);
  });
  const shapes = [{ width, products: new Array<never>(products) }];
  const { y } = await runKernel(gpu, kernel, contents, [matrixTiles(shapes, rows, tile) * splits]);
  const at = (split: number, p: number, row: number, column: number) =>
    y![((split * products + p) * rows + row) * width + column]!;
  for (let p = 0; p < products; p++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < width; column++) {
        let expected = 0;
        for (let i = 0; i < inDim; i++) {
          const scale = isScaled ? scales[p]![column * groups + (group ? Math.floor(i / group) : 0)]! : 1;
          const xScale = xScales[row * pieces + Math.floor(i / pieceWidth)]!;
          expected += x[row * inDim + i]! * weights[p]![column * inDim + i]! * scale * xScale;
        }
        const sum = Array.from({ length: splits }, (_, split) => at(split, p, row, column)).reduce(
          (a, b) => a + b,
        );
        if (sum !== expected) expect([p, row, column, sum]).toEqual([p, row, column, expected]);
      }
    }
  }
}

describe.skipIf(typeof gpu === 'string')(`products (${webgpuReason})`, () => {
  test.each<Problem>([
    { kind: 'halves', packing: 'f16', rows: 40, inDim: 64, width: 33 },
    { kind: 'halves', packing: 'bf16', rows: 9, inDim: 48, width: 16 },
    { kind: 'halves', packing: 'int8', rows: 33, inDim: 64, width: 20, products: 2 },
    { kind: 'halves', packing: 'int8', rows: 5, inDim: 64, width: 20, group: 32 },
    { kind: 'halves', packing: 'int4', rows: 33, inDim: 96, width: 40, group: 32, splits: 2 },
    { kind: 'bytes', packing: 'int8', rows: 33, inDim: 64, width: 40 },
    { kind: 'bytes', packing: 'int8', rows: 9, inDim: 80, width: 20, products: 2, splits: 2 },
    { kind: 'bytes', packing: 'int8', rows: 40, inDim: 112, width: 33, pieces: 3 },
    { kind: 'bytes', packing: 'int8', rows: 9, inDim: 80, width: 20, products: 2, pieces: 4 },
  ])('%o', multiply);
});

describe.skipIf(!hasWebgpu)(`as the target selects them (${webgpuReason})`, () => {
  const newTarget = (matrixWeights?: number) =>
    createWebgpuTarget({
      ...(isEmulated ? { matrices: 'emulated' as const } : {}),
      ...{ kernels: 'all', guard: false, matrixWeights },
    });
  /** Of the largest value: float16 inputs; inputs in signed bytes. */
  const tolerances = { exact: 1e-3, fast: 2e-2 };
  const weightOf = (inDim: number, outDim: number, seed: number) =>
    quantizeMatrix(randomWeight([inDim, outDim], seed), 'int8', { per: 'channel', axis: 1 });

  test.each(['exact', 'fast'] as const)(
    '%s: a norm, three outputs, pieces, a residual, large inputs',
    async (mode) => {
      const target = await newTarget();
      const [q, k, gate, up] = [
        weightOf(512, 48, 1),
        weightOf(512, 16, 2),
        weightOf(512, 33, 3),
        weightOf(512, 33, 4),
      ];
      const gain = tf.tensor1d(Array.from({ length: 512 }, (_, i) => 0.5 + (i % 5) / 3));
      const fn = (x: tf.Tensor) => {
        const root = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-5));
        const y = tf.mul(tf.mul(x, root), gain);
        const both = tf.mul(tf.sigmoid(linear(y, gate!)), linear(y, up!));
        return [linear(y, q!), tf.add(linear(y, k!), tf.slice(x, [0, 0], [-1, 16])), both];
      };
      const values = Array.from({ length: 10 * 512 }, (_, i) => 3e6 * Math.sin(i * 12.9898 + (i % 7)));
      await checkOnTarget(target, fn as never, [tf.tensor2d(values, [10, 512])], tolerances[mode], 1e-3, {
        mode,
      });
      await target.dispose();
    },
  );

  test.each(['exact', 'fast'] as const)(
    '%s: a sum of pieces that the next product reads through a norm',
    async (mode) => {
      const target = await newTarget();
      const [down, gate] = [weightOf(1024, 48, 1), weightOf(48, 40, 2)];
      const gain = tf.tensor1d(Array.from({ length: 48 }, (_, i) => 0.5 + (i % 5) / 3));
      const fn = (x: tf.Tensor) => {
        const sum = tf.add(linear(x, down!), tf.slice(x, [0, 0], [-1, 48]));
        const root = tf.rsqrt(tf.add(tf.mean(tf.square(sum), -1, true), 1e-5));
        return [sum, linear(tf.mul(tf.mul(sum, root), gain), gate!)];
      };
      const values = Array.from({ length: 10 * 1024 }, (_, i) => Math.sin(i * 12.9898 + (i % 7)));
      await checkOnTarget(target, fn as never, [tf.tensor2d(values, [10, 1024])], tolerances[mode], 1e-3, {
        mode,
      });
      await target.dispose();
    },
  );

  test('fast: many tiles, whose workgroups go through pieces of different scales', async () => {
    const target = await newTarget();
    const weight = weightOf(512, 2048, 1);
    const fn = (x: tf.Tensor) => tf.add(linear(x, weight), 1);
    // A quarter of each row is 1,000 times as large, a quarter 30 times, one row is 0.
    const sizes = [30, 1, 1000, 1e-3];
    const values = Array.from({ length: 512 * 512 }, (_, i) =>
      i < 512 ? 0 : sizes[Math.floor((i % 512) / 128)]! * Math.sin(i * 12.9898 + (i % 7)),
    );
    await checkOnTarget(target, fn as never, [tf.tensor2d(values, [512, 512])], tolerances.fast, 1e-3, {
      mode: 'fast',
    });
    await target.dispose();
  });

  test('fast: eight rows of large products between those of small ones', async () => {
    const target = await newTarget(10_000);
    const [first, gate, up, down, last] = [
      weightOf(64, 64, 1),
      weightOf(64, 160, 2),
      weightOf(64, 160, 3),
      weightOf(160, 64, 4),
      weightOf(64, 32, 5),
    ];
    const gain = tf.tensor1d(Array.from({ length: 64 }, (_, i) => 0.5 + (i % 5) / 3));
    const normed = (x: tf.Tensor) =>
      tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-5))), gain);
    const fn = (x: tf.Tensor) => {
      const y = tf.add(linear(x, first!), x);
      const wide = tf.mul(tf.sigmoid(linear(normed(y), gate!)), linear(normed(y), up!));
      const z = tf.add(linear(wide, down!), y);
      return [z, linear(normed(z), last!)];
    };
    const values = Array.from({ length: 8 * 64 }, (_, i) => Math.sin(i * 12.9898 + (i % 7)));
    await checkOnTarget(target, fn as never, [tf.tensor2d(values, [8, 64])], tolerances.fast, 1e-3, {
      mode: 'fast',
    });
    await target.dispose();
  });
});
