// lib/benchmark/record.ts: measured samples -> the Run that results.ts writes.

import { textQuality } from '../quality.js';
import { machineFacts, projectCommit, runtimeFacts } from '../results/machine.js';
import {
  type CheckResult,
  newRunId,
  type Run,
  type RunFacts,
  type Samples,
  SCHEMA_VERSION,
  summarize,
} from '../results.js';
import type { Configuration } from './configuration.js';
import type { Measured } from './store.js';

/** What a configuration and this process say of themselves, after its last sample. */
export function factsOf<Sample>(
  configuration: Configuration<Sample>,
  {
    gpu,
    tensorsLeft,
    notes,
  }: { readonly gpu?: string | undefined; readonly tensorsLeft: number; readonly notes: readonly string[] },
): RunFacts {
  const { label, model, weights, backend, target, mode, cache, newTokens, batch = 1 } = configuration;
  return {
    commit: projectCommit(),
    machine: machineFacts(gpu),
    runtime: runtimeFacts(),
    ...{ label, model, weights, backend, target, mode, cache, newTokens, batch },
    compile: configuration.compile?.() ?? null,
    memory: configuration.memory(),
    checks: [leakCheck(tensorsLeft)],
    notes: [...(configuration.notes ?? []), ...notes],
  };
}

/**
 * The record of one configuration.
 * @param measured in the order of the samples
 * @param shared session of all Runs of this call; references, one for each of `measured`
 */
export function toRun(
  { memory, ...facts }: RunFacts,
  measured: readonly Measured[],
  shared: { readonly session: string; readonly references?: readonly string[] | undefined },
): Run {
  const createdAt = new Date().toISOString();
  const quality = shared.references ? qualityOf(measured, shared.references) : undefined;
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
    id: newRunId(facts.label, createdAt),
    session: shared.session,
    createdAt,
    ...facts,
    promptTokens: Math.max(...raw.promptTokens),
    samples: raw,
    summary: summarize(raw),
    memory: {
      ...memory,
      cacheBytes: Math.max(...measured.map(({ cacheBytes }) => cacheBytes)),
      peakRssBytes: Math.max(...measured.map(({ peakRssBytes }) => peakRssBytes)),
    },
    quality: quality?.means ?? null,
    deviation: null,
  };
}

function qualityOf(measured: readonly Measured[], references: readonly string[]) {
  const texts = measured.map(({ text }) => text);
  if (texts.includes(null)) return undefined; // no tokenizer, no text
  const pairs = texts.map((text, i) => ({ text: text!, reference: references[i]! }));
  const { rougeLOfSamples, ...means } = textQuality(pairs);
  return { rougeLOfSamples, means: { ...means, against: 'reference answers' } };
}

function leakCheck(tensorsLeft: number): CheckResult {
  return { name: 'tensors left behind', passed: tensorsLeft <= 0, value: tensorsLeft, expected: '<= 0' };
}

export function sharedProcessNote(configurations: number): string {
  return `peakRssBytes is of a process that held ${configurations} configurations at once, measured in turns`;
}
