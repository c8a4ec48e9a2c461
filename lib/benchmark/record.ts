// lib/benchmark/record.ts: measured samples -> the Run that results.ts writes.

import { textQuality } from '../quality.js';
import { machineFacts, projectCommit, runtimeFacts } from '../results/machine.js';
import { type CheckResult, newRunId, type Run, type Samples, SCHEMA_VERSION, summarize } from '../results.js';
import type { BenchmarkOptions, Configuration } from './configuration.js';
import type { Measured } from './store.js';

/** @param shared what all configurations of this call have in common */
export function toRun<Sample>(
  configuration: Configuration<Sample>,
  { samples, references, gpu }: BenchmarkOptions<Sample>,
  measured: readonly Measured[],
  shared: { readonly session: string; readonly tensorsLeft: number; readonly notes: readonly string[] },
): Run {
  const { label, model, weights, backend, target, mode, cache, batch = 1, memory, compile } = configuration;
  const createdAt = new Date().toISOString();
  const quality = references ? qualityOf(measured, references, samples.length) : undefined;
  const raw: Samples = {
    latencyMs: measured.map(({ latencyMs }) => latencyMs),
    firstTokenMs: measured.map(({ firstTokenMs }) => firstTokenMs),
    promptTokens: measured.map(({ promptTokens }) => promptTokens),
    newTokens: measured.map(({ newTokens }) => newTokens),
    perTokenMs: measured.map(({ perTokenMs }) => perTokenMs),
    ...(quality ? { rougeL: quality.rougeLOfSamples } : {}),
  };
  return {
    schemaVersion: SCHEMA_VERSION,
    id: newRunId(label, createdAt),
    session: shared.session,
    createdAt,
    commit: projectCommit(),
    label,
    machine: machineFacts(gpu),
    runtime: runtimeFacts(),
    model,
    weights,
    backend,
    target,
    mode,
    cache,
    promptTokens: Math.max(...raw.promptTokens),
    newTokens: configuration.newTokens,
    batch,
    compile: compile?.() ?? null,
    samples: raw,
    summary: summarize(raw),
    memory: {
      ...memory(),
      cacheBytes: Math.max(...measured.map(({ cacheBytes }) => cacheBytes)),
      peakRssBytes: Math.max(...measured.map(({ peakRssBytes }) => peakRssBytes)),
    },
    quality: quality?.means ?? null,
    deviation: null,
    checks: [leakCheck(shared.tensorsLeft)],
    notes: [...(configuration.notes ?? []), ...shared.notes],
  };
}

function qualityOf(measured: readonly Measured[], references: readonly string[], samples: number) {
  const texts = measured.map(({ text }) => text);
  if (texts.includes(null)) return undefined; // no tokenizer, no text
  const pairs = texts.map((text, i) => ({ text: text!, reference: references[i % samples]! }));
  const { rougeLOfSamples, ...means } = textQuality(pairs);
  return { rougeLOfSamples, means: { ...means, against: 'reference answers' } };
}

function leakCheck(tensorsLeft: number): CheckResult {
  return { name: 'tensors left behind', passed: tensorsLeft <= 0, value: tensorsLeft, expected: '<= 0' };
}

export function sharedProcessNote(configurations: number): string {
  return `peakRssBytes is of a process that held ${configurations} configurations at once, measured in turns`;
}
