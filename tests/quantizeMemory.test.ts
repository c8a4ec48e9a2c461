// A checkpoint is quantized tensor by tensor: the memory that it takes is that of some tensors, not of the model.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { expandRules } from '../lib/convert.js';
import { mistralWeightMap } from '../lib/models/mistral.weights.js';
import { writeRandomCheckpoint } from '../lib/randomModel.js';
import { sizeOf } from '../lib/tensor.js';
import { built } from './built.js';
import { temporaryFolder } from './checkpointFiles.js';

const sizes = {
  ...{ vocabSize: 8000, dim: 512, innerDim: 2048, layers: 20, heads: 8, kvHeads: 2, headDim: 64 },
  ...{ tiedHead: false, attentionBias: false, mlpBias: false },
};
const map = mistralWeightMap(sizes);

/** A process that does this with the checkpoint; its result is the growth of its own largest memory in bytes. */
function growthBytes(source: string, work: string): number {
  const program = `
    import { openCheckpoint } from ${module('checkpoint')};
    import { loadQuantizedParams, quantizeCheckpoint } from ${module('quantize')};
    const [map, scheme] = [${JSON.stringify(map)}, { name: 'int4' }];
    const before = process.resourceUsage().maxRSS;
    const checkpoint = await openCheckpoint(${JSON.stringify(source)});
    ${work};
    await checkpoint.close();
    console.log(1024 * (process.resourceUsage().maxRSS - before));
  `;
  const args = ['--max-old-space-size=48', '--input-type=module', '-e', program];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  return Number(stdout);
}

function module(name: string): string {
  return JSON.stringify(pathToFileURL(built(name)).href);
}

test('a sharded checkpoint of 168 MB is quantized in less than 112 MB, and loaded so in 45 more', async () => {
  const folder = temporaryFolder();
  const source = join(folder, 'source');
  await writeRandomCheckpoint(source, { config: {}, map, dtype: 'bf16' }, { maxShardBytes: 60e6 });
  const elements = expandRules(map).map((rule) => sizeOf(rule.shape));
  const allElements = elements.reduce((sum, size) => sum + size, 0);
  expect(2 * allElements).toBeGreaterThan(168e6);
  // V8 lets 64 MiB of buffers lie before it collects them; beyond those, a few of the largest tensor.
  const limitBytes = 64 * 2 ** 20 + 5.5 * 2 * Math.max(...elements);
  expect(limitBytes).toBeLessThan(112.3e6);
  const target = JSON.stringify(join(folder, 'target'));
  const saved = growthBytes(source, `await quantizeCheckpoint(checkpoint, map, ${target}, scheme)`);
  expect(saved).toBeGreaterThan(1e6);
  expect(saved).toBeLessThan(limitBytes);
  const loaded = growthBytes(
    source,
    'globalThis.params = await loadQuantizedParams(checkpoint, map, scheme)',
  );
  expect(loaded).toBeGreaterThan(allElements / 2);
  expect(loaded).toBeLessThan(limitBytes + 0.54 * allElements);
}, 120_000);
