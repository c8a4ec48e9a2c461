import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  benchmark,
  benchmarkTogether,
  type Configuration,
  type GenerationTiming,
  type Progress,
} from '../lib/benchmark.js';
import type { Generation } from '../lib/generate.js';
import { machineFacts, projectCommit, runtimeFacts } from '../lib/results/machine.js';
import { checkRun } from '../lib/results.js';

tf.enableProdMode(); // no banner

const scratch = mkdtempSync(join(tmpdir(), 'benchmark-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** What ran, in order: label and sample. */
let calls: string[] = [];
beforeEach(() => {
  calls = [];
});

/** A generation that takes no time but says that it took `latencyMs`. */
function fake(label: string, latencyMs: (sample: string) => number): Configuration<string> {
  return {
    label,
    model: { name: 'tiny', source: 'embedded', family: 'gpt2', parameters: 10, randomWeights: false },
    weights: 'f32',
    backend: 'cpu',
    target: 'eager',
    mode: 'eager',
    cache: true,
    newTokens: 3,
    run: async (sample) => {
      calls.push(`${label}:${sample}`);
      return timing(sample, latencyMs(sample));
    },
    memory: () => ({ weightBytes: 40 }),
  };
}

function timing(sample: string, totalMs: number): GenerationTiming {
  const third = totalMs / 3;
  const promptIds = Array.from(sample, (_, i) => i);
  return {
    promptIds,
    newIds: [1, 2, 3],
    text: sample,
    firstTokenMs: third,
    perTokenMs: [third, third],
    totalMs,
    cacheBytes: 8 * promptIds.length,
  };
}

test('the result of generate() is a timing', () => {
  const fits = (generation: Generation): GenerationTiming => generation;
  expect(fits).toBeTypeOf('function');
});

test('a Run holds what was measured, says on what, and fits the schema', async () => {
  const run = await benchmark(
    fake('f32', (sample) => 100 * sample.length),
    {
      samples: ['aa', 'b', 'cccc'],
      references: ['aa', 'x', 'cccc'],
      gpu: 'Example GPU',
    },
  );
  expect(checkRun(structuredClone(run), 'run')).toEqual(run);
  expect(run).toMatchObject({
    label: 'f32',
    promptTokens: 4,
    newTokens: 3,
    batch: 1,
    compile: null,
    memory: { weightBytes: 40, cacheBytes: 32 },
    machine: { ...machineFacts(), gpu: 'Example GPU' },
    samples: { latencyMs: [200, 100, 400], promptTokens: [2, 1, 4], rougeL: [1, 0, 1] },
    quality: { samples: 3, against: 'reference answers', exactMatch: 2 / 3 },
    checks: [{ name: 'tensors left behind', passed: true, value: 0 }],
    notes: [],
  });
  expect(run.summary.tokensPerSecond).toBeCloseTo(9 / 0.7, 10);
  expect(run.summary.latencyMs).toMatchObject({ p50: 200, min: 100, max: 400 });
  expect(run.summary.latencyMs.p95).toBeCloseTo(380, 10);
  expect(run.memory.peakRssBytes).toBeGreaterThan(20e6);
});

test('configurations take turns, after a warm-up of whole generations each', async () => {
  const runs = await benchmarkTogether([fake('A', () => 10), fake('B', () => 5)], {
    samples: ['x', 'y'],
    repeats: 2,
    warmUp: 2,
  });
  expect(calls.slice(0, 4)).toEqual(['A:x', 'A:y', 'B:x', 'B:y']);
  expect(calls.slice(4)).toEqual(['A:x', 'B:x', 'A:y', 'B:y', 'A:x', 'B:x', 'A:y', 'B:y']);
  expect(runs.map(({ label }) => label)).toEqual(['A', 'B']);
  expect(runs[0]?.session).toBe(runs[1]?.session);
  expect(runs[0]?.samples.latencyMs).toHaveLength(4);
  expect(runs[0]?.notes).toEqual([expect.stringMatching(/held 2 configurations/)]);
});

test('progress counts samples, speed and what is left', async () => {
  const seen: Progress[] = [];
  await benchmark(
    fake('A', () => 30),
    { samples: ['x', 'y', 'z'], onProgress: (progress) => seen.push(progress) },
  );
  expect(seen.map(({ done, total, remainingMs }) => [done, total, remainingMs])).toEqual([
    [1, 3, 60],
    [2, 3, 30],
    [3, 3, 0],
  ]);
  expect(seen[2]).toMatchObject({ label: 'A', tokensPerSecond: 100 });
});

test('a tensor that a generation leaves behind fails the check', async () => {
  const leaking = fake('leak', () => 10);
  const run = await benchmark(
    {
      ...leaking,
      run: async (sample, signal) => {
        tf.keep(tf.scalar(1));
        return leaking.run(sample, signal);
      },
    },
    { samples: ['x', 'y'] },
  );
  expect(run.checks[0]).toMatchObject({ passed: false, value: 2, expected: '<= 0' });
});

test('what compiling took is asked for at the end', async () => {
  const compile = () => ({ compilations: calls.length, compileMs: 12 });
  const run = await benchmark({ ...fake('jit', () => 10), compile }, { samples: ['x'] });
  expect(run.compile).toEqual({ compilations: 2, compileMs: 12 }); // the warm-up and one sample ran before
});

describe('stopping and going on', () => {
  test('a stopped run goes on where it was: nothing lost, nothing twice', async () => {
    const resumeFile = join(scratch, 'resume.jsonl');
    const configurations = [fake('A', () => 10), fake('B', () => 20)];
    const samples = ['p', 'q', 'r'];
    const stop = new AbortController();
    const stopped = benchmarkTogether(configurations, {
      samples,
      resumeFile,
      signal: stop.signal,
      onProgress: ({ done }) => done === 3 && stop.abort(new Error('stopped by hand')),
    });
    await expect(stopped).rejects.toThrow('stopped by hand');
    expect(calls).toEqual(['A:p', 'B:p', 'A:p', 'B:p', 'A:q']);
    const text = readFileSync(resumeFile, 'utf8');
    writeFileSync(resumeFile, `${text}{"configuration":"torn`); // as a kill would leave it

    calls = [];
    const seen: Progress[] = [];
    const runs = await benchmarkTogether(configurations, {
      samples,
      resumeFile,
      onProgress: (progress) => seen.push(progress),
    });
    expect(calls).toEqual(['A:p', 'B:p', 'B:q', 'A:r', 'B:r']); // two warm-ups, then what was missing
    expect(seen.map(({ done, total }) => [done, total])).toEqual([
      [4, 6],
      [5, 6],
      [6, 6],
    ]);
    expect(runs.map((run) => run.samples.latencyMs)).toEqual([
      [10, 10, 10],
      [20, 20, 20],
    ]);

    calls = [];
    const again = await benchmarkTogether(configurations, { samples, resumeFile });
    expect(calls).toEqual([]); // all there: not even a warm-up
    expect(again[1]?.samples).toEqual(runs[1]?.samples);

    const more = await benchmarkTogether(configurations, { samples: [...samples, 's'], resumeFile });
    expect(calls).toEqual(['A:p', 'B:p', 'A:s', 'B:s']);
    expect(more[0]?.samples.latencyMs).toHaveLength(4);
  });

  test('another length or other weights are other samples', async () => {
    const resumeFile = join(scratch, 'other.jsonl');
    await benchmark(
      fake('A', () => 10),
      { samples: ['x'], resumeFile, warmUp: 0 },
    );
    await benchmark({ ...fake('A', () => 10), newTokens: 50 }, { samples: ['x'], resumeFile, warmUp: 0 });
    await benchmark({ ...fake('A', () => 10), weights: 'int8' }, { samples: ['x'], resumeFile, warmUp: 0 });
    expect(calls).toHaveLength(3);
  });

  test("another machine's samples are refused", async () => {
    const resumeFile = join(scratch, 'foreign.jsonl');
    await benchmark(
      fake('A', () => 10),
      { samples: ['x'], resumeFile },
    );
    writeFileSync(resumeFile, readFileSync(resumeFile, 'utf8').replace(machineFacts().id, 'ffffffffffff'));
    await expect(
      benchmark(
        fake('A', () => 10),
        { samples: ['x'], resumeFile },
      ),
    ).rejects.toThrow(/foreign\.jsonl, line 1: plan: expected .* found .*ffffffffffff/);
  });

  test('a generation cut short by the signal is no sample', async () => {
    const stop = new AbortController();
    const cut: Configuration<string> = {
      ...fake('A', () => 10),
      run: async (sample, signal) => {
        if (sample === 'y') stop.abort(new Error('enough'));
        expect(signal).toBe(stop.signal);
        return { ...timing(sample, 1), newIds: [1] };
      },
    };
    const resumeFile = join(scratch, 'cut.jsonl');
    await expect(
      benchmark(cut, { samples: ['x', 'y'], resumeFile, signal: stop.signal, warmUp: 0 }),
    ).rejects.toThrow('enough');
    expect(readFileSync(resumeFile, 'utf8').trimEnd().split('\n')).toHaveLength(2); // header and x
  });
});

test('bad options are refused before anything runs', async () => {
  const A = fake('A', () => 10);
  await expect(benchmark(A, { samples: [] })).rejects.toThrow(/received 0 and 1/);
  await expect(benchmarkTogether([A, A], { samples: ['x'] })).rejects.toThrow(/received A twice/);
  await expect(benchmark(A, { samples: ['x'], references: [] })).rejects.toThrow(/expected 1, received 0/);
  await expect(benchmark(A, { samples: ['x'], warmUp: -1 })).rejects.toThrow(/warmUp: .* received -1/);
  await expect(benchmark(A, { samples: ['x'], repeats: 0.5 })).rejects.toThrow(/repeats: .* received 0.5/);
  expect(calls).toEqual([]);
  const silent: Configuration<string> = {
    ...A,
    run: async (sample) => ({ ...timing(sample, 1), newIds: [] }),
  };
  await expect(benchmark(silent, { samples: ['x'] })).rejects.toThrow(/A: expected prompt and new tokens/);
});

test('machine, runtime and commit', () => {
  const machine = machineFacts();
  expect(machine.id).toMatch(/^[0-9a-f]{12}$/);
  expect(machine).toEqual(machineFacts());
  expect(machine.cores).toBeGreaterThan(0);
  expect(runtimeFacts().packages).toMatchObject({
    '@tensorflow/tfjs-core': '4.22.0',
    webgpu: expect.any(String),
  });
  expect(projectCommit() ?? '0'.repeat(40)).toMatch(/^[0-9a-f]{40}(-dirty)?$/);
});

test('outside git, the commit is what the environment says', () => {
  vi.stubEnv('GIT_DIR', '/nowhere');
  vi.stubEnv('RESPONSE_TIME_COMMIT', '1234567');
  expect(projectCommit()).toBe('1234567');
  vi.stubEnv('RESPONSE_TIME_COMMIT', '');
  expect(projectCommit()).toBeNull();
  vi.unstubAllEnvs();
});

test('what the samples need is prepared before the first of them, and not measured', async () => {
  const prepared: (readonly string[])[] = [];
  const configuration: Configuration<string> = {
    ...fake('a', () => 3),
    prepare: async (samples) => {
      expect(calls).toEqual([]);
      prepared.push(samples);
    },
  };
  const run = await benchmark(configuration, { samples: ['one', 'two'], warmUp: 0 });
  expect(prepared).toEqual([['one', 'two']]);
  expect(run.samples.latencyMs).toHaveLength(2);
});
