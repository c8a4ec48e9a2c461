// lib/cli/generate.ts: `response-time generate`: a prompt -> text as it comes, or one JSON object.

import { type Command, Option } from 'commander';
import type { GenerateOptions, Generation } from '../generate.js';
import type { Mode } from '../jit/jit.js';
import type { Model } from '../model.js';
import { type SchemeName, schemeNames } from '../quantize.js';
import {
  type BackendChoice,
  backendFor,
  backendOption,
  loadRunner,
  modeOption,
  type Runner,
  startBackend,
  type TargetChoice,
  targetOption,
} from './load.js';
import { resolveModel } from './models.js';
import { note, print, type Terminal } from './terminal.js';
import { formatBytes, formatMs } from './units.js';
import { numberWhere, tokenIds, wholeNumber } from './values.js';

interface GenerateArguments {
  readonly prompt?: string;
  readonly promptIds?: readonly number[];
  readonly chat?: true;
  readonly new: number;
  readonly weights: SchemeName;
  readonly cache: boolean;
  readonly target: TargetChoice;
  readonly mode: Mode;
  readonly backend: BackendChoice;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
  readonly ignoreEos?: true;
  readonly logits?: true;
  readonly json?: true;
}

const HELP = `
The prompt is continued as it stands. Instruction models want it in their chat template: add --chat.
Text is streamed to stdout; a line with the times follows on stderr.

Examples
  $ response-time generate tiny-gpt2 --chat --prompt "Which city is the capital of Finland?"
  $ response-time generate tiny-gpt2 --prompt-ids 5,17,3 --new 8          no tokenizer needed
  $ response-time generate gpt2 --prompt-ids 464,3290 --new 15 --no-cache    what the cache saves: compare times
  $ response-time generate tiny-gpt2 --chat --prompt "What is the plural of day?" --temperature 0.8 --top-p 0.9 --seed 7
  $ response-time generate gpt2 --prompt-ids 464,3290 --new 64 --target wasm --weights int8    one compiled program
  $ response-time generate tiny-gpt2 --prompt "Hi" --weights int8 --json --logits > answer.json

--json prints one object: promptIds, newIds (with the end-of-sequence id where it ended the text), text (null without
tokenizer), logits (of the prompt's last position, with --logits, else null), firstTokenMs, msPerToken (mean of the
tokens after the first; null if there are none), memory { weightBytes, cacheBytes, peakRssBytes }, weights, target,
compiled (null when eager; else target, compilations, kernels of one token, compileMs, hostCallsPerToken), backend,
model. Compiling happens before the first token is timed.
`;

/** Adds the command to the program. */
export function addGenerate(program: Command, terminal: Terminal): void {
  program
    .command('generate')
    .summary('continue a prompt')
    .description('Continues a prompt, token by token, and says how long that took.')
    .argument('<model>', 'folder, embedded model or preset')
    .addOption(new Option('--prompt <text>', 'text to continue').conflicts('promptIds'))
    .addOption(new Option('--prompt-ids <ids>', 'token ids to continue, such as 1,2,3').argParser(tokenIds))
    .addOption(new Option('--chat', "put the prompt into the model's chat template").conflicts('promptIds'))
    .option('--new <count>', 'most tokens to generate', wholeNumber(1), 64)
    .addOption(
      new Option('--weights <scheme>', 'int8: a scale per output channel, int8-tensor: one per tensor')
        .choices(schemeNames)
        .default('stored'),
    )
    .option('--no-cache', 'compute the whole sequence again for every token')
    .addOption(targetOption())
    .addOption(modeOption())
    .addOption(backendOption())
    .option(
      '--temperature <t>',
      '0 takes the most likely token; above 0 draws',
      numberWhere((t) => t >= 0 && t < 1e6, 'a number from 0'),
      0,
    )
    .option('--top-k <k>', 'draw from the k most likely tokens only', wholeNumber(1))
    .option(
      '--top-p <p>',
      'draw from the most likely tokens that have p of the probability',
      numberWhere((p) => p > 0 && p <= 1, 'a number above 0, at most 1'),
    )
    .option('--seed <number>', 'of the draw; the same seed, the same text', wholeNumber(0, 2 ** 48 - 1), 0)
    .option('--ignore-eos', 'go on after an end-of-sequence token')
    .addOption(new Option('--logits', "add the logits of the prompt's last position (needs --json)"))
    .option('--json', 'print one JSON object instead of text')
    .addHelpText('after', HELP)
    .action((model: string, options: GenerateArguments) => runGenerate(terminal, model, options));
}

async function runGenerate(terminal: Terminal, name: string, options: GenerateArguments): Promise<void> {
  checkCombination(options);
  if (options.temperature === 0 && (options.topK !== undefined || options.topP !== undefined)) {
    note(
      terminal,
      'note: --top-k and --top-p change nothing at --temperature 0, which takes the most likely token',
    );
  }
  // The cheapest mistakes to find come first: a large model takes minutes to load.
  const promptIds = await readPrompt(name, options);
  const backend = (await startBackend(backendFor(options.target, options.backend))).name;
  const request = requestOf(options);
  const runner = await loadRunner(terminal, name, {
    weights: options.weights,
    target: options.target,
    mode: options.mode,
    rehearse: { promptIds, options: request },
  });
  try {
    const { collect } = await import('../generate.js');
    const generation = await collect(
      runner.runs,
      promptIds,
      { ...request, signal: terminal.signal },
      options.json ? undefined : streamTo(terminal, runner.model),
    );
    if (!options.json) print(terminal, '');
    terminal.signal.throwIfAborted();
    const memory = memoryOf(runner.model, generation);
    if (options.json) print(terminal, JSON.stringify(answer(generation, memory, options, runner, backend)));
    else note(terminal, figures(generation, memory, runner.model, describeRunner(runner, backend)));
  } finally {
    await runner.dispose();
  }
}

function requestOf(options: GenerateArguments): GenerateOptions {
  return {
    maxNewTokens: options.new,
    sampling: {
      temperature: options.temperature,
      topK: options.topK ?? null,
      topP: options.topP ?? null,
      seed: options.seed,
    },
    useCache: options.cache,
    ignoreEos: options.ignoreEos ?? false,
    keepLogits: options.logits ?? false,
  };
}

/** What ran the model, for the line of figures. */
function describeRunner({ compiled }: Runner, backend: string): string {
  const report = compiled?.report();
  if (!report) return `${backend}, op by op`;
  const { target, compilations, kernels, compileMs } = report;
  return `${target}, ${compilations} programs of ${kernels} kernels compiled in ${formatMs(compileMs)}`;
}

/** What commander cannot see: options that only make sense, or only fail, together. */
function checkCombination(options: GenerateArguments): void {
  if (options.prompt === undefined && options.promptIds === undefined) {
    throw new Error('generate: expected --prompt TEXT or --prompt-ids 1,2,3, received neither');
  }
  if (options.prompt === '') throw new RangeError('--prompt: expected a text, received an empty one');
  if (options.logits && !options.json)
    throw new Error('--logits: needs --json, which is where they are printed');
}

/** The prompt's ids, checked against the model's config.json. */
async function readPrompt(name: string, options: GenerateArguments): Promise<readonly number[]> {
  const folder = resolveModel(name);
  const { readArchitecture } = await import('../model.js');
  const { checkPrompt } = await import('../generate.js');
  const { config } = await readArchitecture(folder);
  const promptIds = options.promptIds ?? (await encodePrompt(folder, name, options));
  checkPrompt(config, promptIds, options.new);
  return promptIds;
}

async function encodePrompt(
  folder: string,
  name: string,
  { prompt = '', chat }: GenerateArguments,
): Promise<number[]> {
  const { loadTokenizer } = await import('../tokenizer.js');
  const tokenizer = await loadTokenizer(folder);
  if (!tokenizer) {
    throw new Error(`model ${name}: --prompt needs a tokenizer.json, found none; give --prompt-ids instead`);
  }
  if (!chat) return tokenizer.encode(prompt);
  const text = tokenizer.renderChat([{ role: 'user', content: prompt }]);
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/** Without a tokenizer the ids are the text. */
function streamTo(terminal: Terminal, model: Model): (token: { id: number; text: string }) => void {
  let separator = '';
  return ({ id, text }) => {
    terminal.output.write(model.tokenizer ? text : `${separator}${id}`);
    separator = ' ';
  };
}

interface MemoryFigures {
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly peakRssBytes: number;
}

function memoryOf(model: Model, { cacheBytes }: Generation): MemoryFigures {
  const peakRssBytes = process.resourceUsage().maxRSS * 1024; // Node gives kilobytes on every system
  return { weightBytes: model.weightBytes, cacheBytes, peakRssBytes };
}

/** The object of --json: its fields are promised in HELP. */
function answer(
  generation: Generation,
  memory: MemoryFigures,
  options: GenerateArguments,
  { model, compiled }: Runner,
  backend: string,
): object {
  const report = compiled?.report() ?? null;
  const { promptIds, newIds, text, logits, firstTokenMs, perTokenMs } = generation;
  return {
    promptIds,
    newIds,
    text,
    logits: logits && Array.from(logits),
    firstTokenMs,
    msPerToken: mean(perTokenMs),
    memory,
    weights: model.weights,
    target: options.target,
    compiled: report && {
      target: report.target,
      compilations: report.compilations,
      kernels: report.kernels,
      compileMs: report.compileMs,
      hostCallsPerToken: report.hostCallsPerToken,
    },
    backend,
    model: model.name,
  };
}

function figures(
  { newIds, finish, firstTokenMs, perTokenMs, totalMs }: Generation,
  { weightBytes, cacheBytes }: MemoryFigures,
  { weights }: Model,
  ranOn: string,
): string {
  const msPerToken = mean(perTokenMs);
  return [
    `${newIds.length} tokens in ${formatMs(totalMs)}${finish === 'eos' ? ', ended by the model' : ''}`,
    `first ${formatMs(firstTokenMs)}`,
    ...(msPerToken === null
      ? []
      : [`then ${formatMs(msPerToken)} each (${(1000 / msPerToken).toPrecision(3)} tokens/s)`]),
    `weights ${weights} ${formatBytes(weightBytes)}, cache ${formatBytes(cacheBytes)}`,
    ranOn,
  ].join('; ');
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}
