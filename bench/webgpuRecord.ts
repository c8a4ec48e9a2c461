// bench/webgpuRecord.ts: `npm run bench:gpu`: all that is said of one GPU, measured in one go: this project,
// PyTorch and tfjs op by op, each part in a process of its own, one after the other. -> a folder of Runs, their logs, bars.txt.

import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkRun, readRuns } from 'response-time/results';
import { projectCommit } from 'response-time/results/machine';
import { barsTable, judge } from './webgpuBars.js';
import { keepRun } from './webgpuRun.js';
import { describeWork } from './webgpuWork.js';

export const HELP = `npm run bench:gpu -- [options]

Measures models of published shapes with random weights on this machine's GPU, beside PyTorch and tfjs's own WebGPU backend.
A part that fails or runs too long is named, and the others go on.
  --output FOLDER    Runs, logs and bars.txt; what is there of earlier parts is kept (default: results/latest/webgpu)
  --only TEXT        parts whose name holds one of these texts, by comma (default: all)
  --python PROGRAM   with torch and transformers (default: python3)
  --baseline FILE    (default: reference/baseline.py)
  --repeats COUNT    of each measurement, after a warm-up (default: 10)
  --total SECONDS    after which no part may go on (default: 560)
  --commit NAME      for the records, where git is not there
  --quick            two layers, few tokens, GPT-2 alone: to try the command
`;

export interface Settings {
  readonly output: string;
  readonly only: readonly string[];
  readonly python: string;
  readonly baseline: string;
  readonly repeats: number;
  readonly totalSeconds: number;
  readonly commit: string | undefined;
  readonly quick: boolean;
}

/** One process: a bench of this folder, or PyTorch, whose output file becomes Runs. */
export interface Part {
  readonly name: string;
  readonly limitSeconds: number;
  readonly program: string;
  readonly parameters: readonly string[];
  /** File of a list of Runs, to be kept each under its name. */
  readonly runsFile?: string;
}

const MISTRAL = 'mistral-7b-instruct-v0.2';

/** What is measured, in order. Limits: some twice what an H200 took. */
export function partsOf(settings: Settings): Part[] {
  const { output, python, baseline, repeats, quick } = settings;
  const bench = (
    name: string,
    file: 'webgpu' | 'webgpuEager',
    limitSeconds: number,
    options: Readonly<Record<string, string | number>>,
  ): Part => {
    const here = fileURLToPath(import.meta.url); // bundled, its neighbours are bundles, too
    const all = { repeats, ...options, output, ...(settings.commit ? { commit: settings.commit } : {}) };
    const parameters = [join(dirname(here), `${file}${extname(here)}`), ...optionsOf(all)];
    return { name, limitSeconds, program: process.execPath, parameters };
  };
  const pytorch = (
    name: string,
    limitSeconds: number,
    options: Readonly<Record<string, string | number>>,
  ): Part => {
    const runsFile = join(output, `${name.replaceAll(' ', '-')}.json`);
    const all = { samples: repeats, ...options, output: runsFile };
    return { name, limitSeconds, program: python, parameters: [baseline, ...optionsOf(all)], runsFile };
  };
  const cuda = { device: 'cuda', dtype: 'f16' };
  if (quick) {
    const small = { layers: 2, work: '32+4' };
    return [
      bench('gpt2', 'webgpu', 300, { models: 'gpt2', configurations: 'f32 exact', ...small }),
      bench('tfjs gpt2', 'webgpuEager', 300, { models: 'gpt2', cache: 'cached', ...small }),
      pytorch('pytorch gpt2', 300, {
        'random-shape': 'gpt2',
        device: 'cpu',
        'prompt-tokens': 32,
        'new-tokens': 4,
      }),
    ];
  }
  const mistral = { models: MISTRAL };
  const pytorchMistral = { 'random-shape': MISTRAL, ...cuda };
  return [
    bench('mistral int8 fast', 'webgpu', 150, {
      ...{ ...mistral, configurations: 'int8 fast' },
      work: '32+50,32+50@128,32+50x8,32+50@8000,2048+2',
    }),
    bench('mistral int8 exact', 'webgpu', 100, {
      ...mistral,
      configurations: 'int8 exact',
      work: '32+50,2048+2',
    }),
    bench('mistral int4 and f16', 'webgpu', 100, { ...mistral, configurations: 'int4 fast,stored exact' }),
    bench('gpt2', 'webgpu', 80, { models: 'gpt2', configurations: 'stored exact,f32 exact' }),
    bench('tfjs gpt2', 'webgpuEager', 200, { models: 'gpt2', repeats: Math.min(5, repeats) }),
    pytorch('pytorch mistral', 180, { ...pytorchMistral, modes: 'eager,compile', 'new-tokens': 50 }),
    pytorch('pytorch mistral prompt', 60, { ...pytorchMistral, 'prompt-tokens': 2048, 'new-tokens': 2 }),
    pytorch('pytorch gpt2', 100, {
      'random-shape': 'gpt2',
      ...cuda,
      modes: 'eager,compile',
      'new-tokens': 50,
    }),
    // Last: 29 GB of float32, and the part that may be missing without loss.
    bench('tfjs mistral', 'webgpuEager', 120, { ...mistral, cache: 'cached', repeats: Math.min(3, repeats) }),
  ];
}

function optionsOf(options: Readonly<Record<string, string | number>>): string[] {
  return Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

/** Runs a part to its end; its words go to our stdout and into its log. @returns what went wrong, if anything did */
export function runPart(
  { name, limitSeconds, program, parameters }: Part,
  output: string,
): Promise<string | undefined> {
  const log = createWriteStream(join(output, `${name.replaceAll(' ', '-')}.log`));
  return new Promise((resolveWith) => {
    // A group of its own: a compiler that Python starts ends with it.
    const child = spawn(program, [...parameters], { detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    }, 1000 * limitSeconds);
    const end = (problem: string | undefined): void => {
      clearTimeout(timer);
      log.end();
      resolveWith(problem);
    };
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(log, { end: false });
      stream.pipe(process.stdout, { end: false });
    }
    child.on('error', (error) => end(error.message));
    child.on('close', (code) => {
      if (isLate) end(`stopped after ${limitSeconds} s`);
      else end(code === 0 ? undefined : `ended with exit code ${code}; its last words are in its log`);
    });
  });
}

/** Keeps PyTorch's Runs under labels like ours: model, weights, what ran it, work. */
function keepPyTorch(file: string, { output, commit }: Settings): void {
  for (const value of JSON.parse(readFileSync(file, 'utf8')) as unknown[]) {
    const run = checkRun(value, file);
    const { promptTokens, newTokens, batch } = run;
    const work = describeWork({ promptTokens, newTokens, batch, depth: promptTokens });
    keepRun({ ...run, label: `${run.model.name} ${run.weights} ${run.label}${work}` }, output, commit);
  }
}

function readSettings(): Settings | undefined {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({
    options: {
      ...{ output: text, only: text, python: text, baseline: text, repeats: text, commit: text },
      total: text,
      ...{ quick: flag, help: flag },
    },
  });
  if (values.help) return undefined;
  return {
    output: resolve(values.output ?? 'results/latest/webgpu'),
    only: values.only?.split(',') ?? [],
    python: values.python ?? 'python3',
    baseline: resolve(values.baseline ?? 'reference/baseline.py'),
    repeats: Number(values.repeats ?? (values.quick ? 2 : 10)),
    totalSeconds: Number(values.total ?? 560),
    commit: values.commit,
    quick: values.quick,
  };
}

async function main(): Promise<void> {
  const settings = readSettings();
  if (!settings) return void process.stdout.write(HELP);
  const { output, only } = settings;
  mkdirSync(output, { recursive: true });
  const parts = partsOf(settings).filter(
    ({ name }) => only.length === 0 || only.some((each) => name.includes(each)),
  );
  const problems: string[] = [];
  for (const part of parts) {
    const started = performance.now(); // ms since the process began
    const secondsLeft = Math.floor(settings.totalSeconds - started / 1000);
    console.log(`== ${part.name}`);
    let problem = secondsLeft < 5 ? 'not begun: no time was left' : undefined;
    try {
      problem ??= await runPart({ ...part, limitSeconds: Math.min(part.limitSeconds, secondsLeft) }, output);
      if (problem === undefined && part.runsFile) keepPyTorch(part.runsFile, settings);
    } catch (error) {
      problem = (error as Error).message;
    }
    if (problem !== undefined) problems.push(`${part.name}: ${problem}`);
    console.log(
      `== ${part.name}: ${problem ?? 'done'}, ${((performance.now() - started) / 1000).toFixed(0)} s`,
    );
  }
  const runs = await readRuns(output);
  const text = [
    `${runs.length} Runs, medians of ${settings.repeats} after a warm-up, random weights: speed and memory only`,
    `commit ${settings.commit ?? projectCommit() ?? 'unknown'}`,
    ...[...new Set(runs.map(({ machine }) => machine.gpu ?? machine.cpu))].map((name) => `on ${name}`),
    ...problems.map((problem) => `FAILED ${problem}`),
    barsTable(judge(runs)),
  ];
  writeFileSync(join(output, 'bars.txt'), `${text.join('\n')}\n`);
  console.log(text.join('\n'));
  process.exitCode = problems.length > 0 ? 1 : 0;
}

// Only when it is the program: tests import its parts.
if (/webgpuRecord\.m?js$/.test(process.argv[1] ?? '')) await main();
