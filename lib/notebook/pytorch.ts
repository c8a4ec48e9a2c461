// PyTorch's side of the baseline: runs reference/baseline.py where a Python has torch, else says what is missing.
// In: what to measure. Out: Runs, or the reason why there are none. Source: own.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { projectRoot, referenceResultsFolder } from '../paths.js';
import type { Missing } from '../plot/look.js';
import { checkRun, type Run } from '../results.js';

const run = promisify(execFile);
/** Importing torch and transformers from a cold disk takes its time. */
const IMPORT_LIMIT_MS = 60_000;

/** What PyTorch measures: a model folder of a real shape, prompts of token ids. */
export interface PyTorchWork {
  readonly model: string;
  readonly samples: number;
  readonly promptTokens: number;
  readonly tokens: number;
}

/** The Python to use: RESPONSE_TIME_PYTHON, else python3 or python. @returns undefined if none can import torch */
export async function findPython(signal: AbortSignal): Promise<string | undefined> {
  const chosen = process.env.RESPONSE_TIME_PYTHON;
  for (const python of chosen ? [chosen] : ['python3', 'python']) {
    const found = await run(python, ['-c', 'import torch, transformers'], {
      timeout: IMPORT_LIMIT_MS,
      signal,
    }).then(
      () => true,
      () => false,
    );
    signal.throwIfAborted();
    if (found) return python;
  }
  return undefined;
}

/**
 * Measures PyTorch on this machine.
 * @returns its Runs, or why there are none
 * @throws the signal's reason when stopped
 */
export async function measurePyTorch(
  work: PyTorchWork,
  signal: AbortSignal,
): Promise<{ readonly runs: readonly Run[] } | { readonly missing: string }> {
  const python = await findPython(signal);
  if (!python) return { missing: 'no Python with torch and transformers' };
  const folder = await mkdtemp(join(tmpdir(), 'pytorch-'));
  const output = join(folder, 'baseline.json');
  const options = {
    '--model': work.model,
    '--samples': work.samples,
    '--prompt-tokens': work.promptTokens,
    '--new-tokens': work.tokens,
    '--output': output,
  };
  const script = join(projectRoot(), 'reference', 'baseline.py');
  try {
    await run(python, [script, ...Object.entries(options).flat().map(String)], { signal });
    return { runs: await readRunsOf(output) };
  } catch (error) {
    signal.throwIfAborted();
    return { missing: `baseline.py failed: ${(error as Error).message.trim().split('\n').at(-1)}` };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The committed record of PyTorch on some machine, which it names. @returns empty where none is committed */
export async function committedPyTorch(): Promise<readonly Run[]> {
  const file = join(referenceResultsFolder(), 'baseline-pytorch-cpu.json');
  return existsSync(file) ? readRunsOf(file) : [];
}

/** A file of one Run or of a list of them. */
async function readRunsOf(file: string): Promise<Run[]> {
  const value: unknown = JSON.parse(await readFile(file, 'utf8'));
  return (Array.isArray(value) ? value : [value]).map((record) => checkRun(record, file));
}

/**
 * Runs with PyTorch's after them: those of the same model and the same number of new tokens, measured here or
 * committed.
 * @returns all of them; `missing` says so where PyTorch has measured no such work
 */
export async function besidePyTorch(
  runs: readonly Run[],
): Promise<{ readonly all: readonly Run[]; readonly missing: readonly Missing[] }> {
  const isPyTorch = ({ target }: Run) => target === 'pytorch';
  if (runs.some(isPyTorch)) return { all: runs, missing: [] };
  const same = (await committedPyTorch()).filter(
    ({ model, newTokens }) => model.name === runs[0]?.model.name && newTokens === runs[0].newTokens,
  );
  const missing = [{ label: 'PyTorch', reason: 'this work was not measured' }];
  return same.length > 0 ? { all: [...runs, ...same], missing: [] } : { all: runs, missing };
}
