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

/** Quantizes, and prints the growth of its own largest memory in bytes. */
const program = (source: string, target: string): string => `
  import { openCheckpoint } from ${module('checkpoint')};
  import { quantizeCheckpoint } from ${module('quantize')};
  const before = process.resourceUsage().maxRSS;
  const checkpoint = await openCheckpoint(${JSON.stringify(source)});
  await quantizeCheckpoint(checkpoint, ${JSON.stringify(map)}, ${JSON.stringify(target)}, { name: 'int4' });
  await checkpoint.close();
  console.log(1024 * (process.resourceUsage().maxRSS - before));
`;

function module(name: string): string {
  return JSON.stringify(pathToFileURL(built(name)).href);
}

test('a sharded checkpoint of 168 MB is quantized in less than 112 MB', async () => {
  const folder = temporaryFolder();
  const source = join(folder, 'source');
  await writeRandomCheckpoint(source, { config: {}, map, dtype: 'bf16' }, { maxShardBytes: 60e6 });
  const tensorBytes = expandRules(map).map((rule) => 2 * sizeOf(rule.shape));
  expect(tensorBytes.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThan(168e6);
  // V8 lets 64 MiB of buffers lie before it collects them; beyond those, a few of the largest tensor.
  const limitBytes = 64 * 2 ** 20 + 5.5 * Math.max(...tensorBytes);
  expect(limitBytes).toBeLessThan(112.3e6);
  const args = [
    '--max-old-space-size=48',
    '--input-type=module',
    '-e',
    program(source, join(folder, 'target')),
  ];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(Number(stdout)).toBeGreaterThan(1e6);
  expect(Number(stdout)).toBeLessThan(limitBytes);
}, 120_000);
