// lib/cli/model.ts: `response-time model`: gets a checkpoint onto this machine: fetched from the hub, or made
// at random.

import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { FetchOptions } from '../hub.js';
import { type RandomShapeName, randomShapeNames } from '../randomModel.js';
import { listModels, randomModelFolder } from './models.js';
import { bytesOf, startProgress } from './progress.js';
import { note, print, type Terminal } from './terminal.js';
import { wholeNumber } from './values.js';

interface ModelArguments {
  readonly revision: string;
  readonly random?: RandomShapeName;
  readonly seed: number;
  readonly dtype?: 'f32' | 'f16' | 'bf16';
}

const HELP = `
OWNER/NAME fetches config, tokenizer and weights from the Hugging Face hub into the cache that Python's libraries use
(HF_HOME, HF_HUB_CACHE): what is there is not fetched again, a broken download goes on where it was, checksums are
verified. HF_TOKEN opens gated models, HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 asks nobody. Checkpoints of
GPT-2's, Llama's and Mistral's architecture will run; others are refused before their weights are fetched.

--random writes a checkpoint with a published model's real shape and seeded random weights into the cache folder
(RESPONSE_TIME_CACHE names another one). Its speed and memory are the real model's, its answers mean nothing, and
every figure made with it says so. The command prints the folder; the name then serves as MODEL everywhere.

Examples
  $ response-time model                         which models are there
  $ response-time model --random gpt2           GPT-2 124M, 498 MB
  $ response-time model HuggingFaceTB/SmolLM2-135M-Instruct
  $ response-time generate gpt2 --prompt-ids 464,3290 --new 15
`;

/** Adds the command to the program. */
export function addModel(program: Command, terminal: Terminal): void {
  program
    .command('model')
    .summary('make or fetch a checkpoint, list those that are here')
    .description('Fetches or makes a checkpoint and prints its folder; without arguments lists what is here.')
    .argument('[id]', 'of a model on the Hugging Face hub: OWNER/NAME')
    .option('--revision <name>', 'branch, tag or commit on the hub', 'main')
    .addOption(new Option('--random <name>', 'real shape, seeded random weights').choices(randomShapeNames))
    .option('--seed <number>', 'of the random weights', wholeNumber(0), 0)
    .addOption(
      new Option('--dtype <type>', "type of the random weights, by default the published model's").choices([
        'f32',
        'f16',
        'bf16',
      ]),
    )
    .addHelpText('after', HELP)
    .action((id: string | undefined, options: ModelArguments) => runModel(terminal, id, options));
}

async function runModel(terminal: Terminal, id: string | undefined, options: ModelArguments): Promise<void> {
  const { random, revision } = options;
  if (id !== undefined && random !== undefined) {
    throw new Error(`model: expected a hub id or --random, received both ${id} and --random ${random}`);
  }
  if (id !== undefined) return print(terminal, await fetchFromHub(terminal, id, { revision }));
  if (random === undefined) return listKnown(terminal);
  const folder = randomModelFolder(random);
  if (existsSync(folder)) note(terminal, 'It is there already; remove the folder to make it anew.');
  else await writeRandom(terminal, random, folder, options);
  print(terminal, folder);
}

/** Fetches a model of the hub, with progress. @throws Error as fetchModel */
export async function fetchFromHub(
  terminal: Terminal,
  id: string,
  { revision = 'main', withoutWeights = false }: Pick<FetchOptions, 'revision' | 'withoutWeights'> = {},
): Promise<string> {
  const { fetchModel } = await import('../hub.js');
  const { architectureOf } = await import('../model.js');
  const progress = startProgress(terminal, `Fetching ${id}`, bytesOf);
  try {
    return await fetchModel(id, {
      revision,
      withoutWeights,
      signal: terminal.signal,
      onProgress: progress.update,
      checkConfig: architectureOf,
    });
  } finally {
    progress.stop();
  }
}

function listKnown(terminal: Terminal): void {
  for (const { name, folder } of listModels()) print(terminal, `${name}\t${folder}`);
}

async function writeRandom(
  terminal: Terminal,
  name: RandomShapeName,
  folder: string,
  { seed, dtype }: ModelArguments,
): Promise<void> {
  const { writeRandomCheckpoint } = await import('../randomModel.js');
  const progress = startProgress(terminal, `Writing ${name}`, bytesOf);
  try {
    await writeRandomCheckpoint(folder, name, {
      seed,
      ...(dtype && { dtype }),
      signal: terminal.signal,
      onProgress: progress.update,
    });
  } finally {
    progress.stop();
  }
}
