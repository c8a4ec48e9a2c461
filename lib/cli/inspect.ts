// lib/cli/inspect.ts: `response-time inspect`: what a model is and what memory it needs, from headers alone.

import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { cacheBytesPerToken, forecastCacheBytes } from '../forecast.js';
import { isHubId, isOffline } from '../hub.js';
import type { ModelConfig } from '../models/layers.js';
import { type RandomShapeName, randomShape, randomShapeNames } from '../randomModel.js';
import { alignColumns } from '../results/compare.js';
import { type CheckpointFacts, forecastFolder, type SchemeForecast } from './forecast.js';
import { type MachineMemory, machineMemory } from './machine.js';
import { fetchFromHub } from './model.js';
import { identify, randomModelFolder, resolveModel } from './models.js';
import { print, type Terminal } from './terminal.js';
import { formatBytes, formatCount } from './units.js';
import { wholeNumber } from './values.js';

interface InspectArguments {
  readonly context?: number;
  readonly json?: true;
}

const HELP = `
Reads config.json and the headers of the weights, never the weights: a 14 GB model is inspected in a second. Without
weights in the folder the forecast is made from config.json alone: so it is for the shapes of \`model --random\` that
were not made yet, and for models of the hub that were not fetched, of which only config and tokenizer are.

Sizes are of the weights in their stored type, plus the cache of keys and values for the whole context. Running op by
op (--target eager) also makes float32 tensors, of float weights all at once, of integer ones one at a time: the last
column.

Examples
  $ response-time inspect tiny-gpt2
  $ response-time inspect ./Mistral-7B-Instruct-v0.2 --context 4096
  $ response-time inspect mistral-7b-instruct-v0.2 --context 2048      before it is made or fetched
  $ response-time inspect gpt2 --json | jq .schemes
`;

/** Adds the command to the program. */
export function addInspect(program: Command, terminal: Terminal): void {
  program
    .command('inspect')
    .summary('what a model is, and whether it will fit')
    .description('Shows family, configuration, tensors, and the memory that each scheme needs.')
    .argument('<model>', 'folder, embedded model or preset')
    .option('--context <tokens>', "prompt and answer together; by default all of the model's", wholeNumber(1))
    .option('--json', 'print one JSON object')
    .addHelpText('after', HELP)
    .action((model: string, options: InspectArguments) => runInspect(terminal, model, options));
}

async function runInspect(terminal: Terminal, name: string, options: InspectArguments): Promise<void> {
  const inspection = await inspect(await locate(terminal, name), options.context);
  print(terminal, options.json ? JSON.stringify(inspection) : describe(inspection));
}

interface SchemeFit extends SchemeForecast {
  readonly fitsMemory: boolean;
  /** null without a GPU whose memory is known. */
  readonly fitsGpu: boolean | null;
}

interface Inspection {
  readonly name: string;
  readonly folder: string;
  readonly family: string;
  readonly config: ModelConfig;
  readonly parameters: number;
  readonly checkpoint: CheckpointFacts | null;
  readonly tokenizer: { readonly vocabSize: number; readonly chatTemplate: boolean } | null;
  readonly eosIds: readonly number[];
  readonly cache: { readonly bytesPerToken: number; readonly tokens: number; readonly bytes: number };
  readonly schemes: readonly SchemeFit[];
  readonly machine: MachineMemory;
}

/** What is inspected: a folder; of a preset that was not made yet, the one where it would be, and its config. */
interface Place {
  readonly folder: string;
  readonly preset?: RandomShapeName;
}

/**
 * Finds a model that need not be here: whether it would fit is asked before it is made or fetched. Of a model of the
 * hub its config and tokenizer are fetched, which are small.
 */
async function locate(terminal: Terminal, name: string): Promise<Place> {
  try {
    return { folder: resolveModel(name) };
  } catch (error) {
    const preset = randomShapeNames.find((shape) => shape === name);
    if (preset) return { folder: randomModelFolder(preset), preset };
    if (!isHubId(name) || existsSync(name) || isOffline(process.env)) throw error;
    return { folder: await fetchFromHub(terminal, name, { withoutWeights: true }) };
  }
}

async function inspect({ folder, preset }: Place, context?: number): Promise<Inspection> {
  const { readArchitecture, architectureOf } = await import('../model.js');
  const { loadTokenizer, readEosIds } = await import('../tokenizer.js');
  const architecture = preset
    ? architectureOf(randomShape(preset).config, preset)
    : await readArchitecture(folder);
  const { config, family } = architecture;
  if (context !== undefined && context > config.maxPositions) {
    throw new RangeError(
      `--context: expected at most the model's context of ${config.maxPositions} tokens, received ${context}`,
    );
  }
  const tokens = context ?? config.maxPositions;
  const tokenizer = await loadTokenizer(folder);
  const { checkpoint, parameters, schemes } = await forecastFolder(folder, architecture, tokens);
  const machine = await machineMemory();
  return {
    name: identify(folder).name,
    folder,
    family,
    config,
    parameters,
    checkpoint,
    tokenizer: tokenizer && { vocabSize: tokenizer.vocabSize, chatTemplate: tokenizer.hasChatTemplate },
    eosIds: await readEosIds(folder, tokenizer, config.vocabSize),
    cache: {
      bytesPerToken: cacheBytesPerToken(config),
      tokens,
      bytes: forecastCacheBytes(config, tokens),
    },
    schemes: schemes.map((forecast) => ({
      ...forecast,
      fitsMemory: forecast.totalBytes < machine.memoryBytes,
      fitsGpu: machine.gpu && forecast.totalBytes < machine.gpu.memoryBytes,
    })),
    machine,
  };
}

function describe(inspection: Inspection): string {
  return [facts(inspection), forecastTable(inspection)].join('\n\n');
}

function facts({
  name,
  family,
  config,
  parameters,
  checkpoint,
  tokenizer,
  eosIds,
  cache,
}: Inspection): string {
  const { layers, dim, innerDim, heads, kvHeads, headDim, vocabSize, maxPositions, window, tiedHead } =
    config;
  const ends = eosIds.length > 0 ? `, texts end with ${eosIds.join(' or ')}` : '';
  const types = Object.entries(checkpoint?.tensors ?? {}).map(
    ([dtype, { tensors, bytes }]) => `${tensors} ${dtype} (${formatBytes(bytes)})`,
  );
  const lines: [string, string][] = [
    ['model', `${name}: ${family}, ${formatCount(parameters)} parameters`],
    ['layers', `${layers} of width ${dim}, feed-forward ${innerDim}`],
    [
      'attention',
      `${heads} heads of ${headDim}, ${kvHeads} for keys and values${window ? `, window ${window}` : ''}`,
    ],
    ['vocabulary', `${vocabSize}, head ${tiedHead ? 'tied to the embedding' : 'of its own'}`],
    ['context', `${maxPositions} tokens`],
    [
      'tokenizer',
      tokenizer
        ? `${tokenizer.vocabSize} tokens, ${tokenizer.chatTemplate ? 'a' : 'no'} chat template${ends}`
        : `none: give prompts as ids${ends}`,
    ],
    [
      'weights',
      checkpoint
        ? `${types.join(', ')} in ${filesOf(checkpoint)}`
        : 'none here: from config.json, as float16',
    ],
    ...(checkpoint?.quantized ? [['quantized', checkpoint.quantized] as [string, string]] : []),
    ...(checkpoint?.note ? [['note', checkpoint.note] as [string, string]] : []),
    ['cache', `${formatBytes(cache.bytesPerToken)} a token, ${formatBytes(cache.bytes)} for ${cache.tokens}`],
  ];
  return lines.map(([title, text]) => `${title.padEnd(11)}${text}`).join('\n');
}

function filesOf({ files }: CheckpointFacts): string {
  return files.length === 1 ? files[0]! : `${files.length} files`;
}

function forecastTable({ schemes, machine }: Inspection): string {
  const { memoryBytes, gpu } = machine;
  const yes = (fits: boolean | null) => (fits ? 'yes' : 'no');
  return alignColumns([
    [
      'weights as',
      'weights',
      'with cache',
      `fits ${formatBytes(memoryBytes)} RAM`,
      ...(gpu ? [`fits ${formatBytes(gpu.memoryBytes)} GPU`] : []),
      'run op by op',
    ],
    ...schemes.map((line) => [
      line.scheme,
      formatBytes(line.weightBytes),
      formatBytes(line.totalBytes),
      yes(line.fitsMemory),
      ...(gpu ? [yes(line.fitsGpu)] : []),
      formatBytes(line.eagerTotalBytes),
    ]),
  ]);
}
