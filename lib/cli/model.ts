// lib/cli/model.ts: `response-time model`: gets a checkpoint onto this machine: made at random.

import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { type RandomShapeName, randomShapeNames } from '../randomModel.js';
import { listModels, randomModelFolder } from './models.js';
import { startProgress } from './progress.js';
import { note, print, type Terminal } from './terminal.js';
import { formatBytes } from './units.js';
import { wholeNumber } from './values.js';

interface ModelArguments {
  readonly random?: RandomShapeName;
  readonly seed: number;
  readonly dtype?: 'f32' | 'f16' | 'bf16';
}

const HELP = `
--random writes a checkpoint with a published model's real shape and seeded random weights into the cache folder
(RESPONSE_TIME_CACHE names another one). Its speed and memory are the real model's, its answers mean nothing, and
every figure made with it says so. The command prints the folder; the name then serves as MODEL everywhere.

Examples
  $ response-time model                         which models are there
  $ response-time model --random gpt2           GPT-2 124M, 498 MB
  $ response-time generate gpt2 --prompt-ids 464,3290 --new 15
`;

/** Adds the command to the program. */
export function addModel(program: Command, terminal: Terminal): void {
  program
    .command('model')
    .summary('make or fetch a checkpoint, list those that are here')
    .description('Makes a checkpoint of a real shape; without arguments lists the models that are here.')
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
    .action((options: ModelArguments) => runModel(terminal, options));
}

async function runModel(terminal: Terminal, options: ModelArguments): Promise<void> {
  if (options.random === undefined) return listKnown(terminal);
  const folder = randomModelFolder(options.random);
  if (existsSync(folder)) note(terminal, 'It is there already; remove the folder to make it anew.');
  else await writeRandom(terminal, options.random, folder, options);
  print(terminal, folder);
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
  const progress = startProgress(
    terminal,
    `Writing ${name}`,
    (done, total) => `${formatBytes(done)} of ${formatBytes(total)}`,
  );
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
