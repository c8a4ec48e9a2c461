// lib/cli/clusterRun.ts: `response-time cluster run`: one shard of a plan, measured here, with its progress told.

import { appendFileSync } from 'node:fs';
import type { Command } from 'commander';
import { attemptFile, attemptName } from '../cluster/files.js';
import { type ClusterPlan, modelDigest, readPlan, shardIndex } from '../cluster/plan.js';
import { progressLine, type ShardProgress } from '../cluster/progress.js';
import { EXIT } from '../cluster/sbatch.js';
import { makeFolder } from '../folders.js';
import { type PlannedConfiguration, parseConfiguration } from './benchmarkPlan.js';
import { configured, folderOf, folderOption, planOption } from './clusterOptions.js';
import { loadConfigurations, promptOf, runnerKey } from './configurations.js';
import { formatError } from './errors.js';
import type { BackendChoice } from './load.js';
import { resolveModel } from './models.js';
import { note, print, type Terminal } from './terminal.js';

const RUN_HELP = `
The shard is --shard, else SLURM_ARRAY_TASK_ID, else JOB_COMPLETION_INDEX (an indexed Job on Kubernetes); how many there
are, the plan says alone. Progress, one line: on stderr, and in a .log file beside the shard's file, for \`tail -F\`.
`;

interface RunArguments {
  readonly plan: string;
  readonly shard?: string;
  readonly folder?: string;
  readonly model?: string;
}

/** SIGTERM comes up to two minutes before the end; one token op by op can take many seconds of them. */
const TERMINATION = { exitCode: EXIT.requeue, patienceMs: 30_000 };

/** Adds the command to `cluster`. */
export function addRun(cluster: Command, terminal: Terminal): void {
  cluster
    .command('run')
    .summary('measure one shard')
    .description('Measures what is missing of one shard.')
    .addOption(planOption())
    .option('--shard <index>', 'from 0 on (default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX)')
    .addOption(folderOption())
    .option('--model <folder>', "where the plan's model is on this machine, if elsewhere")
    .addHelpText('after', RUN_HELP)
    .action((options: RunArguments) => runShardCommand(terminal, options));
}

async function runShardCommand(terminal: Terminal, options: RunArguments): Promise<void> {
  terminal.termination = TERMINATION;
  const { plan, shard, name } = await configured(terminal, () => readShard(options));
  const configurations = plan.configurations.map(parseConfiguration);
  const { runShard } = await import('../cluster.js');
  const [folder, attempt] = [folderOf(options.plan, options.folder), attemptName()];
  await makeFolder(folder);
  const log = attemptFile(folder, shard, attempt).replace(/jsonl$/, 'log');
  const { newTokens, ignoreEos } = plan;
  const backend = plan.backend as BackendChoice;
  const loaded = await loadConfigurations(terminal, name, { configurations, backend, newTokens, ignoreEos });
  const watch = progressWriter(terminal, log);
  try {
    const { failed, file } = await runShard(plan, shard, loaded.configurations, {
      prompts: plan.samples.map((sample, i) => promptOf(loaded.model, sample, i, plan)),
      judges: judgesOf(plan, configurations).map((label) => ({ label, model: loaded.runs(label) })),
      ...{ folder, attempt, signal: terminal.signal, onProgress: watch.update },
      ...(loaded.gpu !== undefined && { gpu: loaded.gpu }),
    });
    if (failed > 0)
      throw new Error(`${failed} measurements failed, see ${log}; started again, it tries them again`);
    print(terminal, file);
  } finally {
    watch.end();
    await loaded.dispose();
  }
}

/** Everything that must fit before a shard is begun. */
async function readShard({ plan: file, shard: given, model }: RunArguments) {
  const plan = await readPlan(file);
  const shard = shardIndex(plan, given);
  const name = model ?? plan.model.folder;
  const digest = await modelDigest(resolveModel(name));
  if (digest !== plan.model.digest) {
    throw new Error(
      `model ${name}: expected the plan's files (digest ${plan.model.digest}), found others (${digest}); --model names another folder`,
    );
  }
  for (const label of plan.configurations) parseConfiguration(label);
  return { plan, shard, name };
}

/** One configuration for each kind of weights on each target: the reference first; none if the plan has none. */
function judgesOf({ reference }: ClusterPlan, configurations: readonly PlannedConfiguration[]): string[] {
  if (reference === null) return [];
  const ordered = [...configurations].sort(
    (a, b) => Number(b.label === reference) - Number(a.label === reference),
  );
  return [
    ...new Map(ordered.reverse().map((planned) => [runnerKey(planned), planned.label])).values(),
  ].reverse();
}

/** Lines in a log file come no faster than a person reads. */
const LOG_EVERY_MS = 5_000;

/** The line of progress: on a terminal in place, else and in the log file again and again. */
function progressWriter(terminal: Terminal, log: string) {
  let [saidAtMs, last, said, canLog] = [Number.NEGATIVE_INFINITY, '', '', true];
  const say = () => {
    said = last;
    saidAtMs = performance.now();
    if (!terminal.errors.isTTY) note(terminal, last);
    try {
      if (canLog) appendFileSync(log, `${last}\n`);
    } catch (error) {
      canLog = false; // the measurements matter more, and say it themselves if the disk is full
      note(terminal, `note: no log: ${formatError(error)}`);
    }
  };
  return {
    update: (progress: ShardProgress) => {
      const isNews =
        !last.endsWith(`last error: ${progress.lastError ?? 'none'}`) || progress.done === progress.total;
      last = progressLine(progress);
      if (terminal.errors.isTTY) terminal.errors.write(`\r${last}\u001b[K`);
      if (isNews || performance.now() - saidAtMs >= LOG_EVERY_MS) say();
    },
    end: () => {
      if (terminal.errors.isTTY) terminal.errors.write('\n');
      if (said !== last) say();
    },
  };
}
