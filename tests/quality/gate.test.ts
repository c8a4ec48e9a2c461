import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CompiledModel, compileModel } from '../../lib/compile.js';
import { evaluationFile, readSamples } from '../../lib/dataset.js';
import { loadModel } from '../../lib/model.js';
import { modelsFolder } from '../../lib/paths.js';
import { compareWeights, failedThresholds, type WeightsComparison } from '../../lib/quality/gate.js';
import { useCpu } from '../smallModel.js';

const SAMPLES = 100;
const folder = join(modelsFolder(), 'tiny-gpt2');

describe('INT8 per output channel against float32', () => {
  const models: CompiledModel[] = [];
  let found: WeightsComparison;
  beforeAll(async () => {
    await useCpu();
    for (const name of ['int8', 'f32'] as const) {
      models.push(await compileModel(await loadModel(folder, { scheme: { name } }), { target: 'wasm' }));
    }
    const samples = await readSamples(evaluationFile(), SAMPLES);
    found = await compareWeights(models[0]!, models[1]!, samples, { maxNewTokens: 64 });
  });
  afterAll(async () => {
    for (const model of models) await model.dispose();
  });

  test('the texts stay the same: ROUGE-L of at least 0.98 on 100 prompts', () => {
    expect(found.samples).toBe(SAMPLES);
    expect(found.text.rougeL).toBeGreaterThanOrEqual(0.98);
  });

  test('perplexity stays within 0.5 %', () => {
    expect(Math.abs(found.perplexityRatio - 1)).toBeLessThan(0.005);
    expect(found.perplexity).not.toBe(found.referencePerplexity);
  });

  test('divergence is small, and not zero', () => {
    expect(found.klMean).toBeGreaterThan(0);
    expect(found.klMean).toBeLessThan(0.005);
    expect(found.sameTopToken).toBeGreaterThan(0.99);
    expect(failedThresholds(found, { maxPerplexityRatio: 1.005, minRougeL: 0.98 })).toEqual([]);
    expect(failedThresholds(found, { maxKlMean: 0, minSameTopToken: 1.1 })).toHaveLength(2);
  });
});
