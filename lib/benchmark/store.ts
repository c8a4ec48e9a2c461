// lib/benchmark/store.ts: measured samples while they come in, in memory or in a file that outlives the process.
// configuration + sample -> keys -> what was measured, each once.

import { createHash } from 'node:crypto';
import { machineFacts } from '../results/machine.js';
import { SampleStore } from '../results/samples.js';
import { anyText, count, list, number, object, orNull } from '../results/validate.js';
import type { BenchmarkOptions, Configuration } from './configuration.js';

/** One generation, measured. */
export interface Measured {
  readonly latencyMs: number;
  readonly firstTokenMs: number;
  readonly perTokenMs: readonly number[];
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly cacheBytes: number;
  readonly text: string | null;
  readonly peakRssBytes: number;
}

export const checkMeasured = object<Measured>({
  latencyMs: number(0),
  firstTokenMs: number(0),
  perTokenMs: list(number(0)),
  promptTokens: count(1),
  newTokens: count(1),
  cacheBytes: count(0),
  text: orNull(anyText),
  peakRssBytes: count(0),
});

export type Key = readonly [configuration: string, sample: string];

/** Where samples are kept while they come in: in memory, or in a file too. */
export interface Store {
  has(...key: Key): boolean;
  get(...key: Key): Measured;
  add(key: Key, measured: Measured): Promise<void>;
  close(): Promise<void>;
}

/** @throws Error if the file is no store of this machine's samples (gives the file, expected, found) */
export async function openStore({ resumeFile, gpu }: BenchmarkOptions<unknown>): Promise<Store> {
  const memory = new Map<string, Measured>();
  const name = (key: Key) => key.join('\n');
  // Times of another machine are no times of this one: its file is refused.
  const plan = JSON.stringify(machineFacts(gpu));
  const file = resumeFile && (await SampleStore.open<Measured>(resumeFile, plan, checkMeasured));
  return {
    has: (...key) => memory.has(name(key)) || (file ? file.has(...key) : false),
    get: (...key) => memory.get(name(key)) ?? (file as SampleStore<Measured>).of(key[0]).get(key[1])!,
    add: async (key, measured) => {
      if (file) await file.append(...key, measured);
      else memory.set(name(key), measured);
    },
    close: async () => {
      if (file) await file.close();
    },
  };
}

/** What is measured, in order: a sample is known by its content, so that a longer list goes on with a shorter one's. */
export function plannedKeys<Sample>(
  configuration: Configuration<Sample>,
  { samples, repeats = 1 }: Pick<BenchmarkOptions<Sample>, 'samples' | 'repeats'>,
): Key[] {
  const { label, model, weights, backend, target, mode, cache, batch = 1, newTokens } = configuration;
  const name = JSON.stringify([label, model, weights, backend, target, mode, cache, batch, newTokens]);
  const keys = sampleKeys(samples, repeats);
  return Array.from({ length: repeats }, (_, repeat) =>
    keys.map((ofSample): Key => [name, ofSample[repeat]!]),
  ).flat();
}

/** @returns [sample][repeat] the names of its measurements */
export function sampleKeys(samples: readonly unknown[], repeats: number): string[][] {
  return samples.map((sample, i) => {
    const hash = createHash('sha256').update(JSON.stringify(sample)).digest('hex').slice(0, 16);
    return Array.from({ length: repeats }, (_, repeat) => `${i}-${hash}-${repeat}`);
  });
}
