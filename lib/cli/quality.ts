// lib/cli/quality.ts: `response-time quality`: two sets of weights, compared token by token; a gate for pipelines.

import { type Command, Option } from 'commander';
import type { Mode } from '../jit/jit.js';
import type { QualityThresholds, WeightsComparison } from '../quality/gate.js';
import { type SchemeName, schemeNames } from '../quantize.js';
import { datasetOption, readDataset } from './dataset.js';
import {
  type BackendChoice,
  backendFor,
  backendOption,
  loadRunner,
  modeOption,
  startBackend,
  type TargetChoice,
  targetOption,
} from './load.js';
import { resolveModel } from './models.js';
import { startProgress } from './progress.js';
import { note, print, type Terminal } from './terminal.js';
import { numberWhere, wholeNumber } from './values.js';

interface QualityArguments {
  readonly against?: string;
  readonly weights: SchemeName;
  readonly againstWeights: SchemeName;
  readonly samples: number;
  readonly dataset?: string;
  readonly new: number;
  readonly backend: BackendChoice;
  readonly target: TargetChoice;
  readonly mode: Mode;
  readonly againstMode: Mode;
  readonly maxPerplexityRatio: number;
  readonly minSameTop: number;
  readonly minRougeL: number;
  readonly maxKlMean?: number;
  readonly maxKlP99?: number;
  readonly json?: true;
}

/** The exit code of a gate that was not passed: 1 says that it could not be asked. */
const GATE_FAILED = 2;

const HELP = `
Both sets of weights read the same prompts and reference answers (teacher-forced) and then answer freely. Reported are
  perplexity ratio   of the answers, MODEL's over the other's
  KL divergence      of MODEL's next-token distribution from the other's, mean and 99th percentile, in nats
  same top token     share of positions where both put the same token first
  ROUGE-L            of MODEL's free answers against the other's
Exit code 0 if every threshold holds, 2 if one does not (each is named on stderr).

Examples
  $ response-time quality tiny-gpt2 --weights int8                     int8 against the stored weights
  $ response-time quality /tmp/tiny-int4 --against tiny-gpt2 --max-perplexity-ratio 1.05 --min-rouge-l 0.9
  $ response-time quality tiny-gpt2 --weights int4 --samples 200 --json
`;

/** Adds the command to the program. */
export function addQuality(program: Command, terminal: Terminal): void {
  const share = numberWhere((value) => value >= 0 && value <= 1, 'a number from 0 to 1');
  const positive = numberWhere((value) => value > 0, 'a number above 0');
  const scheme = (flags: string, text: string) =>
    new Option(flags, text).choices(schemeNames).default('stored');
  program
    .command('quality')
    .summary('compare two sets of weights, pass or fail')
    .description('Compares the weights of a model with others of the same model, token by token.')
    .argument('<model>', 'folder, embedded model or preset: what is judged')
    .option('--against <model>', 'what it is compared with; by default the same model as it is stored')
    .addOption(scheme('--weights <scheme>', 'how to load what is judged'))
    .addOption(scheme('--against-weights <scheme>', 'how to load the other'))
    .option('--samples <count>', 'prompts to compare on', wholeNumber(1), 20)
    .addOption(datasetOption())
    .option('--new <count>', 'most new tokens of a free answer', wholeNumber(1), 64)
    .addOption(targetOption())
    .addOption(modeOption('--mode <name>', '; of what is judged'))
    .addOption(modeOption('--against-mode <name>', '; of the other'))
    .addOption(backendOption())
    .option('--max-perplexity-ratio <ratio>', 'threshold', positive, 1.005)
    .option('--min-same-top <share>', 'threshold', share, 0.97)
    .option('--min-rouge-l <score>', 'threshold', share, 0.98)
    .option('--max-kl-mean <nats>', 'threshold', positive)
    .option('--max-kl-p99 <nats>', 'threshold', positive)
    .option('--json', 'print one JSON object: the figures, thresholds, failed')
    .addHelpText('after', HELP)
    .action((model: string, options: QualityArguments) => runQuality(terminal, model, options));
}

async function runQuality(terminal: Terminal, name: string, options: QualityArguments): Promise<void> {
  const thresholds: QualityThresholds = {
    maxPerplexityRatio: options.maxPerplexityRatio,
    minSameTopToken: options.minSameTop,
    minRougeL: options.minRougeL,
    ...(options.maxKlMean !== undefined && { maxKlMean: options.maxKlMean }),
    ...(options.maxKlP99 !== undefined && { maxKlP99: options.maxKlP99 }),
  };
  const comparison = await compare(terminal, name, options);
  const { failedThresholds } = await import('../quality/gate.js');
  const failed = failedThresholds(comparison, thresholds);
  if (options.json) print(terminal, JSON.stringify({ ...comparison, thresholds, failed }));
  else print(terminal, describe(comparison));
  for (const line of failed) note(terminal, `not passed: ${line}`);
  if (failed.length > 0) terminal.exitCode = GATE_FAILED;
}

async function compare(
  terminal: Terminal,
  name: string,
  options: QualityArguments,
): Promise<WeightsComparison> {
  const other = options.against ?? name;
  for (const model of [name, other]) resolveModel(model); // the cheapest mistake to find comes first
  const samples = await readDataset(terminal, options.dataset, options.samples);
  const { target } = options;
  await startBackend(backendFor(target, options.backend));
  const { compareWeights } = await import('../quality/gate.js');
  const { weights, mode, againstWeights, againstMode } = options;
  const candidate = await loadRunner(terminal, name, { weights, target, mode });

  const reference = await loadRunner(terminal, other, {
    weights: againstWeights,
    target,
    mode: againstMode,
  });
  const progress = startProgress(terminal, 'Comparing', (done, total) => `${done} of ${total} samples`);
  try {
    return await compareWeights(candidate.runs, reference.runs, samples, {
      maxNewTokens: options.new,
      signal: terminal.signal,
      onSample: progress.update,
    });
  } finally {
    progress.stop();
    await candidate.dispose();
    await reference.dispose();
  }
}

function describe(found: WeightsComparison): string {
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  const lines: [string, string][] = [
    [
      'perplexity',
      `${found.perplexity.toFixed(4)} against ${found.referencePerplexity.toFixed(4)}, ` +
        `ratio ${found.perplexityRatio.toFixed(5)}`,
    ],
    [
      'KL divergence',
      `mean ${found.klMean.toExponential(2)}, 99th percentile ${found.klP99.toExponential(2)} nats`,
    ],
    ['same top token', percent(found.sameTopToken)],
    ['free answers', `ROUGE-L ${found.text.rougeL.toFixed(4)}, equal ${percent(found.text.exactMatch)}`],
    ['samples', String(found.samples)],
  ];
  return lines.map(([title, text]) => `${title.padEnd(16)}${text}`).join('\n');
}
