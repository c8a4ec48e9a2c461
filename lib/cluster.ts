// lib/cluster.ts: a benchmark that outgrows one machine: cut into shards, measured anywhere, merged into Runs.
//   plan       model, samples, configurations, shard count -> one file, fixed (cluster/plan.ts)
//   run        plan + shard -> JSON lines in a file of this attempt's own (here, cluster/files.ts)
//   merge      all those files -> the Runs of one machine, or what is missing (cluster/merge.ts)
//   sbatch     plan -> a script for Slurm (cluster/sbatch.ts)
// A shard measures with the benchmark's own loop and keys. Killed at any moment it loses the sample in hand; started
// again, here or elsewhere, it measures what no attempt has finished.

import type { BenchmarkOptions, Configuration } from './benchmark/configuration.js';
import { keysOf, measureMissing, prepareMissing } from './benchmark/measure.js';
import { factsOf, sharedProcessNote } from './benchmark/record.js';
import { type Key, type Measured, sampleKeys } from './benchmark/store.js';
import { ShardStore } from './cluster/files.js';
import { type Judge, judgeAnswers } from './cluster/judge.js';
import { type ClusterPlan, shardOf } from './cluster/plan.js';
import { type ShardProgress, ShardWatch } from './cluster/progress.js';

export interface ShardOptions<Sample> extends Pick<BenchmarkOptions<Sample>, 'gpu' | 'signal' | 'warmUp'> {
  /** Prompts of all the plan's samples. */
  readonly prompts: readonly Sample[];
  /** Where the shards' files are. */
  readonly folder: string;
  /** Names this attempt's file (cluster/files.ts: attemptName). */
  readonly attempt: string;
  /** Compare weights token by token, the plan's reference first; empty without one. */
  readonly judges?: readonly Judge[];
  /** Told at the start, after each measurement, and of each failure. */
  readonly onProgress?: (progress: ShardProgress) => void;
}

/** What a shard came to. */
export interface ShardOutcome {
  readonly file: string;
  readonly done: number;
  readonly total: number;
  /** Measurements that failed, each told as `lastError`; the others were made. */
  readonly failed: number;
}

/**
 * Measures what is missing of one shard.
 * @param configurations one for each of the plan's labels, in its order
 * @throws RangeError if configurations or prompts are not the plan's
 * @throws the signal's reason when stopped, with all that was measured safe in the file
 * @throws Error if the file cannot be written, such as on a full disk
 */
export async function runShard<Sample>(
  plan: ClusterPlan,
  shard: number,
  configurations: readonly Configuration<Sample>[],
  options: ShardOptions<Sample>,
): Promise<ShardOutcome> {
  const { prompts, folder, attempt, gpu, judges = [], signal } = options;
  checkAgainstPlan(plan, configurations, prompts);
  const store = await ShardStore.open(plan, shard, folder, attempt);
  const watch = new ShardWatch(plan, shard, options.onProgress);
  const work = {
    samples: prompts,
    repeats: plan.repeats,
    isMine: (sample: number) => shardOf(plan, sample) === shard,
    onFailure: (error: unknown) => watch.failed(error),
    ...(signal && { signal }),
    ...(options.warmUp !== undefined && { warmUp: options.warmUp }),
  };
  const measured = {
    has: (...key: Key) => store.has(...key),
    add: async (key: Key, value: Measured) => {
      await store.add(key, value);
      watch.measured(value.newTokens, value.latencyMs);
    },
  };
  const addFacts = async (when: 'begin' | 'end', tensorsLeft: number) => {
    const notes = configurations.length > 1 ? [sharedProcessNote(configurations.length)] : [];
    for (const configuration of configurations) {
      await store.addFacts(factsOf(configuration, { gpu, tensorsLeft, notes }), when);
    }
  };
  try {
    const mine = configurations.flatMap((configuration) => keysOf(configuration, work));
    watch.begin('measuring', mine.length, mine.filter(({ key }) => store.has(...key)).length);
    await prepareMissing(configurations, work, measured);
    await addFacts('begin', 0); // before the first sample: an attempt that is killed leaves what it was measured on
    const tensorsLeft = await measureMissing(configurations, work, measured);
    await addFacts('end', tensorsLeft);
    await judgeAnswers(plan, shard, judges, { store, watch, signal });
    return { file: store.file, ...watch.outcome() };
  } finally {
    await store.close();
  }
}

/** Another tokenizer, or other configurations, would measure something else under the plan's names. */
function checkAgainstPlan<Sample>(
  plan: ClusterPlan,
  configurations: readonly Configuration<Sample>[],
  prompts: readonly Sample[],
): void {
  const labels = configurations.map(({ label }) => label);
  if (labels.join() !== plan.configurations.join()) {
    throw new RangeError(
      `configurations: expected ${plan.configurations.join(', ')}, received ${labels.join(', ')}`,
    );
  }
  const keys = sampleKeys(prompts, plan.repeats);
  const wrong = plan.samples.findIndex((sample, i) => sample.keys.join() !== keys[i]?.join());
  if (wrong >= 0 || prompts.length !== plan.samples.length) {
    throw new RangeError(
      `prompts: expected those of the plan's ${plan.samples.length} samples, received ${prompts.length}, sample ${wrong} differs; is it the plan's model and tokenizer?`,
    );
  }
}
