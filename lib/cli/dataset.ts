// lib/cli/dataset.ts: what the user calls a dataset -> its samples.

import { Option } from 'commander';
import { evaluationFile, type InstructionSample, readSamples } from '../dataset.js';
import type { Terminal } from './terminal.js';

export function datasetOption(): Option {
  return new Option('--dataset <name>', 'instructions: a JSON file (default: "data/instructions-eval.json")');
}

/**
 * Finds and reads a dataset.
 * @param name file; the course's own evaluation set if absent
 * @param count how many of its samples, from the first on; all if absent
 * @throws Error as readSamples
 */
export async function readDataset(
  _terminal: Terminal,
  name: string | undefined,
  count: number | undefined,
): Promise<InstructionSample[]> {
  return readSamples(name ?? evaluationFile(), count);
}
