// lib/cli/benchmark.ts: `response-time benchmark`: a model, samples, configurations -> Run records and a table.

import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { Progress } from '../benchmark.js';
import type { InstructionSample } from '../dataset.js';
import { resultsFolder } from '../paths.js';
import { schemeNames } from '../quantize.js';
import { formatRuns } from '../results/compare.js';
import { writeTextAtomically } from '../results/files.js';
import { type Run, writeRun } from '../results.js';
import { DEFAULT_CONFIGURATIONS, makePlan, type Plan, type Settings } from './benchmarkPlan.js';
import { type LoadedConfigurations, loadConfigurations, promptOf } from './configurations.js';
import { datasetOption, readDataset } from './dataset.js';
import { backendOption } from './load.js';
import { resolveModel } from './models.js';
import { startProgress } from './progress.js';
import { note, print, type Terminal } from './terminal.js';
import { wholeNumber } from './values.js';

const HELP = `
A configuration is TARGET-CACHE-WEIGHTS: eager, wasm or webgpu, cached or uncached, and one of
${schemeNames.join(', ')}. With -fast at its end it rounds what integer weights are multiplied with,
with -x8 it writes eight texts at once.
They are measured in turns, sample by sample, after a warm-up as long as a sample, so that their ratios are fair. Each
becomes a Run record (p50, p95, p99, first token, tokens/s, memory, ROUGE against the reference answers) in
results/latest, or in the file that --output names. A run that is stopped or killed goes on where it was when the same
command is given again.

--dataset is a JSON list of { instruction, input, output }; by default data/instructions-eval.json. A model without
tokenizer gets prompts of --prompt-tokens ids instead.

--config FILE holds the same as JSON: { "samples": 100, "configurations": ["eager-cached-f32"], "new": 64 }; the keys
are samples, configurations, dataset, new, promptTokens, repeats, ignoreEos, backend, output. An option beats the file.

Examples
  $ response-time benchmark tiny-gpt2 --samples 20
  $ response-time benchmark gpt2 --samples 3 --new 15 --configurations eager-uncached-f32,eager-cached-f32
  $ response-time benchmark gpt2 --samples 5 --configurations eager-cached-f32,wasm-cached-f32,wasm-cached-int8
  $ response-time benchmark gpt2 --samples 5 --configurations wasm-cached-int8,wasm-cached-int8-x4
  $ response-time benchmark tiny-gpt2 --samples 1000 --output /tmp/final.json
`;

interface BenchmarkArguments extends Settings {
  readonly config?: string;
  readonly json?: true;
}

/** Adds the command to the program. */
export function addBenchmark(program: Command, terminal: Terminal): void {
  const command = program
    .command('benchmark')
    .summary('measure configurations side by side')
    .description('Measures a model in several configurations and writes a record of each.')
    .argument('<model>', 'folder, embedded model or preset')
    .option('--samples <count>', 'prompts to measure (default: 100)', wholeNumber(1))
    .option(
      '--configurations <names>',
      `with commas between (default: "${DEFAULT_CONFIGURATIONS.join(',')}")`,
      configurationNames,
    )
    .option('--config <file>', 'JSON file with these settings');
  addWorkOptions(command)
    .option('--output <file>', 'write the records there, as a JSON list')
    .option('--json', 'print the records instead of a table')
    .addHelpText('after', HELP)
    .action((model: string, options: BenchmarkArguments) => runBenchmark(terminal, model, options));
}

/** What a sample is and how it is measured: the same for one machine and for many. */
export function addWorkOptions(command: Command): Command {
  return command
    .addOption(datasetOption())
    .option('--new <count>', 'most new tokens a sample (default: 64)', wholeNumber(1))
    .option('--prompt-tokens <count>', 'of a model without tokenizer (default: 32)', wholeNumber(1))
    .option('--repeats <count>', 'how often each sample is measured (default: 1)', wholeNumber(1))
    .option('--ignore-eos', 'go on after the end of an answer: equal lengths, no quality')
    .addOption(backendOption(undefined));
}

export function configurationNames(text: string): string[] {
  const names = text.split(',').map((part) => part.trim());
  if (names.every((name) => name !== '')) return names;
  throw new InvalidArgumentError('Expected names with commas between.');
}

async function runBenchmark(
  terminal: Terminal,
  name: string,
  { config, json, ...options }: BenchmarkArguments,
): Promise<void> {
  const plan = await makePlan(options, config);
  const folder = resolveModel(name);
  const samples = await readDataset(terminal, plan.dataset, plan.samples);
  const loaded = await loadConfigurations(terminal, name, plan);
  try {
    const runs = await measure(terminal, { plan, folder, samples, loaded });
    const written = await writeRuns(runs, plan.output);
    await rm(resumeFileOf({ plan, folder }), { force: true }); // not before the records are safe
    print(terminal, json ? JSON.stringify(runs) : formatRuns(runs));
    for (const line of new Set(runs.flatMap(({ notes }) => notes))) note(terminal, `note: ${line}`);
    note(terminal, `${runs.length} ${runs.length === 1 ? 'record' : 'records'} written to ${written}`);
  } finally {
    await loaded.dispose();
  }
}

interface Prepared {
  readonly plan: Plan;
  readonly folder: string;
  readonly samples: readonly InstructionSample[];
  readonly loaded: LoadedConfigurations;
}

async function measure(terminal: Terminal, { plan, folder, samples, loaded }: Prepared): Promise<Run[]> {
  const { benchmarkTogether } = await import('../benchmark.js');
  const { model, configurations, gpu } = loaded;
  const hasText = model.tokenizer !== null && !model.randomWeights && !plan.ignoreEos;
  const progress = startProgress(terminal, 'Measuring', (done, total) => `${done} of ${total} samples`);
  try {
    return await benchmarkTogether(configurations, {
      samples: samples.map((sample, i) => promptOf(model, sample, i, plan)),
      ...(hasText && { references: samples.map(({ output }) => output) }),
      repeats: plan.repeats,
      resumeFile: resumeFileOf({ plan, folder }),
      ...(gpu !== undefined && { gpu }),
      signal: terminal.signal,
      onProgress: ({ done, total }: Progress) => progress.update(done, total),
    });
  } catch (error) {
    if (terminal.signal.aborted) note(terminal, 'The same command goes on where this one stopped.');
    throw error;
  } finally {
    progress.stop();
  }
}

/** Samples of another model, or of other settings, lie in another file; more samples of the same go on in it. */
function resumeFileOf({ plan, folder }: Pick<Prepared, 'plan' | 'folder'>): string {
  const { samples: _, output: __, ...identity } = plan;
  const hash = createHash('sha256').update(JSON.stringify({ folder, identity })).digest('hex').slice(0, 8);
  return join(resultsFolder(), `benchmark-${basename(folder)}-${hash}.samples.jsonl`);
}

/** Writes records into the results folder, or as one list into a file. @returns where they are */
export async function writeRuns(runs: readonly Run[], output: string | null): Promise<string> {
  if (output === null) {
    for (const run of runs) await writeRun(run, resultsFolder());
    return resultsFolder();
  }
  await writeTextAtomically(output, `${JSON.stringify(runs, null, 1)}\n`);
  return output;
}
