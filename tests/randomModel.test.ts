import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint.js';
import { expandRules, loadParams } from '../lib/convert.js';
import { gpt2WeightMap } from '../lib/models/gpt2.weights.js';
import { floatBits, normalQuantiles } from '../lib/randomModel/normal.js';
import {
  type RandomShape,
  randomShape,
  randomShapeNames,
  writeRandomCheckpoint,
} from '../lib/randomModel.js';
import { type FloatWeight, float32Values, sizeOf } from '../lib/tensor.js';
import { messageOf, temporaryFolder } from './checkpointFiles.js';

const sizes = { vocabSize: 301, maxPositions: 16, dim: 64, layers: 2, innerDim: 256, tiedHead: true };
const shape: RandomShape = { config: { model_type: 'gpt2' }, map: gpt2WeightMap(sizes), dtype: 'f32' };

function hashOf(folder: string): string {
  return createHash('sha256')
    .update(readFileSync(join(folder, 'model.safetensors')))
    .digest('hex')
    .slice(0, 16);
}

async function moments(folder: string, path: string) {
  const checkpoint = await openCheckpoint(folder);
  const params = await loadParams<Record<string, never>>(checkpoint, shape.map);
  await checkpoint.close();
  const weight = path.split('.').reduce<unknown>((branch, name) => (branch as never)[name], params);
  const values = float32Values(weight as FloatWeight);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  return { mean, deviation };
}

describe('random checkpoints', () => {
  test('one seed gives the same file everywhere, another one another', async () => {
    const parent = temporaryFolder();
    await writeRandomCheckpoint(join(parent, 'a'), shape, { seed: 1 });
    await writeRandomCheckpoint(join(parent, 'b'), shape, { seed: 2 });
    expect(hashOf(join(parent, 'a'))).toBe('1dc8fd2afc0047e8');
    expect(hashOf(join(parent, 'b'))).not.toBe(hashOf(join(parent, 'a')));
  });

  test("GPT-2's initialisation: 0.02, residual projections divided by sqrt(2 layers), norms 1 and 0", async () => {
    const folder = join(temporaryFolder(), 'model');
    await writeRandomCheckpoint(folder, shape);
    const plain = await moments(folder, 'h.0.mlp.c_fc.kernel');
    expect(plain.deviation).toBeCloseTo(0.02, 3);
    expect(plain.mean).toBeCloseTo(0, 3);
    expect((await moments(folder, 'h.1.mlp.c_proj.kernel')).deviation).toBeCloseTo(0.01, 3);
    expect(await moments(folder, 'ln_f.scale')).toEqual({ mean: 1, deviation: 0 });
    expect(await moments(folder, 'h.0.attn.c_attn.bias')).toEqual({ mean: 0, deviation: 0 });
  });

  test.each(['f16', 'bf16'] as const)(
    '%s, in shards with an index, says that it is random',
    async (dtype) => {
      const folder = join(temporaryFolder(), 'model');
      mkdirSync(folder);
      let last = 0;
      const onProgress = (done: number, total: number) => {
        last = done / total;
      };
      await writeRandomCheckpoint(folder, shape, { dtype, maxShardBytes: 100_000, onProgress });
      expect(readdirSync(folder)).toContain('model-00002-of-00003.safetensors');
      const checkpoint = await openCheckpoint(folder);
      expect(checkpoint.metadata.random).toMatch(/seed 0/);
      expect(checkpoint.entry('wte.weight')).toMatchObject({ dtype, shape: [301, 64] });
      await checkpoint.close();
      expect(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')).random_weights).toMatch(
        /answers mean nothing/,
      );
      expect(last).toBe(1);
      expect((await moments(folder, 'wte.embedding')).deviation).toBeCloseTo(0.02, 3);
    },
  );

  test('a folder with files in it is left alone', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'notes.txt'), '');
    expect(await messageOf(writeRandomCheckpoint(folder, shape))).toMatch(
      /expected a new folder, found notes.txt/,
    );
  });

  test('an abort leaves nothing', async () => {
    const parent = temporaryFolder();
    const controller = new AbortController();
    const onProgress = (done: number, total: number) => {
      if (done > total / 2) controller.abort();
    };
    const running = writeRandomCheckpoint(join(parent, 'model'), shape, {
      signal: controller.signal,
      onProgress,
    });
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
    expect(readdirSync(parent)).toEqual([]);
  });

  test.each([
    ['gpt2', 124_439_808],
    ['gpt2-medium', 354_823_168],
    ['mistral-7b-instruct-v0.2', 7_241_732_096],
    ['tinyllama-1.1b', 1_100_048_384],
    ['smollm2-135m', 134_515_008],
  ] as const)('%s has the published number of parameters', (name, parameters) => {
    expect(randomShapeNames).toContain(name);
    const rules = expandRules(randomShape(name).map).filter((rule) => !rule.optional);
    expect(rules.reduce((sum, rule) => sum + sizeOf(rule.shape), 0)).toBe(parameters);
  });
});

test('the quantiles are those of the normal distribution', () => {
  const table = normalQuantiles();
  expect(table[Math.round(0.975 * 65536 - 0.5)]).toBeCloseTo(1.959964, 4);
  expect(table[Math.round(0.001 * 65536 - 0.5)]).toBeCloseTo(-3.0902, 2);
  const variance = table.reduce((sum, value) => sum + value * value, 0) / table.length;
  expect(variance).toBeCloseTo(1, 3);
  expect(table[0]).toBe(-table[65535]!);
});

test('bits of half types: rounded to the nearest, ties to even', () => {
  const values = Float32Array.of(1, -2.5, 65504, 65520, 1e-7, 6e-8, 2049, 2051, Number.NaN, 1e-5, 0.1);
  for (const dtype of ['f16', 'bf16'] as const) {
    const bits = floatBits(values, dtype);
    const back = float32Values({ kind: 'float', dtype, shape: [11], bytes: new Uint8Array(bits.buffer) });
    for (const i of [0, 1]) expect(back[i]).toBe(values[i]);
    expect(back[8]).toBeNaN();
    if (dtype === 'bf16') expect(back[10]).toBeCloseTo(0.10009765625, 8);
    else expect([...back.slice(2, 8)]).toEqual([65504, Infinity, 2 * 2 ** -24, 2 ** -24, 2048, 2052]);
    if (dtype === 'f16') expect(Math.abs(back[9]! - 1e-5)).toBeLessThanOrEqual(2 ** -25);
  }
});
