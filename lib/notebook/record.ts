// What a notebook leaves besides its outputs: one JSON file with its results, checks and exercises.
// In: the notebook's name, figures of its cells. Out: <results folder>/<notebook>.json; notebook 07 reads only those
// and Run records. Source: own.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { resultsFolder } from '../paths.js';
import { writeTextAtomically } from '../results/files.js';
import { type CheckRecord, checks, type ExerciseRecord, exercises } from './display.js';

/** Rises when a record's meaning changes; a reader refuses any other. */
const SCHEMA_VERSION = 1;

/** The file that a notebook writes. */
export interface NotebookRecord<Results = unknown> {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly notebook: string;
  readonly createdAt: string;
  readonly checks: readonly CheckRecord[];
  readonly exercises: readonly ExerciseRecord[];
  readonly results: Results;
}

/**
 * Writes a notebook's record, with all checks and exercises so far, and prints where.
 * @param notebook its name without extension: '03_quantization'
 * @param results plain JSON values: the figures that the notebook computed
 * @returns path of the file
 * @throws Error naming the file: a full disk, no permission
 */
export async function saveRecord(notebook: string, results: object): Promise<string> {
  const record: NotebookRecord = {
    schemaVersion: SCHEMA_VERSION,
    notebook,
    createdAt: new Date().toISOString(),
    checks: checks(),
    exercises: exercises(),
    results,
  };
  const file = join(resultsFolder(), `${notebook}.json`);
  await writeTextAtomically(file, `${JSON.stringify(record, null, 1)}\n`);
  const passed = record.checks.filter((check) => check.passed).length;
  console.log(`${notebook}.json written: ${passed} of ${record.checks.length} checks passed`);
  return file;
}

/**
 * Reads a notebook's record.
 * @param folder where it lies; your own results unless told
 * @returns undefined if that notebook has not run yet
 * @throws Error naming the file if it is no record, or one of another schema version
 */
export async function readRecord<Results>(
  notebook: string,
  folder = resultsFolder(),
): Promise<NotebookRecord<Results> | undefined> {
  const file = join(folder, `${notebook}.json`);
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new Error(`${file}: expected a notebook's results, could not read them (${error.message})`);
  });
  if (text === undefined) return undefined;
  const expected = `expected a notebook's record of schemaVersion ${SCHEMA_VERSION}`;
  let record: Partial<NotebookRecord<Results>> | null;
  try {
    record = JSON.parse(text) as Partial<NotebookRecord<Results>> | null;
  } catch (error) {
    throw new Error(`${file}: ${expected}, found ${(error as Error).message}; run the notebook again`);
  }
  if (
    record?.schemaVersion === SCHEMA_VERSION &&
    record.notebook === notebook &&
    record.results !== undefined
  )
    return record as NotebookRecord<Results>;
  throw new Error(`${file}: ${expected}, found version ${record?.schemaVersion}; run the notebook again`);
}
