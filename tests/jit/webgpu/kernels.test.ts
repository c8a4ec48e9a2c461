// The matrix-vector kernels against plain arithmetic: each packing, rows, odd widths, norm, pairs; with subgroups as the
// adapter has them, and without.
import { describe, expect, test } from 'vitest';
import { buildKernel } from '../../../lib/jit/kernels/builder.js';
import type { Features } from '../../../lib/jit/kernels/kernel.js';
import { plainFeatures } from '../../../lib/jit/kernels/kernel.js';
import type { Packing } from '../../../lib/jit/kernels/unpack.js';
import type { Gpu } from '../../../lib/jit/targets/webgpu/device.js';
import { storeQuantized } from '../../../lib/jit/targets/webgpu/kernels/activations.js';
import { blockElement, perVector } from '../../../lib/jit/targets/webgpu/kernels/dots.js';
import { mostLanes } from '../../../lib/jit/targets/webgpu/kernels/lanes.js';
import { matmulThreads, matmulWorkgroups } from '../../../lib/jit/targets/webgpu/kernels/matmul.js';
import {
  matmulFloatsSharedBytes,
  writeMatmulFloats,
} from '../../../lib/jit/targets/webgpu/kernels/matmulFloats.js';
import type { MatvecShape } from '../../../lib/jit/targets/webgpu/kernels/matvec.js';
import { matvecThreads, writeMatvec } from '../../../lib/jit/targets/webgpu/kernels/matvec.js';
import { matvecWorkgroups } from '../../../lib/jit/targets/webgpu/kernels/matvecFinish.js';
import { runKernel, testGpu } from './runKernel.js';

const gpu = await testGpu();
const onGpu = describe.skipIf(typeof gpu === 'string');

function randomValues(count: number, seed = 1): Float32Array {
  return Float32Array.from({ length: count }, (_, i) =>
    Math.fround(Math.sin((i + 1) * 12.9898 * seed) * 0.5),
  );
}

interface Packed {
  readonly words: Uint32Array;
  readonly scales: Float32Array;
  readonly values: Float32Array; // [out, in] as the words say
}

/** Packs [out, in] numbers into words; integers with a scale a row (int8) or a group of 32 (int4). */
function pack(packing: Packing, out: number, inDim: number, seed: number): Packed {
  const source = randomValues(out * inDim, seed);
  const values = new Float32Array(source.length);
  const bits = 128 / perVector(packing);
  const words = new Uint32Array((source.length * bits) / 32);
  const scales: number[] = [];
  const put = (i: number, code: number) => {
    words[(i * bits) >> 5]! |= (bits === 32 ? code : code & (2 ** bits - 1)) << ((i * bits) & 31);
  };
  const group = packing === 'int4' ? 32 : inDim;
  const view = new DataView(new ArrayBuffer(4));
  for (let i = 0; i < source.length; i++) {
    if (packing === 'int8' || packing === 'int4') {
      const most = packing === 'int8' ? 127 : 7;
      if (i % group === 0)
        scales.push(Math.fround(Math.max(...source.subarray(i, i + group).map(Math.abs)) / most));
      const code = Math.round(source[i]! / scales.at(-1)!);
      values[i] = code * scales.at(-1)!;
      put(i, packing === 'int8' ? code : code + 8);
    } else if (packing === 'f16') {
      values[i] = Math.round(source[i]! * 256) / 256; // exact in float16
      put(i, halfBits(values[i]!));
    } else {
      view.setFloat32(0, source[i]!);
      const kept = packing === 'bf16' ? view.getUint32(0) & 0xffff0000 : view.getUint32(0);
      view.setUint32(0, kept);
      values[i] = view.getFloat32(0);
      put(i, packing === 'bf16' ? kept >>> 16 : kept);
    }
  }
  return { words, scales: Float32Array.from(scales), values };
}

function halfBits(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const single = view.getUint32(0);
  if (value === 0) return 0;
  return ((single >>> 16) & 0x8000) | ((((single >>> 23) & 255) - 112) << 10) | ((single >>> 13) & 1023);
}

function product(x: Float32Array, values: Float32Array, rows: number, out: number, inDim: number): number[] {
  return Array.from({ length: rows * out }, (_, i) => {
    const [row, column] = [Math.floor(i / out), i % out];
    let sum = 0;
    for (let j = 0; j < inDim; j++) sum += x[row * inDim + j]! * values[column * inDim + j]!;
    return sum;
  });
}

function expectNear(received: ArrayLike<number>, expected: readonly number[], tolerance: number): void {
  const largest = Math.max(...expected.map(Math.abs));
  expected.forEach((value, i) => {
    const error = Math.abs(received[i]! - value) / largest;
    if (!(error <= tolerance))
      expect.fail(`element ${i}: ${received[i]} instead of ${value}, error ${error}`);
  });
}

const features = (plain: boolean): Features => (plain ? plainFeatures : (gpu as Gpu).features);
const scaleOf = (packing: Packing) =>
  packing === 'int4' ? { groupSize: 32 } : packing === 'int8' ? ('row' as const) : ('none' as const);

onGpu('a matrix-vector product', () => {
  // Groups of whole subgroups, and of half of one.
  const shapesOf = (most: number): readonly MatvecShape[] => [
    { rows: 8, lanes: most, rowsPerGroup: 2, splits: 1, unroll: 2 },
    { rows: 8, lanes: most / 2, rowsPerGroup: 4, splits: 2, unroll: 1 },
  ];
  test.each(
    (['f32', 'f16', 'bf16', 'int8', 'int4'] as const).flatMap((packing) =>
      // Shapes take turns: compiling them all takes an emulated GPU too long.
      [1, 3].map((rows) => ({ packing, rows, plain: rows === 1 })),
    ),
  )('$packing, $rows rows, plain $plain', async ({ packing, rows, plain }) => {
    for (const shape of shapesOf(mostLanes(features(plain)))) {
      const [out, inDim] = [19, 224];
      const x = randomValues(rows * inDim, 3);
      const { words, scales, values } = pack(packing, out, inDim, 2);
      const gain = randomValues(inDim, 5);
      const kernel = buildKernel({ name: 'test', threads: matvecThreads(shape) }, (k) => {
        const scaled = packing.startsWith('int') ? k.buffer('scales', 'f32', 'read') : null;
        const weights = { words: k.buffer('words', 'u32x4', 'read'), scales: scaled, firstRow: 0 };
        const y = k.buffer('y', 'f32', 'readWrite');
        writeMatvec(
          k,
          features(plain),
          {
            ...{ rows, inDim, packing, rowVectors: inDim / perVector(packing), scales: scaleOf(packing) },
            input: {
              kind: 'floats',
              x: k.buffer('x', 'f32x4', 'read'),
              gain: k.buffer('gain', 'f32x4', 'read'),
              bias: null,
            },
            norm: { kind: 'rms', epsilon: 0.01 },
            parts: [
              {
                width: out,
                products: [weights],
                pairs: null,
                finish: (row, [column], [values]) => k.store(y, row.mul(out).add(column!), values![0]!),
              },
            ],
          },
          shape,
        );
      });
      const y = new Float32Array(rows * out);
      const groups = matvecWorkgroups([{ width: out, products: [1 as never] }], shape);
      const result = await runKernel(gpu as Gpu, kernel, { words, scales, x, gain, y }, [groups]);
      const normal = x.map((value, i) => {
        const own = x.subarray(Math.floor(i / inDim) * inDim, (Math.floor(i / inDim) + 1) * inDim);
        const mean = own.reduce((sum, each) => sum + each * each, 0) / inDim;
        return (value / Math.sqrt(mean + 0.01)) * gain[i % inDim]!;
      });
      expectNear(result.y!, product(normal, values, rows, out, inDim), 3e-6);
    }
  });
});

/** Integers in blocks of 16 as the kernels make them, `most` the largest, and the numbers that they stand for. */
function quantized(x: Float32Array, gain: Float32Array, most: number): { values: Float32Array } {
  const values = new Float32Array(x.length);
  for (let block = 0; block < x.length; block += 16) {
    const own = Array.from(
      x.subarray(block, block + 16),
      (value, i) => value * gain[(block + i) % gain.length]!,
    );
    const largest = Math.max(...own.map(Math.abs));
    own.forEach((value, i) => {
      values[block + i] = (Math.round((value * most) / largest) * largest) / most;
    });
  }
  return { values };
}

onGpu('a product of signed bytes', () => {
  const packings = ['int8', 'int4'] as const;
  const cases = packings.flatMap((packing) =>
    [1, 2, 8].flatMap((rows) => ([1, 3] as const).map((limbs) => ({ packing, rows, limbs }))),
  );
  test.each(cases)('$packing, $rows rows, $limbs bytes a number', async ({ packing, rows, limbs }) => {
    const [out, inDim] = [24, 192];
    const x = randomValues(rows * inDim, 3);
    const gain = randomValues(inDim, 5);
    const { words, scales, values } = pack(packing, out, inDim, 2);
    const quantize = buildKernel({ name: 'quantize', threads: 64 }, (k) => {
      const [from, gains] = [k.buffer('x', 'f32', 'read'), k.buffer('gain', 'f32', 'read')];
      const arrays = {
        bytes: k.buffer('bytes', 'u32', 'readWrite'),
        blocks: k.buffer('blocks', 'f32x2', 'readWrite'),
      };
      const word = k.let('word', k.builtin('workgroupX').mul(64).add(k.localIndex));
      k.if(word.lt((rows * inDim) / 4), () => {
        const begin = k.let('begin', word.div(4).mul(16));
        const form = { order: packing === 'int4' ? 'nibbles' : 'plain', limbs } as const;
        storeQuantized(
          k,
          arrays,
          form,
          word,
          (i) => from.at(begin.add(i)),
          (i) => gains.at(begin.add(i).rem(inDim)),
        );
      });
    });
    const empty = {
      bytes: new Uint32Array((rows * inDim * limbs) / 4),
      blocks: new Float32Array((rows * inDim) / 8),
    };
    const made = await runKernel(gpu as Gpu, quantize, { x, gain, ...empty }, [
      Math.ceil((rows * inDim) / 256),
    ]);
    const most = mostLanes(features(false));
    const shape = { rows: 8, lanes: rows === 1 ? most : most / 2, rowsPerGroup: 4, splits: 2, unroll: 1 };
    const kernel = buildKernel({ name: 'test', threads: matvecThreads(shape) }, (k) => {
      const weights = {
        words: k.buffer('words', 'u32x4', 'read'),
        scales: k.buffer('scales', 'f32', 'read'),
        firstRow: 0,
      };
      const y = k.buffer('y', 'f32', 'readWrite');
      writeMatvec(
        k,
        features(false),
        {
          ...{ rows, inDim, packing, rowVectors: inDim / perVector(packing), scales: scaleOf(packing) },
          input: {
            ...{ kind: 'bytes', limbs },
            bytes: k.buffer('bytes', 'u32x4', 'read'),
            blocks: k.buffer('blocks', blockElement[packing], 'read'),
          },
          norm: { kind: 'rms', epsilon: 0.01 },
          parts: [
            {
              width: out,
              products: [weights],
              pairs: { layout: 'halves', headDim: 8 },
              finish: (row, columns, products) => {
                // A mark that shows which column met which: each is written with a tenth of its partner.
                columns.forEach((column, i) => {
                  k.store(y, row.mul(out).add(column), products[i]![0]!.add(products[1 - i]![0]!.mul(0.1)));
                });
              },
            },
          ],
        },
        shape,
      );
    });
    const groups = matvecWorkgroups([{ width: out, products: [1 as never] }], shape);
    const result = await runKernel(
      gpu as Gpu,
      kernel,
      {
        words,
        scales,
        bytes: new Uint32Array(made.bytes!.slice().buffer),
        blocks: made.blocks!,
        y: new Float32Array(rows * out),
      },
      [groups],
    );
    // Three bytes stand for what was there.
    const normal = quantized(x, gain, limbs === 1 ? 127 : 2 ** 40).values.map((value, i) => {
      const own = x.subarray(Math.floor(i / inDim) * inDim, (Math.floor(i / inDim) + 1) * inDim);
      return value / Math.sqrt(own.reduce((sum, each) => sum + each * each, 0) / inDim + 0.01);
    });
    const plain = product(normal, values, rows, out, inDim);
    const partner = (i: number) => (i % 8 < 4 ? i + 4 : i - 4);
    expectNear(
      result.y!,
      plain.map((value, i) => value + 0.1 * plain[partner(i)]!),
      1e-5,
    );
  });
});

onGpu('a product of many rows', () => {
  test.each(['f32', 'f16', 'int8', 'int4'] as const)(
    '%s, in tiles that do not divide it',
    async (packing) => {
      const [rows, out, inDim] = [37, 45, 160];
      const tile = { rows: 32, columns: 32, depth: 16, threadRows: 4, threadColumns: 4 };
      const x = randomValues(rows * inDim, 3);
      const [a, b] = [pack(packing, out, inDim, 2), pack(packing, out + 4, inDim, 4)];
      const rowWords = (4 * inDim) / perVector(packing);
      const kernel = buildKernel({ name: 'test', threads: matmulThreads(tile) }, (k) => {
        const weights = (name: string, firstRow: number) => ({
          words: k.buffer(`${name}Words`, 'u32', 'read'),
          scales: packing.startsWith('int') ? k.buffer(`${name}Scales`, 'f32', 'read') : null,
          firstRow,
        });
        const y = k.buffer('y', 'f32', 'readWrite');
        writeMatmulFloats(
          k,
          {
            ...{
              rows,
              inDim,
              width: out,
              packing,
              rowWords,
              scales: scaleOf(packing),
              input: { kind: 'floats', x: k.buffer('x', 'f32x4', 'read') },
              ...{ splits: 1, packedDot: true },
            },
            products: [weights('a', 0), weights('b', 4)],
            finish: (row, column, [first, second]) =>
              k.store(y, row.mul(out).add(column), first!.add(second!.mul(0.5))),
          },
          tile,
        );
      });
      expect(matmulFloatsSharedBytes(tile, 2)).toBeLessThanOrEqual(16384);
      const buffers = {
        aWords: a.words,
        aScales: a.scales,
        bWords: b.words,
        bScales: b.scales,
        x,
        y: new Float32Array(rows * out),
      };
      const result = await runKernel(gpu as Gpu, kernel, buffers, [
        matmulWorkgroups({ rows, width: out, splits: 1 }, tile),
      ]);
      const second = product(x, b.values.subarray(4 * inDim), rows, out, inDim);
      const expected = product(x, a.values, rows, out, inDim).map((value, i) => value + 0.5 * second[i]!);
      expectNear(result.y!, expected, 3e-6);
    },
  );
});
