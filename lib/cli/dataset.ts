// lib/cli/dataset.ts: what the user calls a dataset -> its samples.

import { existsSync } from 'node:fs';
import { Option } from 'commander';
import { evaluationFile, type InstructionSample, readSamples } from '../dataset.js';
import { fetchDataset, parseDatasetId } from '../hub.js';
import { bytesOf, startProgress } from './progress.js';
import type { Terminal } from './terminal.js';

export function datasetOption(): Option {
  return new Option('--dataset <name>', 'instructions: a JSON file (default: "data/instructions-eval.json")');
}

/**
 * Finds and reads a dataset; one of the hub is fetched into the cache first.
 * @param name a file, OWNER/NAME or OWNER/NAME/file.json on the hub; the course's own evaluation set if absent
 * @param count how many of its samples, from the first on; all if absent
 * @throws Error as readSamples and fetchDataset
 */
export async function readDataset(
  terminal: Terminal,
  name: string | undefined,
  count: number | undefined,
): Promise<InstructionSample[]> {
  if (name === undefined) return readSamples(evaluationFile(), count);
  if (existsSync(name) || parseDatasetId(name) === undefined) return readSamples(name, count);
  const progress = startProgress(terminal, `Fetching ${name}`, bytesOf);
  try {
    const file = await fetchDataset(name, { signal: terminal.signal, onProgress: progress.update });
    return await readSamples(file, count);
  } finally {
    progress.stop();
  }
}
