// lib/cli/notebook.ts: `response-time notebook`: runs the course headless, installs its kernel, writes its report.

import { existsSync, readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { isHubId } from '../hub.js';
import { modelsFolder, resultsFolder } from '../paths.js';
import { randomShapeNames } from '../randomModel.js';
import { fetchFromHub } from './model.js';
import { resolveModel } from './models.js';
import { note, print, type Terminal } from './terminal.js';
import { wholeNumber } from './values.js';

interface RunArguments {
  readonly only?: readonly string[];
  readonly param: Readonly<Record<string, unknown>>;
  readonly model?: string;
  readonly solve?: true;
  readonly cellLimit: number;
  readonly output?: string;
}

interface ReportArguments {
  readonly output?: string;
  readonly static?: true;
}

const RUN_HELP = `
Each notebook runs in a kernel of its own. The executed ones, their JSON records, pictures and report.html land in
results/latest (RESPONSE_TIME_RESULTS or --output name another folder); the notebooks themselves stay as they are.
The first cell that fails ends the run with its name and error.

--param sets a name of the cells tagged \`parameters\`, each notebook takes those that it has: model, backend, samples,
tokens. VALUE is JSON, or else a text.

Examples
  $ response-time notebook run
  $ response-time notebook run --only 03 04
  $ response-time notebook run --only 05 --param samples=1000 --param model=tiny-gpt2
  $ response-time notebook run --model ./my-gpt2
`;
const INSTALL_HELP = `
Makes the kernel "TypeScript (response-time)" known to this user's JupyterLab and VS Code. Its paths are absolute: run
it again when this folder or Node has moved.

Example
  $ response-time notebook install
`;
const REPORT_HELP = `
Joins executed notebooks into one HTML file that needs no network: by default those of the last run, in results/latest.

Examples
  $ response-time notebook report
  $ response-time notebook report notebooks/*.ipynb --output /tmp/course.html
  $ response-time notebook report results/latest/notebooks/05_benchmark.ipynb --static --output 05.html
`;
const HELP = `
Examples
  $ response-time notebook run --only 02        one notebook; \`npm start\` runs all
  $ response-time notebook install              for JupyterLab and VS Code
  $ response-time notebook report               one HTML file to share
`;

/** Adds the command and its three parts to the program. */
export function addNotebook(program: Command, terminal: Terminal): void {
  const notebook = program
    .command('notebook')
    .summary('run the course, install its kernel, write its report')
    .description('The course without Jupyter, and in it.')
    .addHelpText('after', HELP);
  notebook
    .command('run')
    .description('Runs the notebooks headless, in order, and writes the report.')
    .option('--only <starts...>', 'those whose names begin so, such as 03')
    .addOption(
      new Option('--param <name=value>', 'set a parameter; may be given several times')
        .argParser(parameter)
        .default({}, 'none'),
    )
    .option(
      '--model <name>',
      'short for --param model=NAME, and speedModel=NAME if it is not an embedded one; a hub id is fetched',
    )
    .option('--solve', 'run the folded solutions in place of the starter cells')
    .option('--cell-limit <seconds>', 'most time that one cell may take', wholeNumber(1), 600)
    .option('--output <folder>', 'where everything goes')
    .addHelpText('after', RUN_HELP)
    .action((options: RunArguments) => runNotebooks(terminal, options));
  notebook
    .command('install')
    .description("Installs the course's kernel for Jupyter and VS Code.")
    .option('--data-folder <folder>', "Jupyter's data folder; by default this user's")
    .addHelpText('after', INSTALL_HELP)
    .action((options: { dataFolder?: string }) => install(terminal, options));
  notebook
    .command('report')
    .description('Writes executed notebooks as one HTML file.')
    .argument('[notebooks...]', "executed notebooks; by default the last run's")
    .option('--output <file>', 'default: report.html in the results folder')
    .option('--static', 'pictures in place of interactive figures: 4.8 MB less')
    .addHelpText('after', REPORT_HELP)
    .action((notebooks: string[], options: ReportArguments) => report(terminal, notebooks, options));
}

function parameter(text: string, earlier: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const [, name, value] = /^([\p{L}_$][\p{L}\p{N}_$]*)=(.*)$/su.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new InvalidArgumentError('Expected NAME=VALUE.');
  return { ...earlier, [name]: jsonOrText(value) };
}

function jsonOrText(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

async function runNotebooks(terminal: Terminal, options: RunArguments): Promise<void> {
  const { only, param, model, solve, cellLimit, output } = options;
  const name = model === undefined ? undefined : await nameForNotebook(terminal, model);
  const { runCourse } = await import('../notebook/course.js');
  const course = await runCourse({
    ...(only && { only }),
    ...(output !== undefined && { outputFolder: resolve(output) }),
    ...(terminal.errors === process.stderr && { stream: process.stderr }),
    parameters: { ...(name !== undefined && { model: name }), ...param },
    // A model of one's own takes the place of GPT-2's real shape, too; the embedded ones are too small for that.
    defaults: name !== undefined && !isEmbedded(name) ? { speedModel: name } : {},
    solveExercises: solve ?? false,
    timeoutMs: 1000 * cellLimit,
    signal: terminal.signal,
  });
  print(terminal, course.report);
}

function isEmbedded(name: string): boolean {
  return existsSync(join(modelsFolder(), name));
}

/**
 * A notebook runs in its own folder: a path has to be absolute. Names it looks up itself, and makes a real shape
 * itself; a model of the hub is fetched here.
 */
async function nameForNotebook(terminal: Terminal, model: string): Promise<string> {
  if ((randomShapeNames as readonly string[]).includes(model)) return model;
  if (isHubId(model) && !existsSync(resolve(model))) await fetchFromHub(terminal, model);
  const folder = resolveModel(model);
  return folder === resolve(model) ? folder : model;
}

async function install(terminal: Terminal, { dataFolder }: { dataFolder?: string }): Promise<void> {
  const { installKernel } = await import('../notebook/install.js');
  const { folder, backup } = await installKernel(
    dataFolder === undefined ? {} : { dataFolder: resolve(dataFolder) },
  );
  if (backup) note(terminal, `The tslab kernel that was there is kept as ${backup}`);
  print(terminal, folder);
}

async function report(
  terminal: Terminal,
  given: readonly string[],
  { output, static: isStatic }: ReportArguments,
): Promise<void> {
  const notebooks = given.length > 0 ? given : lastRun();
  const file = resolve(output ?? join(resultsFolder(), 'report.html'));
  const { writeReport } = await import('../notebook/report.js');
  await writeReport(notebooks, file, { interactive: isStatic !== true });
  print(terminal, file);
}

function lastRun(): string[] {
  const folder = join(resultsFolder(), 'notebooks');
  let names: string[] = [];
  try {
    names = readdirSync(folder).filter((name) => name.endsWith('.ipynb'));
  } catch {
    // said below
  }
  if (names.length > 0) return names.sort().map((name) => join(folder, name));
  throw new Error(
    `${relative('.', folder)}: expected executed notebooks, found none; \`response-time notebook run\` makes them`,
  );
}
