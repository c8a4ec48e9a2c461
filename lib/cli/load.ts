// lib/cli/load.ts: a model's name and the options about it -> backend started, model loaded, progress shown.

import { Option } from 'commander';
import type { BackendName } from '../backend.js';
import type { Model } from '../model.js';
import type { SchemeName } from '../quantize.js';
import { resolveModel } from './models.js';
import { startProgress } from './progress.js';
import type { Terminal } from './terminal.js';
import { formatBytes } from './units.js';

export type BackendChoice = BackendName | 'auto';
const BACKEND_CHOICES = ['auto', 'tensorflow', 'webgpu', 'wasm', 'cpu'] as const satisfies BackendChoice[];

/** Not taken from backend.ts, which loads tfjs: --help and mistakes should answer at once. */
export function backendOption(): Option {
  return new Option('--backend <name>', 'tfjs backend; auto takes the fastest that runs here')
    .choices(BACKEND_CHOICES)
    .default('auto');
}

/**
 * Starts the tfjs backend and loads a model onto it.
 * @param name folder, embedded model or preset
 * @throws Error as resolveModel, selectBackend and loadModel do
 */
export async function startModel(
  terminal: Terminal,
  name: string,
  { weights, backend }: { readonly weights: SchemeName; readonly backend: BackendChoice },
): Promise<{ model: Model; backend: BackendName }> {
  const folder = resolveModel(name); // the cheapest mistake to find comes first
  const { selectBackend } = await import('../backend.js');
  const { loadModel } = await import('../model.js');
  const chosen = await selectBackend(backend);
  const progress = startProgress(
    terminal,
    `Loading ${name}`,
    (done, total) => `${formatBytes(done)} of ${formatBytes(total)}`,
  );
  try {
    const model = await loadModel(folder, {
      scheme: { name: weights },
      signal: terminal.signal,
      onProgress: progress.update,
    });
    await warmUp(model);
    return { model, backend: chosen.name };
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
