// lib/cli/cluster.ts: `response-time cluster`: plan, run, merge, sbatch: a benchmark over many machines.

import { existsSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { evaluationFigures, formatEvaluation } from '../cluster/figures.js';
import { type ClusterPlan, makeClusterPlan, modelDigest, readPlan, writePlan } from '../cluster/plan.js';
import { EXIT, sbatchScript } from '../cluster/sbatch.js';
import type { InstructionSample } from '../dataset.js';
import { formatRuns } from '../results/compare.js';
import { writeTextAtomically } from '../results/files.js';
import { loadTokenizer } from '../tokenizer.js';
import { addWorkOptions, configurationNames, writeRuns } from './benchmark.js';
import { makePlan, type Settings } from './benchmarkPlan.js';
import { configured, folderOf, folderOption, planOption } from './clusterOptions.js';
import { addRun } from './clusterRun.js';
import { promptOf } from './configurations.js';
import { readDataset } from './dataset.js';
import { identify, resolveModel } from './models.js';
import { note, print, type Terminal } from './terminal.js';
import { wholeNumber } from './values.js';

const HELP = `
A run in four steps, on any machines that share a folder or whose files are brought together later
  plan     fixes model, samples, configurations and the number of shards in one file
  run      measures one shard; each start appends to a file of its own, and goes on where all before it stopped
  merge    puts the shards together: the records of one machine, or a list of what is missing
  figures  the figures of an evaluation for others to read, without the texts
  sbatch   prints a script for Slurm that does run and merge

Exit codes
  ${EXIT.complete}    complete
  1    any other failure: a full disk, measurements that failed, a mistyped option
  ${EXIT.incomplete}    merge: something is missing, nothing was written
  ${EXIT.requeue}   run: stopped early by SIGTERM, all that was measured is safe; start it again
  ${EXIT.badConfiguration}   plan, shard or model do not fit: starting it again would not help

Examples
  $ response-time cluster plan tiny-gpt2 --samples 100 --shards 4 --output /tmp/plan.json
  $ response-time cluster run --plan /tmp/plan.json --shard 0        and 1, 2, 3, anywhere, in any order
  $ response-time cluster merge --plan /tmp/plan.json
  $ response-time cluster sbatch --plan /tmp/plan.json --cpus 8 > run.sh && bash run.sh
`;

const PLAN_HELP = `
Options mean what they mean to \`benchmark\`. With --reference, each shard also reads the reference answers with the
weights of every configuration: the records then carry perplexity, KL divergence from the reference's weights and the
share of tokens at which both put the same one first.

Examples
  $ response-time cluster plan tiny-gpt2 --samples 100 --shards 4 --output plan.json
  $ response-time cluster plan SmolLM2 --dataset alpaca.json --samples 999 --new 50 --shards 16 --output plan.json \\
      --configurations wasm-cached-f32,wasm-cached-int8,wasm-cached-int4 --reference wasm-cached-f32
`;

const MERGE_HELP = `
Measurements that two attempts made count once. Where machines differ in more than their names, each kind gets records
of its own, since times of unlike machines have no common percentile; a note says so.
`;

const FIGURES_HELP = `
--plan has a --reference and says how good the texts are; --speed names plans that were measured with the machine to
themselves. In the file: ROUGE and exact match against the reference answers and against the reference's texts, with
ROUGE-L and prompt length by sample; perplexity, KL divergence and same top token of the weights; the speed's records.

Example
  $ response-time cluster figures --plan texts.json --speed speed.json --output results/reference/evaluation.json
`;

/** Adds the commands to the program. */
export function addCluster(program: Command, terminal: Terminal): void {
  const cluster = program
    .command('cluster')
    .summary('a benchmark over many machines: plan, run, merge, sbatch')
    .description('Measures in shards on many machines, and merges what they measured.')
    .addHelpText('after', HELP);
  addPlan(cluster, terminal);
  addRun(cluster, terminal);
  addMerge(cluster, terminal);
  addFigures(cluster, terminal);
  addSbatch(cluster, terminal);
}

interface PlanArguments extends Settings {
  readonly output: string;
  readonly shards: number;
  readonly reference?: string;
  readonly answerTokens?: number;
  readonly config?: string;
}

function addPlan(cluster: Command, terminal: Terminal): void {
  const command = cluster
    .command('plan')
    .summary('fix what is measured, in one file')
    .description('Fixes model, samples, configurations and shard count in a file that all machines read.')
    .argument('<model>', 'folder, embedded model or preset')
    .requiredOption('--output <file>', 'the plan')
    .option('--shards <count>', 'parts that are measured independently', wholeNumber(1), 1)
    .option('--samples <count>', 'prompts to measure (default: 100)', wholeNumber(1))
    .option('--configurations <names>', 'with commas between, as of `benchmark`', configurationNames)
    .option('--reference <name>', 'the configuration whose weights the others are compared with')
    .option('--answer-tokens <count>', 'most tokens of an answer to compare (default: all)', wholeNumber(1))
    .option('--config <file>', 'JSON file with these settings, as of `benchmark`');
  addWorkOptions(command)
    .addHelpText('after', PLAN_HELP)
    .action((model: string, options: PlanArguments) => runPlan(terminal, model, options));
}

async function runPlan(terminal: Terminal, name: string, options: PlanArguments): Promise<void> {
  const { output, shards, reference = null, answerTokens = null, config, ...settings } = options;
  const plan = await configured(terminal, async () => {
    const { dataset, samples, configurations, newTokens, promptTokens, repeats, ignoreEos, backend } =
      await makePlan(settings, config);
    const folder = resolveModel(name);
    const found = await readDataset(terminal, dataset, samples);
    const keys = await plannedSampleKeys(folder, found, { promptTokens, repeats });
    return makeClusterPlan({
      shards,
      reference,
      answerTokens,
      model: { name: identify(folder).name, folder, digest: await modelDigest(folder) },
      configurations: configurations.map(({ label }) => label),
      ...{ newTokens, promptTokens, repeats, ignoreEos, backend },
      dataset: existsSync(dataset) ? basename(dataset) : dataset, // the samples are here: the folder is nobody's business
      samples: found.map(({ instruction, input, output: answer }, i) => ({
        ...{ keys: keys[i]!, instruction, input, output: answer },
      })),
    });
  });
  await writePlan(plan, output);
  const { samples, configurations, fingerprint } = plan;
  note(
    terminal,
    `plan ${fingerprint}: ${samples.length} samples, ${configurations.length} configurations, ${shards} shards`,
  );
  print(terminal, resolve(output));
}

/** As `run` will form them, of the prompts' token ids; the weights are not needed for that. */
async function plannedSampleKeys(
  folder: string,
  samples: readonly InstructionSample[],
  { promptTokens, repeats }: Pick<ClusterPlan, 'promptTokens' | 'repeats'>,
): Promise<string[][]> {
  const { readArchitecture } = await import('../model.js');
  const { sampleKeys } = await import('../benchmark/store.js');
  const tokenizer = await loadTokenizer(folder);
  const { vocabSize } = (await readArchitecture(folder)).config;
  const prompts = samples.map((sample, i) => promptOf({ tokenizer, vocabSize }, sample, i, { promptTokens }));
  return sampleKeys(prompts, repeats);
}

interface MergeArguments {
  readonly plan: string;
  readonly folder?: string;
  readonly output?: string;
  readonly samples?: string;
  readonly json?: true;
}

function addMerge(cluster: Command, terminal: Terminal): void {
  cluster
    .command('merge')
    .summary('shards -> the records of one machine')
    .description('Merges the shards into records, or says what is missing.')
    .addOption(planOption())
    .addOption(folderOption())
    .option('--output <file>', 'write the records there, as a JSON list (default: into the results folder)')
    .option(
      '--samples <file>',
      'write every measurement there, with its text, as JSON lines in the order of the plan',
    )
    .option('--json', 'print the records instead of a table')
    .addHelpText('after', MERGE_HELP)
    .action((options: MergeArguments) => runMerge(terminal, options));
}

async function runMerge(terminal: Terminal, options: MergeArguments): Promise<void> {
  const { collectShards, mergedRuns } = await import('../cluster/merge.js');
  const { plan, merged } = await configured(terminal, async () => {
    const read = await readPlan(options.plan);
    return { plan: read, merged: await collectShards(read, folderOf(options.plan, options.folder)) };
  });
  const { doubles, unequalDoubles, missing, samples } = merged;
  if (doubles > 0)
    note(
      terminal,
      `note: ${doubles} measurements were made twice, each counts once; ${unequalDoubles} of them with another text`,
    );
  if (missing.length > 0) return sayMissing(terminal, missing);
  const runs = mergedRuns(plan, merged);
  if (options.samples !== undefined) {
    const lines = samples.map(({ label, sample, key, value, facts }) =>
      JSON.stringify({ label, sample, key, machine: facts.machine, ...value }),
    );
    await writeTextAtomically(options.samples, `${lines.join('\n')}\n`);
  }
  const written = await writeRuns(runs, options.output === undefined ? null : resolve(options.output));
  print(terminal, options.json ? JSON.stringify(runs) : formatRuns(runs));
  for (const line of new Set(runs.flatMap(({ notes }) => notes))) note(terminal, `note: ${line}`);
  note(terminal, `${runs.length} ${runs.length === 1 ? 'record' : 'records'} written to ${written}`);
}

function sayMissing(terminal: Terminal, missing: readonly string[]): void {
  for (const line of missing) note(terminal, `missing: ${line}`);
  note(terminal, 'incomplete: nothing was written; run the shards again, each goes on where it was');
  terminal.exitCode = EXIT.incomplete;
}

interface FiguresArguments {
  readonly plan: string;
  readonly speed?: readonly string[];
  readonly output: string;
}

function addFigures(cluster: Command, terminal: Terminal): void {
  cluster
    .command('figures')
    .summary('merged shards -> figures without the texts')
    .description(
      'Writes the figures of an evaluation, numbers and no text of the dataset, for others to read.',
    )
    .addOption(planOption())
    .option('--speed <files...>', 'plans whose runs give the speed (default: the same plan)')
    .requiredOption('--output <file>', 'the figures')
    .addHelpText('after', FIGURES_HELP)
    .action((options: FiguresArguments) => runFigures(terminal, options));
}

async function runFigures(terminal: Terminal, options: FiguresArguments): Promise<void> {
  const { collectShards } = await import('../cluster/merge.js');
  const collect = async (file: string) => {
    const plan = await readPlan(file);
    return { plan, merged: await collectShards(plan, folderOf(file, undefined)) };
  };
  const [texts, ...speeds] = await configured(terminal, () =>
    Promise.all([options.plan, ...(options.speed ?? [options.plan])].map(collect)),
  );
  const missing = [texts!, ...speeds].flatMap(({ merged }) => merged.missing);
  if (missing.length > 0) return sayMissing(terminal, missing);
  const figures = await configured(terminal, () => evaluationFigures(texts!, speeds));
  await writeTextAtomically(options.output, `${JSON.stringify(figures)}\n`);
  print(terminal, formatEvaluation(figures));
  note(terminal, `figures written to ${resolve(options.output)}`);
}

interface SbatchArguments {
  readonly plan: string;
  readonly folder?: string;
  readonly output?: string;
  readonly time: number;
  readonly cpus: number;
  readonly memory?: string;
  readonly gpus?: number;
  readonly partition?: string;
}

function addSbatch(cluster: Command, terminal: Terminal): void {
  cluster
    .command('sbatch')
    .summary('print a script for Slurm')
    .description('Prints a script that submits the shards as an array, and the merge after them.')
    .addOption(planOption())
    .addOption(folderOption())
    .option('--output <file>', "of the merge (default: the plan's name with .runs.json)")
    .option('--time <minutes>', 'limit of one start of a shard', wholeNumber(3), 60)
    .option('--cpus <count>', 'of a shard', wholeNumber(1), 1)
    .option('--memory <amount>', 'of a shard, as of sbatch --mem: 8G')
    .option('--gpus <count>', 'of a shard, as of sbatch --gres=gpu', wholeNumber(1))
    .option('--partition <name>', 'as of sbatch')
    .action((options: SbatchArguments) => runSbatch(terminal, options));
}

async function runSbatch(terminal: Terminal, options: SbatchArguments): Promise<void> {
  const { plan: file, folder, output, time, cpus, memory, gpus, partition } = options;
  const plan = await configured(terminal, () => readPlan(file));
  const script = sbatchScript(plan, {
    node: process.execPath,
    program: fileURLToPath(new URL('../../bin/response-time.js', import.meta.url)),
    planFile: resolve(file),
    folder: folderOf(file, folder),
    output: resolve(output ?? `${file.replace(/\.json$/, '')}.runs.json`),
    minutes: time,
    ...{ cpus, memory, gpus, partition },
  });
  terminal.output.write(script);
}
