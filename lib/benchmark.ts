// lib/benchmark.ts: measures generation: warm-up, samples, the configurations in turns, memory.
// configurations + samples -> one Run each, ready for results.ts. A killed run goes on where it was.
// Every figure is a whole generation as its caller sees it; statistics are results/statistics.ts's.

import { randomBytes } from 'node:crypto';
import * as tf from '@tensorflow/tfjs-core';
import type { BenchmarkOptions, Configuration } from './benchmark/configuration.js';
import { sharedProcessNote, toRun } from './benchmark/record.js';
import { type Key, type Measured, openStore, plannedKeys, type Store } from './benchmark/store.js';
import type { Run } from './results.js';

export type {
  BenchmarkOptions,
  Configuration,
  GenerationTiming,
  Progress,
} from './benchmark/configuration.js';

/** Measures one configuration. @see benchmarkTogether, whose options and errors it has */
export async function benchmark<Sample>(
  configuration: Configuration<Sample>,
  options: BenchmarkOptions<Sample>,
): Promise<Run> {
  return (await benchmarkTogether([configuration], options))[0]!;
}

/**
 * Measures configurations in turns, A B A B, so that a machine that grows slower slows them all and ratios stay fair.
 * @returns one Run a configuration, in the order given, all of one session
 * @throws RangeError if there is nothing to measure, labels repeat, or references do not match the samples
 * @throws the signal's reason when stopped; samples already in the resume file stay there
 */
export async function benchmarkTogether<Sample>(
  configurations: readonly Configuration<Sample>[],
  options: BenchmarkOptions<Sample>,
): Promise<Run[]> {
  checkOptions(configurations, options);
  const store = await openStore(options);
  try {
    const tensorsLeft = await measureMissing(configurations, options, store);
    const session = randomBytes(6).toString('hex');
    const shared = configurations.length > 1 ? [sharedProcessNote(configurations.length)] : [];
    return configurations.map((configuration) => {
      const measured = plannedKeys(configuration, options).map((key) => store.get(...key));
      return toRun(configuration, options, measured, { session, tensorsLeft, notes: shared });
    });
  } finally {
    await store.close();
  }
}

function checkOptions<Sample>(
  configurations: readonly Configuration<Sample>[],
  { samples, references, warmUp = 1, repeats = 1 }: BenchmarkOptions<Sample>,
): void {
  if (samples.length === 0 || configurations.length === 0) {
    throw new RangeError(
      `benchmark: expected samples and configurations, received ${samples.length} and ${configurations.length}`,
    );
  }
  if (references && references.length !== samples.length) {
    throw new RangeError(`references: expected ${samples.length}, received ${references.length}`);
  }
  const labels = configurations.map(({ label }) => label);
  const double = labels.find((label, i) => labels.indexOf(label) !== i);
  if (double) throw new RangeError(`configurations: expected different labels, received ${double} twice`);
  if (!Number.isInteger(warmUp) || warmUp < 0) {
    throw new RangeError(`warmUp: expected a whole number >= 0, received ${warmUp}`);
  }
  if (!Number.isInteger(repeats) || repeats < 1) {
    throw new RangeError(`repeats: expected a whole number >= 1, received ${repeats}`);
  }
}

/** @returns tensors that the measured generations left behind in tfjs */
async function measureMissing<Sample>(
  configurations: readonly Configuration<Sample>[],
  options: BenchmarkOptions<Sample>,
  store: Store,
): Promise<number> {
  const { samples, warmUp = 1, repeats = 1, signal = new AbortController().signal } = options;
  const keys = configurations.map((configuration) => plannedKeys(configuration, options));
  const isMissing = (key: Key) => !store.has(...key);
  for (const [c, configuration] of configurations.entries()) {
    if (!keys[c]!.some(isMissing)) continue;
    await configuration.prepare?.(samples, signal);
    for (let i = 0; i < warmUp; i++) await generateOnce(configuration, samples[i % samples.length]!, signal);
  }
  const tensors = tf.engine().state.numTensors;
  const report = progressReporter(keys.flat().filter(isMissing).length, keys.flat().length, options);
  for (let i = 0; i < samples.length * repeats; i++) {
    for (const [c, configuration] of configurations.entries()) {
      const key = keys[c]![i]!;
      if (!isMissing(key)) continue;
      const measured = await generateOnce(configuration, samples[i % samples.length]!, signal);
      await store.add(key, measured);
      report(configuration.label, measured);
    }
  }
  return tf.engine().state.numTensors - tensors;
}

/** One generation, and the largest resident size seen meanwhile. */
async function generateOnce<Sample>(
  configuration: Configuration<Sample>,
  sample: Sample,
  signal: AbortSignal,
): Promise<Measured> {
  signal.throwIfAborted();
  let peakRssBytes = process.memoryUsage.rss();
  const look = () => {
    peakRssBytes = Math.max(peakRssBytes, process.memoryUsage.rss());
  };
  const timer = setInterval(look, 20);
  try {
    const timing = await configuration.run(sample, signal);
    signal.throwIfAborted(); // a generation cut short is no measurement
    look();
    if (timing.newIds.length === 0 || timing.promptIds.length === 0) {
      throw new RangeError(
        `${configuration.label}: expected prompt and new tokens, received ${timing.promptIds.length} and ${timing.newIds.length}`,
      );
    }
    return {
      latencyMs: timing.totalMs,
      firstTokenMs: timing.firstTokenMs,
      perTokenMs: timing.perTokenMs,
      promptTokens: timing.promptIds.length,
      newTokens: timing.newIds.length,
      cacheBytes: timing.cacheBytes,
      text: timing.text,
      peakRssBytes,
    };
  } finally {
    clearInterval(timer);
  }
}

function progressReporter(
  missing: number,
  total: number,
  { onProgress }: Pick<BenchmarkOptions<unknown>, 'onProgress'>,
) {
  let [measuredCount, tokens, busyMs] = [0, 0, 0];
  return (label: string, { newTokens, latencyMs }: Measured): void => {
    measuredCount++;
    tokens += newTokens;
    busyMs += latencyMs;
    onProgress?.({
      label,
      done: total - missing + measuredCount,
      total,
      tokensPerSecond: busyMs > 0 ? (tokens / busyMs) * 1000 : 0,
      remainingMs: (busyMs / measuredCount) * (missing - measuredCount),
    });
  };
}
