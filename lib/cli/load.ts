// lib/cli/load.ts: a model's name and the options about it -> backend started, model loaded, progress shown.

import { Option } from 'commander';
import type { Backend, BackendName } from '../backend.js';
import type { CompiledModel } from '../compile.js';
import type { GenerateOptions, GenerativeModel } from '../generate.js';
import type { Mode } from '../jit/jit.js';
import type { LoadOptions, Model } from '../model.js';
import type { SchemeName } from '../quantize.js';
import type { SchemeForecast } from './forecast.js';
import { usableMemoryBytes } from './machine.js';
import { identify, resolveModel } from './models.js';
import { bytesOf, startProgress } from './progress.js';
import { note, type Terminal } from './terminal.js';
import { formatBytes } from './units.js';

export type BackendChoice = BackendName | 'auto';
export const BACKEND_CHOICES = [
  'auto',
  'tensorflow',
  'webgpu',
  'wasm',
  'cpu',
] as const satisfies BackendChoice[];

/** Not taken from backend.ts, which loads tfjs: --help and mistakes should answer at once. */
export function backendOption(preset: BackendChoice | undefined = 'auto'): Option {
  return new Option('--backend <name>', 'tfjs backend; auto takes the fastest that runs here')
    .choices(BACKEND_CHOICES)
    .default(preset);
}

/** Starts a tfjs backend. @throws Error as selectBackend */
export async function startBackend(choice: BackendChoice): Promise<Backend> {
  const { selectBackend } = await import('../backend.js');
  return selectBackend(choice);
}

/** What runs a model: tfjs op by op, or the compiler's targets. Not taken from jit, as above. */
export const TARGET_CHOICES = ['eager', 'reference', 'wasm', 'webgpu'] as const;
export type TargetChoice = (typeof TARGET_CHOICES)[number];

export function targetOption(): Option {
  return new Option(
    '--target <name>',
    'what runs the model: eager op by op, wasm and webgpu compiled, reference compiled and interpreted slowly, to ' +
      'check others',
  )
    .choices(TARGET_CHOICES)
    .default('eager');
}

/** How compiled kernels may compute. Not taken from jit, as above. */
export const MODE_CHOICES = ['exact', 'fast'] as const satisfies Mode[];

export function modeOption(flags = '--mode <name>', whose = ''): Option {
  return new Option(
    flags,
    `fast rounds what integer weights are multiplied with to 8 bits, on the target webgpu${whose}`,
  )
    .choices(MODE_CHOICES)
    .default('exact');
}

/** Compiled programs need tfjs for a prompt's few ids only: the backend that starts soonest will do. */
export function backendFor(target: TargetChoice, choice: BackendChoice): BackendChoice {
  return target !== 'eager' && choice === 'auto' ? 'cpu' : choice;
}

/** A loaded model, and what generates with it: the model itself, or its compiled form. */
export interface Runner {
  readonly model: Model;
  readonly runs: GenerativeModel;
  /** The same as `runs`; null when eager. */
  readonly compiled: CompiledModel | null;
  dispose(): Promise<void>;
}

export interface RunnerOptions {
  readonly weights: SchemeName;
  readonly target: TargetChoice;
  readonly mode?: Mode;
  /** A request such as will follow: programs for it are compiled, and Weights moved, before anything is timed. */
  readonly rehearse?: { readonly promptIds: readonly number[]; readonly options: Partial<GenerateOptions> };
}

/**
 * Loads a model onto the backend that was started, and compiles it for a target.
 * @param name folder, embedded model or preset
 * @throws Error as resolveModel, loadModel and compileModel
 */
export async function loadRunner(terminal: Terminal, name: string, options: RunnerOptions): Promise<Runner> {
  const folder = resolveModel(name);
  await warnOfMemory(terminal, folder, options);
  const progress = startProgress(terminal, `Loading ${name}`, bytesOf);
  try {
    const runner = await openRunner(folder, options, {
      name: identify(folder).name,
      scheme: { name: options.weights },
      signal: terminal.signal,
      onProgress: progress.update,
    });
    await warmUp(runner.runs, options.rehearse);
    return runner;
  } finally {
    progress.stop();
  }
}

async function openRunner(
  folder: string,
  { target, mode }: RunnerOptions,
  options: LoadOptions,
): Promise<Runner> {
  if (target === 'eager') {
    const { loadModel } = await import('../model.js');
    const model = await loadModel(folder, options);
    return { model, runs: model, compiled: null, dispose: async () => model.dispose() };
  }
  const { loadCompiled } = await import('../compile/load.js');
  const { model, compiled } = await loadCompiled(folder, { ...options, target, mode });
  return { model, runs: compiled, compiled, dispose: () => compiled.dispose() };
}

/**
 * Generates two tokens for nothing: the backend reads the Weights into its own memory when it first meets them, and
 * programs are compiled, which belongs to loading, not to the first token's latency.
 */
async function warmUp(model: GenerativeModel, rehearse: RunnerOptions['rehearse']): Promise<void> {
  const { collect } = await import('../generate.js');
  const { promptIds, options } = rehearse ?? { promptIds: [0], options: {} };
  const most = model.maxPositions - promptIds.length + 1;
  await collect(model, promptIds, { ...options, maxNewTokens: Math.min(2, most) });
}

/** A machine that runs out of memory ends the process, or everybody's work, without a word: so say it before. */
async function warnOfMemory(
  terminal: Terminal,
  folder: string,
  { weights, target, rehearse }: RunnerOptions,
): Promise<void> {
  const { readArchitecture } = await import('../model.js');
  const { forecastFolder } = await import('./forecast.js');
  const tokens = rehearse ? rehearse.promptIds.length + (rehearse.options.maxNewTokens ?? 0) : 0;
  const { schemes } = await forecastFolder(folder, await readArchitecture(folder), tokens);
  const warning = memoryWarning(schemes, weights, usableMemoryBytes(), target);
  if (warning) note(terminal, warning);
}

/**
 * Whether a scheme needs more memory than there is, and which one would do.
 * @param target compiled ones read the Weights as they are stored; op by op they are widened too
 * @returns undefined if it fits
 */
export function memoryWarning(
  schemes: readonly SchemeForecast[],
  weights: SchemeName,
  memoryBytes: number,
  target: TargetChoice = 'eager',
): string | undefined {
  const [key, how] =
    target === 'eager'
      ? (['eagerTotalBytes', 'run op by op'] as const)
      : (['totalBytes', `compiled for ${target}`] as const);
  const wanted = schemes.find(({ scheme }) => scheme === weights);
  if (!wanted || wanted[key] < memoryBytes) return undefined;
  const smaller = schemes.find((forecast) => forecast[key] < memoryBytes);
  const advice = smaller
    ? `--weights ${smaller.scheme} needs ${formatBytes(smaller[key])}`
    : 'no scheme would fit; take a smaller model';
  return (
    `note: ${how}, weights ${weights} need ${formatBytes(wanted[key])}, ` +
    `this machine has ${formatBytes(memoryBytes)}: ${advice}`
  );
}
