import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { selectBackend } from '../../lib/backend.js';
import { evaluationFile, readSamples } from '../../lib/dataset.js';
import { loadModel, type Model } from '../../lib/model.js';
import { modelsFolder } from '../../lib/paths.js';
import { compareWeights, failedThresholds, type WeightsComparison } from '../../lib/quality/gate.js';

const SAMPLES = 100;
const folder = join(modelsFolder(), 'tiny-gpt2');

describe('INT8 per output channel against float32', () => {
  const models: Model[] = [];
  let found: WeightsComparison;
  beforeAll(async () => {
    await selectBackend('wasm');
    models.push(
      await loadModel(folder, { scheme: { name: 'int8' }, widen: true }),
      await loadModel(folder, { scheme: { name: 'f32' } }),
    );
    const samples = await readSamples(evaluationFile(), SAMPLES);
    found = await compareWeights(models[0]!, models[1]!, samples, { maxNewTokens: 64 });
  }, 180_000);
  afterAll(() => {
    for (const model of models) model.dispose();
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
