// lib/cli.ts: the `response-time` command: arguments -> the library's functions -> text or JSON.
// Each command has its file in cli/; what is heavy (tfjs, Plotly) is loaded when a command needs it, so that --help
// and mistakes answer at once.

import { Command, CommanderError } from 'commander';
import { addBenchmark } from './cli/benchmark.js';
import { addCluster } from './cli/cluster.js';
import { addGenerate } from './cli/generate.js';
import { addInspect } from './cli/inspect.js';
import { addModel } from './cli/model.js';
import { addNotebook } from './cli/notebook.js';
import { showTuning } from './cli/progress.js';
import { addQuality } from './cli/quality.js';
import { addQuantize } from './cli/quantize.js';
import { addResults } from './cli/results.js';
import { processTerminal, reportFailure, type Terminal } from './cli/terminal.js';

const HELP = `
MODEL is one of
  a name      tiny-gpt2 (small, trained, comes with the course), gpt2 (real shape, random weights)
  a folder    in Hugging Face's layout: config.json, model.safetensors or pytorch_model.bin, tokenizer.json
  a hub id    owner/name, after \`response-time model owner/name\` has fetched it

Start here
  $ response-time generate tiny-gpt2 --chat --prompt "Which city is the capital of Finland?"
  $ response-time inspect tiny-gpt2
  $ response-time notebook run          the whole course, headless; the report lands in results/latest

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 bad input or failure (one line says which),
2 a quality gate not passed, 130 stopped by Ctrl-C; cluster --help has its own. RT_DEBUG=1 adds the stack to an error.
`;

const COMMANDS = [
  addGenerate,
  addInspect,
  addQuantize,
  addBenchmark,
  addQuality,
  addCluster,
  addModel,
  addResults,
  addNotebook,
] as const;

/** The whole command line, writing to this terminal. */
export function createProgram(terminal: Terminal): Command {
  const program = new Command('response-time')
    .description('Converts, quantizes, runs and measures language models, step by step.')
    .version(VERSION, '--version', 'print the version')
    .helpOption('-h, --help', 'explain a command, with examples')
    .addHelpText('after', HELP);
  for (const addCommand of COMMANDS) addCommand(program, terminal);
  showTuning(terminal);
  for (const command of [program, ...allCommands(program)]) {
    command.exitOverride().configureOutput({
      writeOut: (text) => terminal.output.write(text),
      writeErr: (text) => terminal.errors.write(text),
      outputError: () => {}, // reportFailure says it
    });
  }
  return program;
}

/** Version of the package: it is at 0.1.0 until the course is whole. */
const VERSION = '0.1.0';

function allCommands(command: Command): Command[] {
  return command.commands.flatMap((child) => [child, ...allCommands(child)]);
}

/**
 * Runs one command line.
 * @param args without the program's own name
 * @returns the exit code
 */
export async function main(args: readonly string[], terminal: Terminal): Promise<number> {
  const program = createProgram(terminal);
  try {
    if (args.length === 0) program.outputHelp();
    else await program.parseAsync(args, { from: 'user' });
    terminal.signal.throwIfAborted();
    return terminal.exitCode;
  } catch (error) {
    // Help that was asked for, or that commander gave where a part of the command is missing: it says enough.
    if (error instanceof CommanderError && /help|version/i.test(error.code)) return error.exitCode;
    return reportFailure(terminal, error);
  }
}

/** Runs the process's command line and ends the process: some backends would keep it alive. */
export async function run(): Promise<void> {
  const terminal = processTerminal();
  // What a library throws outside of every await is told like any other failure.
  process.on('uncaughtException', (error) => process.exit(reportFailure(terminal, error)));
  const exitCode = await main(process.argv.slice(2), terminal);
  // A pipe is written asynchronously: the last line must be out before the process goes.
  for (const stream of [process.stdout, process.stderr]) {
    await new Promise<void>((written) => stream.write('', () => written()));
  }
  await new Promise((said) => setImmediate(said)); // that a write failed is told a moment later
  const isLost = exitCode === 0 && terminal.signal.aborted;
  process.exit(isLost ? reportFailure(terminal, terminal.signal.reason) : exitCode);
}
