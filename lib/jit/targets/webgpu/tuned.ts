// lib/jit/targets/webgpu/tuned.ts: shapes of kernels that were found best on an adapter, kept in the user's cache folder
// by adapter and driver; found when a plan first asks for them. A browser has no such file and starts anew.

import { debug } from '../../debug.js';
import { tellTuning } from '../../tuneProgress.js';
import type { Gpu } from './device.js';
import { problemKey, weightBytes } from './kernels/candidates.js';
import type { MatvecShape } from './kernels/matvec.js';
import { type Timing, type TunableProblem, tuneMatvec } from './kernels/tune.js';
import { readStored, writeStored } from './store.js';

/** Rises when kernels change so that old shapes mean nothing. */
const version = 3;
/** Smaller matrices take no time worth saving. */
const leastBytes = 1e6;
/** Candidates of a problem: a few seconds for all of a model's. */
const mostCandidates = 60;

interface TunedFile {
  readonly version: number;
  readonly shapes: Readonly<Record<string, MatvecShape>>;
}

/**
 * How to tune: `on` times what is not known yet, `off` takes defaults. By RESPONSE_TIME_WEBGPU_TUNE; else on, but for
 * emulated GPUs.
 */
function isTuning(gpu: Gpu): boolean {
  const asked = typeof process === 'undefined' ? undefined : process.env?.RESPONSE_TIME_WEBGPU_TUNE;
  if (asked !== undefined && asked !== 'on' && asked !== 'off')
    throw new RangeError(`RESPONSE_TIME_WEBGPU_TUNE: expected on or off, received ${asked}`);
  return gpu.hasTimestamps && (asked === undefined ? !gpu.isSoftware : asked === 'on');
}

export class TunedShapes {
  readonly #gpu: Gpu;
  #shapes: Map<string, MatvecShape> | undefined;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** What is known so far. */
  async known(): Promise<ReadonlyMap<string, MatvecShape>> {
    if (!isTuning(this.#gpu)) return new Map();
    this.#shapes ??= await load(this.#gpu);
    return this.#shapes;
  }

  /** Times what is not known of these problems. @returns true if something was learned */
  async learn(problems: Iterable<TunableProblem>): Promise<boolean> {
    if (!isTuning(this.#gpu)) return false;
    this.#shapes ??= await load(this.#gpu);
    const shapes = this.#shapes;
    const isMissing = ({ problem }: TunableProblem): boolean =>
      weightBytes(problem) >= leastBytes && !shapes.has(problemKey(problem));
    const missing = [...problems].filter(isMissing);
    if (missing.length === 0) return false;
    const started = performance.now();
    tellTuning(0, missing.length);
    const options = { onProgress: tellTuning, most: mostCandidates };
    const timings = await tuneMatvec(this.#gpu, missing, options).catch((error) => {
      debug(1, () => `webgpu: not tuned: ${(error as Error).message}`); // the defaults do
      tellTuning(missing.length, missing.length);
      return new Map<string, readonly Timing[]>();
    });
    for (const [key, [best]] of timings) if (best) shapes.set(key, best.shape);
    debug(1, () => `webgpu: tuned for ${this.#gpu.name} in ${(performance.now() - started).toFixed(0)} ms`);
    if (timings.size > 0) await save(this.#gpu, shapes);
    return timings.size > 0;
  }
}

async function load({ name }: Gpu): Promise<Map<string, MatvecShape>> {
  const file = (await readStored(name, 'tuning')) as Partial<TunedFile> | undefined;
  return file?.version === version && file.shapes ? new Map(Object.entries(file.shapes)) : new Map();
}

async function save({ name }: Gpu, shapes: ReadonlyMap<string, MatvecShape>): Promise<void> {
  const file: TunedFile = { version, shapes: Object.fromEntries(shapes) };
  await writeStored(name, 'tuning', file);
}
