// bench/webgpu*: what is asked, how parts are run, what is compared. The GPU itself: tests/jit/webgpu.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, describe, expect, test } from 'vitest';
import { BARS, barsTable, judge } from '../bench/webgpuBars.js';
import { partsOf, runPart, type Settings } from '../bench/webgpuRecord.js';
import { atDepth, describeWork, notesOn, parseWork } from '../bench/webgpuWork.js';
import { allocate } from '../lib/cache.js';
import { compileModel } from '../lib/compile.js';
import { forwardInput } from '../lib/forward.js';
import { loadModel } from '../lib/model.js';
import { cacheSpecOf } from '../lib/models/layers.js';
import { goldenCases } from './goldenCases.js';
import { makeRun, makeSamples } from './runFixture.js';
import { relativeError, useCpu } from './smallModel.js';

const folder = mkdtempSync(join(tmpdir(), 'webgpu-record-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('work', () => {
  test('is read, and said where it is not the usual', () => {
    const all = ['32+50', '2048+2', '32+50@8000', '8+4@100x8'].map(parseWork);
    expect(all.map(describeWork)).toEqual(['', ' prompt 2048', ' depth 8000', ' prompt 8 depth 100 x8']);
    expect(all[3]).toEqual({ promptTokens: 8, newTokens: 4, depth: 100, batch: 8 });
    expect(all.map((work) => notesOn(work).length)).toEqual([0, 0, 1, 1]);
  });

  test.each(['32', '0+4', '32+50@8', '32+50x0', 'a+b'])('%s is refused', (text) => {
    expect(() => parseWork(text)).toThrow(`received ${text}`);
  });

  test('a text that begins deep gives what the model gives over zeros', async () => {
    await useCpu();
    const model = await loadModel(goldenCases.find(({ name }) => name === 'gpt2-inner')!.folder);
    const compiled = await compileModel(model, { target: 'wasm' });
    const skipped = 5;
    const empty = allocate(cacheSpecOf(model.config, 16), 1);
    const zeros = () =>
      empty.keys.map(({ shape: [batch, heads, , dim] }) => tf.zeros([batch, heads, skipped, dim]));
    const positions = tf.tensor2d([[0, 1, 2, 3, 4]], undefined, 'int32');
    const cache = { ...empty, keys: zeros(), values: zeros(), positions } as typeof empty;
    const deep = atDepth(compiled, skipped);
    const ids = [[7, 3, 11]];
    const expected = await model.forward(model.params, forwardInput(ids, [skipped]), cache);
    const found = await deep.forward(deep.params, forwardInput(ids, [0]), deep.newCache(8));
    expect(relativeError(await found.logits.data(), await expected.logits.data())).toBeLessThan(1e-5);
    await compiled.dispose();
  });
});

describe('the record', () => {
  const settings: Settings = {
    ...{ output: folder, only: [], python: 'python3', baseline: 'baseline.py', repeats: 10 },
    ...{ totalSeconds: 560, commit: undefined, quick: false },
  };

  test('measures all that is compared', () => {
    const optionOf = (parameters: readonly string[], name: string) =>
      parameters[parameters.indexOf(`--${name}`) + 1]!;
    const labels = partsOf(settings).flatMap(({ parameters, runsFile }) => {
      const has = (name: string) => parameters.includes(`--${name}`);
      const list = (name: string, absent: string) =>
        (has(name) ? optionOf(parameters, name) : absent).split(',');
      if (runsFile) {
        const [prompt] = list('prompt-tokens', '32');
        const end = prompt === '32' ? '' : ` prompt ${prompt}`;
        const names = { eager: 'PyTorch', compile: 'PyTorch compile' } as Record<string, string>;
        return list('modes', 'eager').map((mode) => `${list('random-shape', '')} f16 ${names[mode]}${end}`);
      }
      const model = list('models', '');
      if (!has('configurations')) {
        return list('cache', 'cached,uncached').map((cache) => {
          return `${model} f32 tfjs eager${cache === 'cached' ? '' : ' uncached'}`;
        });
      }
      return list('configurations', '').flatMap((form) =>
        list('work', '32+50').map((work) => {
          return `${model} ${form.replace('stored', 'f16')}${describeWork(parseWork(work))}`;
        }),
      );
    });
    expect(
      BARS.flatMap(({ ours, against }) => [ours, against]).filter((label) => !labels.includes(label)),
    ).toEqual([]);
  });

  test('a part that fails or takes too long is named, and has a log', async () => {
    const part = (name: string, code: string, limitSeconds: number) => {
      return { name, limitSeconds, program: process.execPath, parameters: ['--eval', code] };
    };
    expect(await runPart(part('well', 'console.log("fine")', 20), folder)).toBeUndefined();
    expect(readFileSync(join(folder, 'well.log'), 'utf8')).toBe('fine\n');
    expect(await runPart(part('bad', 'process.exit(3)', 20), folder)).toMatch(/exit code 3/);
    expect(await runPart(part('slow', 'setInterval(() => {}, 1000)', 1), folder)).toBe('stopped after 1 s');
    expect(await runPart({ ...part('none', '', 1), program: '/no/such/program' }, folder)).toMatch(/ENOENT/);
  });

  test('bars: more tokens and fewer milliseconds are better, the absent is missing', () => {
    const run = (label: string, ms: number, gpuBytes: number) =>
      makeRun({ label, samples: makeSamples([ms]), memory: { weightBytes: 1, cacheBytes: 1, gpuBytes } });
    const runs = [run('a', 100, 4e9), run('b', 1000, 14e9)];
    const bars = [
      { ours: 'a', against: 'b', unit: 'decode', atLeast: 11 },
      { ours: 'a', against: 'b', unit: 'first', atLeast: 10 },
      { ours: 'a', against: 'b', unit: 'memory' },
      { ours: 'a', against: 'c', unit: 'token' },
    ] as const;
    expect(barsTable(judge(runs, bars))).toMatchInlineSnapshot(`
      "measured  figure                 value  against  its value  times as good  bar
      a         tok/s after the first    175  b             17.5         10.0 x  >= 11 x  missed
      a         ms to the first token   20.0  b              200         10.0 x  >= 10 x  met
      a         GB on the GPU           4.00  b             14.0         3.50 x           shown
      a         ms a token              5.71  c                -              -           missing"
    `);
  });
});
