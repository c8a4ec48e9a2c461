import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint.js';
import { loadParams } from '../lib/convert.js';
import { gpt2WeightMap } from '../lib/models/gpt2.weights.js';
import { quantizationError, quantizeMatrix } from '../lib/quantize/integers.js';
import {
  loadQuantizedParams,
  quantizationReport,
  quantizeCheckpoint,
  quantizeParams,
  reportBytes,
  type Scheme,
  schemeNames,
} from '../lib/quantize.js';
import { type RandomShape, writeRandomCheckpoint } from '../lib/randomModel.js';
import {
  type FloatWeight,
  float32Values,
  floatWeight,
  type Granularity,
  type ParamTree,
  unpackInt4,
  weightEntries,
} from '../lib/tensor.js';
import { messageOf, temporaryFolder } from './checkpointFiles.js';

/** Deterministic values of mixed sizes and signs. */
function matrix(rows: number, columns: number): FloatWeight {
  const values = Float32Array.from(
    { length: rows * columns },
    (_, i) => Math.sin(i * 1.7) * ((i % 7) + 1) * 0.1,
  );
  return floatWeight(values, [rows, columns]);
}

const sizes = { vocabSize: 37, maxPositions: 8, dim: 10, layers: 2, innerDim: 21, tiedHead: true };
const shape: RandomShape = { config: { model_type: 'gpt2' }, map: gpt2WeightMap(sizes), dtype: 'f16' };

async function tinyCheckpoint() {
  const folder = join(temporaryFolder(), 'model');
  await writeRandomCheckpoint(folder, shape);
  return openCheckpoint(folder);
}

describe('int8', () => {
  test('per tensor: scale = max|w| / 127, values by hand', () => {
    const weight = quantizeMatrix(floatWeight(Float32Array.of(1.27, -0.5, 0.004, 0), [2, 2]), 'int8', {
      per: 'tensor',
    });
    expect([...weight.scales]).toEqual([Math.fround(Math.fround(1.27) / 127)]);
    expect([...weight.bytes]).toEqual([127, -50, 0, 0]);
  });

  test('per channel: each column of a kernel, each row of an embedding has its own scale', () => {
    const values = floatWeight(Float32Array.of(127, 1, -254, 0.5), [2, 2]);
    const kernel = quantizeMatrix(values, 'int8', { per: 'channel', axis: 1 });
    expect([...kernel.scales]).toEqual([2, Math.fround(1 / 127)]);
    expect([...kernel.bytes]).toEqual([64, 127, -127, 64]);
    const embedding = quantizeMatrix(values, 'int8', { per: 'channel', axis: 0 });
    expect([...embedding.scales]).toEqual([1, 2]);
    expect([...embedding.bytes]).toEqual([127, 1, -127, 0]);
  });
});

describe('every granularity', () => {
  const granularities: Granularity[] = [
    { per: 'tensor' },
    ...([0, 1] as const).map((axis) => ({ per: 'channel', axis }) as const),
    ...([0, 1] as const).flatMap((axis) => [4, 32].map((size) => ({ per: 'group', axis, size }) as const)),
  ];

  test.each(granularities)('%o: no value moves more than half a scale, at odd widths too', (granularity) => {
    for (const [rows, columns] of [
      [33, 7],
      [5, 67],
      [1, 1],
    ] as const) {
      const original = matrix(rows, columns);
      for (const kind of ['int8', 'int4'] as const) {
        if (kind === 'int4' && granularity.per !== 'group') continue;
        const quantized = quantizeMatrix(original, kind, granularity);
        const values = float32Values(original);
        const back = float32Values(quantized);
        const integers = quantized.kind === 'int8' ? quantized.bytes : unpackInt4(quantized);
        for (let i = 0; i < values.length; i++) {
          const scale = integers[i] ? back[i]! / integers[i]! : Math.max(...quantized.scales);
          expect(Math.abs(values[i]! - back[i]!)).toBeLessThanOrEqual(scale * 0.50001);
        }
        expect(quantized.shape).toEqual([rows, columns]);
      }
    }
  });

  test('an odd count of int4 leaves the last high half 0', () => {
    const weight = quantizeMatrix(matrix(3, 3), 'int4', { per: 'group', axis: 1, size: 32 });
    expect(weight.bytes).toHaveLength(5);
    expect(weight.bytes[4]! >> 4).toBe(0);
  });

  test('int4 without groups is refused', () => {
    expect(() => quantizeMatrix(matrix(2, 2), 'int4', { per: 'tensor' })).toThrow(/expected groups for int4/);
  });

  test('zeros stay zeros, and numbers too small for a scale become zeros', () => {
    for (const value of [0, 1e-45]) {
      const weight = quantizeMatrix(floatWeight(new Float32Array(4).fill(value), [2, 2]), 'int8', {
        per: 'tensor',
      });
      expect(Math.max(...float32Values(weight))).toBeLessThanOrEqual(1e-44);
      expect(float32Values(weight).every(Number.isFinite)).toBe(true);
    }
  });

  test('a scale so small that it has lost digits does not wrap the largest values around', () => {
    const step = 2 ** -149; // the smallest float32: 180 / 127 steps are rounded to one
    const weight = quantizeMatrix(
      floatWeight(Float32Array.of(180 * step, -180 * step, step), [1, 3]),
      'int8',
      {
        per: 'tensor',
      },
    );
    expect([...weight.bytes]).toEqual([127, -127, 1]);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])('%s is refused with its place', (bad) => {
    const original = matrix(3, 4);
    float32Values(original)[6] = bad;
    const params = { layer: { kernel: original } };
    expect(() => quantizeParams(params, { name: 'int8' })).toThrow(/layer.kernel: .*row 1, column 2/);
  });
});

describe('errors and sizes', () => {
  test('largest and mean error and signal to noise, by hand', () => {
    const original = floatWeight(Float32Array.of(127, 1.25), [1, 2]);
    const quantized = quantizeMatrix(original, 'int8', { per: 'tensor' });
    const { maxError, meanError, snrDb } = quantizationError(original, quantized);
    expect(maxError).toBeCloseTo(0.25);
    expect(meanError).toBeCloseTo(0.125);
    expect(snrDb).toBeCloseTo(10 * Math.log10((127 ** 2 + 1.25 ** 2) / 0.25 ** 2));
  });

  test('the report agrees with the values themselves', () => {
    const params = { a: { kernel: matrix(70, 9) }, wpe: { embedding: matrix(4, 9) } };
    for (const name of ['int8', 'int8-tensor', 'int8-group', 'int4'] as const) {
      const quantized = quantizeParams(params, { name, groupSize: 32 });
      const [line, kept] = quantizationReport(params, quantized);
      const back = float32Values(quantized.a.kernel);
      const errors = float32Values(params.a.kernel).map((value, i) => Math.abs(value - back[i]!));
      expect(line!.maxError).toBeCloseTo(Math.max(...errors), 6);
      expect(line!.meanError).toBeCloseTo(errors.reduce((sum, error) => sum + error, 0) / errors.length, 6);
      expect(kept).toMatchObject({ kind: 'float', maxError: 0, snrDb: Number.POSITIVE_INFINITY });
    }
  });

  test('bytes against float32 and float16', () => {
    const params = { a: { kernel: matrix(64, 10), bias: floatWeight(new Float32Array(10), [10]) } };
    const report = quantizationReport(params, quantizeParams(params, { name: 'int8' }));
    expect(reportBytes(report)).toEqual({ bytes: 640 + 40 + 40, f32Bytes: 2600, f16Bytes: 1300 });
  });
});

describe('schemes', () => {
  const params = {
    wte: { embedding: matrix(6, 4) },
    wpe: { embedding: matrix(3, 4) },
    h: [{ attn: { c_attn: { kernel: matrix(4, 12), bias: floatWeight(new Float32Array(12), [12]) } } }],
    ln_f: { scale: floatWeight(new Float32Array(4), [4]) },
  };
  const kinds = (tree: ParamTree) =>
    Object.fromEntries([...weightEntries(tree)].map(([path, w]) => [path, w.kind]));

  test('norms, biases and position embeddings are kept', () => {
    expect(kinds(quantizeParams(params, { name: 'int4', groupSize: 32 }))).toEqual({
      'wte.embedding': 'int4',
      'wpe.embedding': 'float',
      'h.0.attn.c_attn.kernel': 'int4',
      'h.0.attn.c_attn.bias': 'float',
      'ln_f.scale': 'float',
    });
  });

  test('mixed precision keeps the same Weight', () => {
    const mixed = quantizeParams(params, { name: 'int8', keep: ['h.*.attn.*'] });
    expect(mixed.h[0]!.attn.c_attn.kernel).toBe(params.h[0]!.attn.c_attn.kernel);
    expect(mixed.wte.embedding.kind).toBe('int8');
  });

  test('a pattern that fits nothing is a mistake', () => {
    const scheme: Scheme = { name: 'int8', keep: ['h.*.atn.*'] };
    expect(() => quantizeParams(params, scheme)).toThrow(
      /received h.\*.atn.\*, which fits none of wte.embedding/,
    );
  });

  test('stored changes nothing, f32 widens', () => {
    expect(quantizeParams(params, { name: 'stored' }).wte.embedding).toBe(params.wte.embedding);
    const half = {
      kernel: { kind: 'float', dtype: 'f16', shape: [1, 1], bytes: Uint8Array.of(0, 0x3e) },
    } as const;
    expect([
      ...float32Values(quantizeParams(half as ParamTree, { name: 'f32' }).kernel as FloatWeight),
    ]).toEqual([1.5]);
  });

  test('integers are not rounded again', () => {
    const int8 = quantizeParams(params, { name: 'int8' });
    expect(quantizeParams(int8, { name: 'int8' }).wte.embedding).toBe(int8.wte.embedding);
    expect(() => quantizeParams(int8, { name: 'int4' })).toThrow(
      /wte.embedding: expected float values for int4/,
    );
  });

  test('a group size that is none of the three', () => {
    const scheme = { name: 'int4', groupSize: 48 } as unknown as Scheme; // as from a command line
    expect(() => quantizeParams(params, scheme)).toThrow(/groupSize: expected 32, 64 or 128, received 48/);
  });
});

describe('saved and loaded again', () => {
  test.each(schemeNames)('%s: bit for bit what quantizing in memory gives', async (name) => {
    const checkpoint = await tinyCheckpoint();
    const scheme: Scheme = { name, groupSize: 32, keep: ['h.1.mlp.*'] };
    const expected = quantizeParams(await loadParams<ParamTree>(checkpoint, shape.map), scheme);
    const folder = join(temporaryFolder(), 'new', 'folder');
    expect(await loadQuantizedParams<ParamTree>(checkpoint, shape.map, scheme)).toEqual(expected);
    const report = await quantizeCheckpoint(checkpoint, shape.map, folder, scheme);
    await checkpoint.close();
    const saved = await openCheckpoint(folder);
    const loaded = await loadParams<ParamTree>(saved, shape.map);
    await saved.close();
    expect(loaded).toEqual(expected);
    expect(report.map(({ path }) => path)).toEqual([...weightEntries(expected)].map(([path]) => path));
    expect(saved.metadata).toMatchObject({ scheme: name, source: 'model', random: expect.any(String) });
    if (name.startsWith('int')) expect(loaded).not.toEqual(await reload(checkpoint.source));
  });

  test.each(['int8', 'int4', 'f32'] as const)(
    '%s from a loaded tree: the same, in memory of its own',
    async (name) => {
      const checkpoint = await tinyCheckpoint();
      const scheme: Scheme = { name, groupSize: 32 };
      const expected = await loadQuantizedParams<ParamTree>(checkpoint, shape.map, scheme);
      const wide = await loadQuantizedParams<ParamTree>(checkpoint, shape.map, { name: 'f32' });
      const original = vi.spyOn(checkpoint, 'read');
      const made = await loadQuantizedParams<ParamTree>(checkpoint, shape.map, scheme, { loaded: wide });
      expect(made).toEqual(expected);
      expect([...weightEntries(made)].map(([path]) => path)).toEqual(
        [...weightEntries(expected)].map(([path]) => path),
      );
      const memory = new Set([...weightEntries(wide)].map(([, { bytes }]) => bytes.buffer));
      expect([...weightEntries(made)].filter(([, { bytes }]) => memory.has(bytes.buffer))).toEqual([]);
      const matrices = original.mock.calls.filter(([source]) => /c_attn.weight|wte/.test(source));
      expect(matrices).toHaveLength(name === 'f32' ? 3 : 0);
      await checkpoint.close();
    },
  );

  async function reload(folder: string): Promise<ParamTree> {
    const checkpoint = await openCheckpoint(folder);
    return loadParams<ParamTree>(checkpoint, shape.map).finally(() => checkpoint.close());
  }

  test('a saved file with a lying description is refused', async () => {
    const checkpoint = await tinyCheckpoint();
    const folder = temporaryFolder();
    await quantizeCheckpoint(checkpoint, shape.map, folder, { name: 'int8' });
    await checkpoint.close();
    const file = join(folder, 'model.safetensors');
    const text = readFileSync(file, 'latin1');
    writeFileSync(file, text.replace('channel\\",\\"axis\\":1', 'channel\\",\\"axis\\":0'), 'latin1');
    expect(await messageOf(reload(folder))).toMatch(/kernel.scales: expected f32 \[10\], found f32 \[30\]/);
    writeFileSync(file, text.replace('kind\\":\\"int8', 'kind\\":\\"int9'), 'latin1');
    expect(await messageOf(reload(folder))).toMatch(/expected \{ kind, shape, granularity \}/);
  });

  test('quantizing twice, or onto its own source, is refused', async () => {
    const checkpoint = await tinyCheckpoint();
    const onto = quantizeCheckpoint(checkpoint, shape.map, checkpoint.source, { name: 'int8' });
    expect(await messageOf(onto)).toMatch(/is the checkpoint that is read/);
    const folder = temporaryFolder();
    await quantizeCheckpoint(checkpoint, shape.map, folder, { name: 'int8' });
    await checkpoint.close();
    const saved = await openCheckpoint(folder);
    const again = quantizeCheckpoint(saved, shape.map, join(folder, 'again'), { name: 'int4' });
    expect(await messageOf(again)).toMatch(/is quantized already/);
    await saved.close();
  });

  test('an abort leaves no file and no folder', async () => {
    const checkpoint = await tinyCheckpoint();
    const parent = temporaryFolder();
    const controller = new AbortController();
    const running = quantizeCheckpoint(
      checkpoint,
      shape.map,
      join(parent, 'out'),
      { name: 'int8' },
      {
        signal: controller.signal,
        onProgress: (done, total) => {
          if (done > total / 2) controller.abort();
        },
      },
    );
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
    expect(readdirSync(parent)).toEqual([]);
    await checkpoint.close();
  });
});
