// lib/benchmark.ts: measures generation: warm-up, samples, the configurations in turns, memory.
// configurations + samples -> one Run each, ready for results.ts. A killed run goes on where it was.
// Every figure is a whole generation as its caller sees it; statistics are results/statistics.ts's.

import { randomBytes } from 'node:crypto';
import type { BenchmarkOptions, Configuration } from './benchmark/configuration.js';
import { measureMissing, prepareMissing } from './benchmark/measure.js';
import { factsOf, sharedProcessNote, toRun } from './benchmark/record.js';
import { openStore, plannedKeys } from './benchmark/store.js';
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
    await prepareMissing(configurations, options, store);
    const tensorsLeft = await measureMissing(configurations, options, store);
    const session = randomBytes(6).toString('hex');
    const shared = configurations.length > 1 ? [sharedProcessNote(configurations.length)] : [];
    return configurations.map((configuration) => {
      const measured = plannedKeys(configuration, options).map((key) => store.get(...key));
      const facts = factsOf(configuration, { gpu: options.gpu, tensorsLeft, notes: shared });
      return toRun(facts, measured, { session, references: repeated(options) });
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

/** The reference of each measurement: the list again for each repeat. */
function repeated({ references, repeats = 1 }: BenchmarkOptions<unknown>): readonly string[] | undefined {
  return references && Array.from({ length: repeats }, () => references).flat();
}
