// tests/runFixture.ts: a valid Run to vary in tests. Its figures are made up.

import { type Run, type Samples, summarize } from '../lib/results.js';

export type RunChanges = Partial<Omit<Run, 'summary' | 'schemaVersion'>>;

/** @param changes fields that replace the fixture's; the summary follows from the samples */
export function makeRun(changes: RunChanges = {}): Run {
  const samples: Samples = changes.samples ?? makeSamples([630, 600, 640, 700, 610]);
  return {
    schemaVersion: 1,
    id: 'fixture',
    session: 'session-1',
    createdAt: '2026-01-31T12:00:00.000Z',
    commit: '0123456789abcdef',
    label: 'INT8 + cache',
    machine: { id: 'aaaaaaaaaaaa', cpu: 'Example CPU', cores: 2, memoryBytes: 16e9, os: 'linux 6.1' },
    runtime: { name: 'node', version: '22.11.0', packages: { '@tensorflow/tfjs-core': '4.22.0' } },
    model: { name: 'gpt2', source: 'random', family: 'gpt2', parameters: 124439808, randomWeights: true },
    weights: 'int8',
    backend: 'wasm',
    target: 'eager',
    mode: 'eager',
    cache: true,
    promptTokens: Math.max(...samples.promptTokens),
    newTokens: Math.max(...samples.newTokens),
    batch: 1,
    compile: null,
    memory: { weightBytes: 124_734_464, cacheBytes: 75_497_472, peakRssBytes: 900_000_000 },
    quality: null,
    deviation: null,
    checks: [],
    notes: [],
    ...changes,
    samples,
    summary: summarize(samples),
  };
}

export function makeSamples(latencyMs: readonly number[], promptTokens = 5, newTokens = 15): Samples {
  return {
    latencyMs,
    firstTokenMs: latencyMs.map((ms) => ms / 5),
    promptTokens: latencyMs.map(() => promptTokens),
    newTokens: latencyMs.map(() => newTokens),
  };
}
