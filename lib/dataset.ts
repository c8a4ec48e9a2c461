// lib/dataset.ts: a file of instructions in Alpaca's schema -> samples, and the prompt that a model expects of one.
// Source: https://github.com/tatsu-lab/stanford_alpaca#data-release

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { dataFolder } from './paths.js';
import type { Tokenizer } from './tokenizer.js';

export interface InstructionSample {
  readonly instruction: string;
  /** What the instruction is about; '' if it stands for itself. */
  readonly input: string;
  /** The reference answer. */
  readonly output: string;
}

/** The course's own evaluation set: 1,000 samples that no embedded model was trained on. */
export function evaluationFile(): string {
  return join(dataFolder(), 'instructions-eval.json');
}

/**
 * Reads a dataset: a JSON list of { instruction, input, output }, or in a .jsonl file one of them a line; other fields
 * are left out.
 * @param count how many of its samples, from the first on; all if absent
 * @throws Error naming the file, and the sample that does not fit
 * @throws RangeError if it has fewer samples (gives both numbers)
 */
export async function readSamples(file: string, count?: number): Promise<InstructionSample[]> {
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`${file}: expected a dataset, could not read it (${error.message})`);
  });
  let list: unknown;
  try {
    list = file.endsWith('.jsonl') ? parseLines(text) : JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: expected JSON: ${(error as Error).message}`);
  }
  if (!Array.isArray(list) || list.length === 0) {
    throw new TypeError(
      `${file}: expected a list of { instruction, input, output }, received ${typeof list}`,
    );
  }
  if (count !== undefined && count > list.length) {
    throw new RangeError(`${file}: expected ${count} samples, found ${list.length}; ask for at most those`);
  }
  return list.slice(0, count).map((sample, i) => checkSample(sample, `${file}: sample ${i}`));
}

function parseLines(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line) as unknown);
}

function checkSample(sample: unknown, place: string): InstructionSample {
  const {
    instruction,
    input = '',
    output,
  } = (sample ?? {}) as Partial<Record<keyof InstructionSample, unknown>>;
  if (
    typeof instruction === 'string' &&
    instruction &&
    typeof input === 'string' &&
    typeof output === 'string'
  ) {
    return { instruction, input, output };
  }
  throw new TypeError(
    `${place}: expected { instruction, input, output } as texts, received ${JSON.stringify(sample)?.slice(0, 80)}`,
  );
}

/**
 * The prompt for a sample: a user's message in the model's chat template, or Alpaca's own form without one.
 * @returns token ids
 */
export function samplePrompt(tokenizer: Tokenizer, { instruction, input }: InstructionSample): number[] {
  const content = input ? `${instruction}\n\n### Input:\n${input}` : instruction;
  if (!tokenizer.hasChatTemplate) {
    return tokenizer.encode(`### Instruction:\n${content}\n\n### Response:\n`);
  }
  const text = tokenizer.renderChat([{ role: 'user', content }]);
  return tokenizer.encode(text, { addSpecialTokens: false });
}

/**
 * A prompt for a model without tokenizer: ids spread over the vocabulary, the same each time, different by sample.
 * @param length tokens
 */
export function syntheticPrompt(sample: number, length: number, vocabSize: number): number[] {
  // A step that shares no factor with most vocabularies, so that the ids do not repeat soon.
  return Array.from({ length }, (_, i) => ((sample * 7919 + i * 104729) % vocabSize) | 0);
}
