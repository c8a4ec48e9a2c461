// lib/results/samples.ts: measured samples on disk as soon as they are there, so that a killed run goes on.
// configuration + sample -> one JSON line, appended once. Source: https://jsonlines.org
// A line counts when its newline is there: what a kill left of the last one is cut off before the next is written.

import { type FileHandle, open, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeFolder } from '../folders.js';
import { writeError } from './files.js';
import { type Check, InvalidValue, object, oneOf, text } from './validate.js';

const KIND = 'samples';
const VERSION = 1;

interface Header {
  readonly kind: typeof KIND;
  readonly schemaVersion: typeof VERSION;
  readonly plan: string;
}
interface Line {
  readonly configuration: string;
  readonly sample: string;
  readonly value: unknown;
}

const checkHeader = object<Header>({ kind: oneOf(KIND), schemaVersion: oneOf(VERSION), plan: text });
const anything: Check<unknown> = (value, path) => {
  if (value === undefined) throw new InvalidValue(path, 'a value', value);
  return value;
};
const checkLine = object<Line>({ configuration: text, sample: text, value: anything });

/** An append-only file of samples. One process at a time. Close it when done. */
export class SampleStore<Value> {
  private readonly values = new Map<string, Map<string, Value>>();
  private pending: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly file: string,
    private readonly handle: FileHandle,
    private length: number,
    /** Bytes of a torn last line that were dropped on opening. */
    readonly droppedBytes: number,
  ) {}

  /**
   * Opens a store, or makes it; samples of an earlier, even killed, run are there again.
   * @param plan what makes samples interchangeable (model, data, tokens): a file of another plan is refused
   * @param check validates each stored value; by default any JSON value is taken
   * @throws Error naming the file, and the line that does not fit, what was expected and found, and what to do
   */
  static async open<Value>(
    file: string,
    plan: string,
    check: Check<Value> = anything as Check<Value>,
  ): Promise<SampleStore<Value>> {
    const { header, samples, wholeBytes, droppedBytes } = await readSampleFile(file, check, {
      mayBeAbsent: true,
    });
    if (header !== null && header !== plan) {
      throw spoilt(`${file}, line 1`, new InvalidValue('plan', plan, header));
    }
    try {
      await makeFolder(dirname(file));
      const handle = await open(file, 'a');
      if (droppedBytes > 0) await handle.truncate(wholeBytes);
      const store = new SampleStore<Value>(file, handle, wholeBytes, droppedBytes);
      for (const { configuration, sample, value } of samples) store.remember(configuration, sample, value);
      if (header === null) await store.write({ kind: KIND, schemaVersion: VERSION, plan } satisfies Header);
      return store;
    } catch (error) {
      throw (error as Error).message.startsWith(file) ? error : writeError(file, error);
    }
  }

  has(configuration: string, sample: string): boolean {
    return this.values.get(configuration)?.has(sample) ?? false;
  }

  /** Stored values of a configuration by sample, in the order measured. */
  of(configuration: string): ReadonlyMap<string, Value> {
    return this.values.get(configuration) ?? new Map();
  }

  /**
   * Adds a sample; one that is there already stays as it is.
   * @returns false if it was there
   * @throws Error if it could not be written; the file then ends with the sample before
   */
  append(configuration: string, sample: string, value: Value): Promise<boolean> {
    const task = this.pending.then(async () => {
      if (this.has(configuration, sample)) return false;
      await this.write(checkLine({ configuration, sample, value }, 'sample'));
      this.remember(configuration, sample, value);
      return true;
    });
    this.pending = task.catch(() => undefined); // the caller of `append` sees the error, the next append its own
    return task;
  }

  async close(): Promise<void> {
    await this.pending;
    await this.handle.sync().catch(() => undefined); // what is no regular file cannot be synced
    await this.handle.close();
  }

  private remember(configuration: string, sample: string, value: Value): void {
    const samples = this.values.get(configuration) ?? new Map<string, Value>();
    this.values.set(configuration, samples);
    if (!samples.has(sample)) samples.set(sample, value);
  }

  private async write(record: object): Promise<void> {
    const bytes = Buffer.from(`${JSON.stringify(record)}\n`);
    try {
      // One write call a line: appendFile goes on after a short write, so a full disk ends in its error.
      await this.handle.appendFile(bytes);
      this.length += bytes.length;
    } catch (error) {
      await this.handle.truncate(this.length).catch(() => undefined);
      throw writeError(this.file, error);
    }
  }
}

/** A stored sample with its names. */
export interface StoredSample<Value> {
  readonly configuration: string;
  readonly sample: string;
  readonly value: Value;
}

/**
 * Reads a file of samples and changes nothing: another process may be writing it, its torn last line does not count.
 * @returns header: the plan that it was opened with, null before its first line is whole; samples in the order written
 * @throws Error naming the file, and the line that does not fit, what was expected and found, and what to do
 */
export async function readSampleFile<Value>(
  file: string,
  check: Check<Value>,
  { mayBeAbsent = false }: { readonly mayBeAbsent?: boolean } = {},
): Promise<{
  readonly header: string | null;
  readonly samples: readonly StoredSample<Value>[];
  readonly wholeBytes: number;
  readonly droppedBytes: number;
}> {
  const content = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (mayBeAbsent && error.code === 'ENOENT') return Buffer.alloc(0);
    throw new Error(`${file}: could not read the samples (${error.message})`);
  });
  const wholeBytes = content.lastIndexOf(0x0a) + 1; // up to and with the last newline
  const [first, ...rest] = content.subarray(0, wholeBytes).toString('utf8').split('\n').slice(0, -1);
  const parse = <T>(line: string, i: number, checked: (value: unknown) => T) =>
    parseLine(`${file}, line ${i + 1}`, line, checked);
  return {
    header: first === undefined ? null : parse(first, 0, (value) => checkHeader(value, '').plan),
    samples: rest.map((line, i) =>
      parse(line, i + 1, (value) => {
        const { configuration, sample, value: stored } = checkLine(value, '');
        return { configuration, sample, value: check(stored, 'value') };
      }),
    ),
    wholeBytes,
    droppedBytes: content.length - wholeBytes,
  };
}

function parseLine<T>(place: string, line: string, check: (value: unknown) => T): T {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new Error(`${place}: expected JSON, found ${line.slice(0, 40)}; move the file away to begin again`);
  }
  try {
    return check(value);
  } catch (error) {
    throw error instanceof InvalidValue ? spoilt(place, error) : error;
  }
}

function spoilt(place: string, { message }: InvalidValue): Error {
  return new Error(`${place}: ${message}; move the file away to begin again`);
}
