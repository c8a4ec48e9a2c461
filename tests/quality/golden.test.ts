// The quality gate's figures against PyTorch's of the same comparison (tests/golden/quality.json, described in its README).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { selectBackend } from '../../lib/backend.js';
import { evaluationFile, readSamples } from '../../lib/dataset.js';
import { loadModel, type Model } from '../../lib/model.js';
import { modelsFolder } from '../../lib/paths.js';
import { compareWeights } from '../../lib/quality/gate.js';
import { float32Values, floatWeight, mapWeights, type Weight } from '../../lib/tensor.js';

interface GoldenComparison {
  readonly samples: number;
  readonly positions: number;
  readonly levels: number;
  readonly perplexity: number;
  readonly perplexityOfCopy: number;
  readonly perplexityRatio: number;
  readonly klMean: number;
  readonly klP99: number;
  readonly sameTopToken: number;
}

const golden: Record<string, GoldenComparison> = JSON.parse(
  readFileSync(new URL('../golden/quality.json', import.meta.url), 'utf8'),
);

/** Rounds each output feature (kernel: column, embedding: row) to integers of -levels..levels. */
function roundedCopy(weight: Weight, path: string, levels: number): Weight {
  const [rows, columns] = weight.shape;
  if (columns === undefined) return weight;
  const values = float32Values(weight).slice();
  const isKernel = path.endsWith('kernel');
  const [channels, stride, step, length] = isKernel
    ? [columns, 1, columns, rows!]
    : [rows!, columns, 1, columns];
  for (let channel = 0; channel < channels; channel++) {
    let largest = 0;
    for (let i = 0, at = channel * stride; i < length; i++, at += step)
      largest = Math.max(largest, Math.abs(values[at]!));
    const scale = Math.fround(largest / levels) || 1;
    for (let i = 0, at = channel * stride; i < length; i++, at += step) {
      values[at] = roundHalfToEven(Math.fround(values[at]! / scale)) * scale;
    }
  }
  return floatWeight(values, weight.shape);
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

describe('compareWeights', () => {
  let original: Model;
  beforeAll(async () => {
    await selectBackend('wasm');
    original = await loadModel(join(modelsFolder(), 'tiny-mistral'), { scheme: { name: 'f32' } });
  });

  test.each(Object.entries(golden))('%s: the figures of PyTorch', async (name, expected) => {
    const params = mapWeights(original.params, (weight, path) => roundedCopy(weight, path, expected.levels));
    const samples = await readSamples(evaluationFile(), expected.samples);
    const found = await compareWeights({ ...original, params }, original, samples, { maxNewTokens: 1 });
    expect(found.positions).toBe(expected.positions);
    expect(found.referencePerplexity).toBeCloseTo(expected.perplexity, 5);
    expect(found.perplexity).toBeCloseTo(expected.perplexityOfCopy, 5);
    expect(found.perplexityRatio).toBeCloseTo(expected.perplexityRatio, 5);
    expect(found.sameTopToken).toBeCloseTo(expected.sameTopToken, 10);
    // The KL divergence of the int8 copy, some 1e-6 nats, hangs on the last digits of float32 logits.
    const tolerance = name === 'int8' ? 0.05 : 1e-3;
    expect(Math.abs(found.klMean / expected.klMean - 1)).toBeLessThan(tolerance);
    expect(Math.abs(found.klP99 / expected.klP99 - 1)).toBeLessThan(tolerance);
  });
});
