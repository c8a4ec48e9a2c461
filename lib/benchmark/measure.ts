// lib/benchmark/measure.ts: the loop of a benchmark: warm-up, then each missing sample in each configuration in turns.
// configurations + samples + store -> the store filled. lib/benchmark.ts measures all of them, lib/cluster.ts a shard.

import * as tf from '@tensorflow/tfjs-core';
import type { BenchmarkOptions, Configuration } from './configuration.js';
import { type Key, type Measured, plannedKeys, type Store } from './store.js';

/** What configurations and samples are measured in, and which part of them by this call. */
export type MeasureOptions<Sample> = BenchmarkOptions<Sample> & {
  /** Of the samples, by their place in the list, those that are measured; all if absent. */
  readonly isMine?: (sample: number) => boolean;
  /** Is told of a generation that failed, which is then left out; if absent, the first failure ends the call. */
  readonly onFailure?: (error: unknown) => void;
};

/** Compiles and warms up the configurations of which something is left to measure. */
export async function prepareMissing<Sample>(
  configurations: readonly Configuration<Sample>[],
  options: MeasureOptions<Sample>,
  store: Pick<Store, 'has'>,
): Promise<void> {
  const { warmUp = 1, signal = new AbortController().signal } = options;
  const samples = options.samples.filter((_, i) => isOf(options, i));
  for (const configuration of configurations) {
    if (!keysOf(configuration, options).some(({ key }) => !store.has(...key))) continue;
    await configuration.prepare?.(samples, signal);
    for (let i = 0; i < warmUp; i++) await generateOnce(configuration, samples[i % samples.length]!, signal);
  }
}

/**
 * Measures what the store lacks, sample by sample, the configurations in turns.
 * @returns tensors that the measured generations left behind in tfjs
 * @throws the signal's reason when stopped; Error of a generation or of the store, which keeps what it has
 */
export async function measureMissing<Sample>(
  configurations: readonly Configuration<Sample>[],
  options: MeasureOptions<Sample>,
  store: Pick<Store, 'has' | 'add'>,
): Promise<number> {
  const { samples, signal = new AbortController().signal, onFailure } = options;
  const keys = configurations.map((configuration) => keysOf(configuration, options));
  const isMissing = ({ key }: Place) => !store.has(...key);
  const tensors = tf.engine().state.numTensors;
  const report = progressReporter(keys.flat().filter(isMissing).length, keys.flat().length, options);
  for (const i of keys[0]!.keys()) {
    for (const [c, configuration] of configurations.entries()) {
      const place = keys[c]![i]!;
      if (!isMissing(place)) continue;
      const measured = await generateOnce(configuration, samples[place.sample]!, signal).catch((error) => {
        if (!onFailure || signal.aborted) throw error;
        onFailure(error);
      });
      if (!measured) continue;
      await store.add(place.key, measured);
      report(configuration.label, measured);
    }
  }
  return tf.engine().state.numTensors - tensors;
}

export interface Place {
  readonly key: Key;
  /** Its sample's place in the list. */
  readonly sample: number;
}

/** What this call is to measure in a configuration, in order. */
export function keysOf<Sample>(
  configuration: Configuration<Sample>,
  options: MeasureOptions<Sample>,
): Place[] {
  return plannedKeys(configuration, options)
    .map((key, i) => ({ key, sample: i % options.samples.length }))
    .filter(({ sample }) => isOf(options, sample));
}

function isOf({ isMine }: { readonly isMine?: (sample: number) => boolean }, sample: number): boolean {
  return isMine?.(sample) ?? true;
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
