// lib/cli/load.ts: a model's name and the options about it -> backend started, model loaded, progress shown.

import { Option } from 'commander';
import type { Backend, BackendName } from '../backend.js';
import type { Model } from '../model.js';
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

/**
 * Loads a model onto the backend that was started.
 * @param name folder, embedded model or preset
 * @throws Error as resolveModel and loadModel
 */
export async function loadOnto(terminal: Terminal, name: string, weights: SchemeName): Promise<Model> {
  const { loadModel } = await import('../model.js');
  const folder = resolveModel(name);
  await warnOfMemory(terminal, folder, weights);
  const progress = startProgress(terminal, `Loading ${name}`, bytesOf);
  try {
    const model = await loadModel(folder, {
      name: identify(folder).name,
      scheme: { name: weights },
      signal: terminal.signal,
      onProgress: progress.update,
    });
    await warmUp(model);
    return model;
  } finally {
    progress.stop();
  }
}

/**
 * Generates one token for nothing: the backend reads the Weights into its own memory when it first meets them, which
 * belongs to loading, not to the first token's latency.
 */
async function warmUp(model: Model): Promise<void> {
  const { collect } = await import('../generate.js');
  await collect(model, [0], { maxNewTokens: 1 });
}

/** A machine that runs out of memory ends the process, or everybody's work, without a word: so say it before. */
async function warnOfMemory(terminal: Terminal, folder: string, weights: SchemeName): Promise<void> {
  const { readArchitecture } = await import('../model.js');
  const { forecastFolder } = await import('./forecast.js');
  const { schemes } = await forecastFolder(folder, await readArchitecture(folder), 0);
  const warning = memoryWarning(schemes, weights, usableMemoryBytes());
  if (warning) note(terminal, warning);
}

/**
 * Whether a scheme needs more memory than there is, and which one would do.
 * @returns undefined if it fits
 */
export function memoryWarning(
  schemes: readonly SchemeForecast[],
  weights: SchemeName,
  memoryBytes: number,
): string | undefined {
  const wanted = schemes.find(({ scheme }) => scheme === weights);
  if (!wanted || wanted.eagerTotalBytes < memoryBytes) return undefined;
  const smaller = schemes.find(({ eagerTotalBytes }) => eagerTotalBytes < memoryBytes);
  const advice = smaller
    ? `--weights ${smaller.scheme} needs ${formatBytes(smaller.eagerTotalBytes)}`
    : 'no scheme would fit; take a smaller model';
  return (
    `note: run op by op, weights ${weights} need ${formatBytes(wanted.eagerTotalBytes)}, ` +
    `this machine has ${formatBytes(memoryBytes)}: ${advice}`
  );
}
