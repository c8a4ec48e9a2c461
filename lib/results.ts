// lib/results.ts: a Run, the record of one measured configuration: checked, read from and written to JSON.
// folder of *.run.json -> Run[], and back. Plots, tables and reports read nothing else.
// Statistics as numpy computes them (results/statistics.ts); tables and ratios in results/compare.ts; the raw samples
// of a run that may be killed in results/samples.ts.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeTextAtomically } from './results/files.js';
import { checkFields, SCHEMA_VERSION, TARGETS } from './results/schema.js';
import { type Statistics, statistics } from './results/statistics.js';
import { InvalidValue } from './results/validate.js';

export { SCHEMA_VERSION, TARGETS };

/** What executes the model: tfjs op by op, a compiled target, or PyTorch. */
export type Target = (typeof TARGETS)[number];

export interface Run {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  /** Names the record and its file. */
  readonly id: string;
  /** Runs measured alternately in one go share it: only their ratios are free of the machine's mood. */
  readonly session: string;
  readonly createdAt: string;
  /** Of this repository; null outside git. Ends in -dirty with uncommitted changes. */
  readonly commit: string | null;
  /** Name of the configuration in plots, such as 'INT8 + cache'. */
  readonly label: string;
  readonly machine: Machine;
  readonly runtime: Runtime;
  readonly model: ModelFacts;
  /** Scheme: stored, f32, f16, int8 (per output channel), int8-tensor, int8-group, int4. */
  readonly weights: string;
  /** tfjs backend, or the device of a target that is none. */
  readonly backend: string;
  readonly target: Target;
  /** How the target runs: eager, jit, scan, compile; with ', fast' where it rounds activations too. */
  readonly mode: string;
  /** False when the whole sequence is computed again for each token. */
  readonly cache: boolean;
  /** Prompt tokens of the longest sample. */
  readonly promptTokens: number;
  /** New tokens asked for; a sample that met its end has fewer. */
  readonly newTokens: number;
  /** Sequences generated at once. */
  readonly batch: number;
  readonly compile: { readonly compilations: number; readonly compileMs: number } | null;
  readonly samples: Samples;
  readonly summary: Summary;
  readonly memory: Memory;
  readonly quality: Quality | null;
  readonly deviation: Deviation | null;
  readonly checks: readonly CheckResult[];
  readonly notes: readonly string[];
}

/** What of a Run its samples do not say: it travels beside them where several machines measure one Run. */
export interface RunFacts
  extends Pick<
    Run,
    | ('commit' | 'label' | 'machine' | 'runtime' | 'model' | 'weights' | 'backend' | 'target' | 'mode')
    | ('cache' | 'newTokens' | 'batch' | 'compile' | 'checks' | 'notes')
  > {
  readonly memory: Omit<Memory, 'cacheBytes' | 'peakRssBytes'>;
}

export interface Machine {
  /** First 12 hexadecimal digits of the SHA-256 of the host's name: tells machines of one make apart, unnamed. */
  readonly id: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly os: string;
  readonly gpu?: string | undefined;
}

export interface Runtime {
  readonly name: 'node' | 'python';
  readonly version: string;
  readonly packages: Readonly<Record<string, string>>;
}

export interface ModelFacts {
  readonly name: string;
  /** Where its weights came from: embedded, a folder, a hub id, or the command that made them. */
  readonly source: string;
  /** Architecture: gpt2, mistral, llama. */
  readonly family: string;
  readonly parameters: number;
  /** True when speed and memory mean something and the text does not. */
  readonly randomWeights: boolean;
}

/** Raw measurements, one entry a sample, in the order measured. */
export interface Samples {
  /** Whole request, from the prompt's ids to the last new one. */
  readonly latencyMs: readonly number[];
  readonly firstTokenMs: readonly number[];
  readonly promptTokens: readonly number[];
  /** Tokens generated, of all sequences of the batch together. */
  readonly newTokens: readonly number[];
  /** [sample][token after the first] */
  readonly perTokenMs?: readonly (readonly number[])[] | undefined;
  /** ROUGE-L against the reference answer or the reference run, 0 to 1. */
  readonly rougeL?: readonly number[] | undefined;
  /** Machine.id that each sample was measured on, where several of one kind shared a Run. */
  readonly machineIds?: readonly string[] | undefined;
}

export interface Summary {
  readonly latencyMs: Statistics;
  readonly firstTokenMs: Statistics;
  /** All new tokens by all latencies: what a user waits for, the prompt's share included. */
  readonly tokensPerSecond: number;
}

/** Bytes; a part that does not exist in this configuration is left out. */
export interface Memory {
  readonly weightBytes: number;
  readonly cacheBytes: number;
  /** Planned once by the compiler. */
  readonly arenaBytes?: number | undefined;
  /** From the GPU's allocator. */
  readonly gpuBytes?: number | undefined;
  /** Largest resident size of the process: everything in it, so never a part of the sum of the others. */
  readonly peakRssBytes?: number | undefined;
}

/** Against the reference answers, 0 to 1, means over `samples`. */
export interface Quality {
  readonly samples: number;
  /** What the texts were compared with: 'reference answers', or the label of a run. */
  readonly against: string;
  readonly rouge1?: number | undefined;
  readonly rouge2?: number | undefined;
  readonly rougeL?: number | undefined;
  readonly exactMatch?: number | undefined;
  readonly perplexity?: number | undefined;
  readonly sameTopToken?: number | undefined;
  readonly klMean?: number | undefined;
  readonly klP99?: number | undefined;
}

/** Difference of the logits from a reference, by the largest magnitude among them. */
export interface Deviation {
  readonly reference: string;
  readonly largest: number;
}

/** A checkpoint of the course that passed or failed. */
export interface CheckResult {
  readonly name: string;
  readonly passed: boolean;
  readonly value: number;
  /** Such as '<= 1e-5'. */
  readonly expected: string;
}

/**
 * Numbers of the summary from the raw samples.
 * @throws RangeError if there is no sample
 */
export function summarize(samples: Samples): Summary {
  const seconds = samples.latencyMs.reduce((sum, ms) => sum + ms, 0) / 1000;
  const tokens = samples.newTokens.reduce((sum, tokenCount) => sum + tokenCount, 0);
  return {
    latencyMs: statistics(samples.latencyMs),
    firstTokenMs: statistics(samples.firstTokenMs),
    tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
  };
}

/**
 * Checks that a value is a Run: every field, equally many samples everywhere, a summary that its samples give.
 * @param source file or place, for the message
 * @throws Error naming the source, the path inside the record, what was expected and what was found
 */
export function checkRun(value: unknown, source: string): Run {
  const version = (value as { schemaVersion?: unknown } | null)?.schemaVersion;
  if (typeof version === 'number' && version !== SCHEMA_VERSION) {
    throw new Error(
      `${source}: schemaVersion: expected ${SCHEMA_VERSION}, found ${version}; measure again or use the version of this project that wrote it`,
    );
  }
  try {
    const run = checkFields(value, '');
    checkSamples(run);
    return run;
  } catch (error) {
    throw error instanceof InvalidValue ? new Error(`${source}: ${error.message}`) : error;
  }
}

function checkSamples({ samples, summary }: Run): void {
  const expected = samples.latencyMs.length;
  if (expected === 0) throw new InvalidValue('samples.latencyMs', 'at least one sample', samples.latencyMs);
  for (const [name, values] of Object.entries(samples)) {
    if (values !== undefined && values.length !== expected) {
      throw new InvalidValue(
        `samples.${name}`,
        `${expected} entries as in samples.latencyMs`,
        `${values.length} entries`,
      );
    }
  }
  const computed = summarize(samples);
  compareNumbers(computed, summary, 'summary');
}

/** The summary may come from another program: it has to be what the samples say, up to rounding. */
function compareNumbers(computed: object, found: object, path: string): void {
  for (const [key, value] of Object.entries(computed)) {
    const other = (found as Record<string, unknown>)[key];
    if (typeof value === 'object') compareNumbers(value, other as object, `${path}.${key}`);
    else if (Math.abs(value - (other as number)) > 1e-6 * Math.max(1, Math.abs(value))) {
      throw new InvalidValue(`${path}.${key}`, `${value}, as its samples give`, other);
    }
  }
}

const SUFFIX = '.run.json';

/**
 * Reads one record.
 * @throws Error naming the file: missing, not JSON, another schema version, or the path inside it that does not fit
 */
export async function readRun(file: string): Promise<Run> {
  const content = await readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`${file}: expected a results file, could not read it (${error.message})`);
  });
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (error) {
    throw new Error(`${file}: expected JSON, found something else (${(error as Error).message})`);
  }
  return checkRun(value, file);
}

/**
 * Reads all records of a folder and the folders in it, oldest first.
 * @returns empty for a folder that does not exist: nothing was measured yet
 * @throws Error naming the first file that is no valid record, or a file where the folder should be
 */
export async function readRuns(folder: string): Promise<Run[]> {
  const names = await readdir(folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw new Error(`${folder}: expected a folder of results, could not read it (${error.message})`);
  });
  const runs: Run[] = [];
  for (const name of names.filter((candidate) => candidate.endsWith(SUFFIX)).sort()) {
    runs.push(await readRun(join(folder, name)));
  }
  return runs.sort((a, b) => a.createdAt.localeCompare(b.createdAt) || a.id.localeCompare(b.id));
}

/**
 * Writes a record into a folder, which is made when missing; the file is either whole or not there.
 * @returns path of the file, <folder>/<id>.run.json
 * @throws Error naming the file: a record that does not fit the schema, a full disk, no permission
 */
export async function writeRun(run: Run, folder: string): Promise<string> {
  if (!/^[\w.-]+$/.test(run.id)) {
    throw new Error(
      `run id: expected letters, digits, '.', '_', '-' only, received ${JSON.stringify(run.id)}`,
    );
  }
  const file = join(folder, `${run.id}${SUFFIX}`);
  await writeTextAtomically(file, `${JSON.stringify(checkRun(run, file), null, 1)}\n`);
  return file;
}

/** A new record's id: the time, the label in plain letters, four random ones. */
export function newRunId(label: string, createdAt: string): string {
  const time = createdAt.replace(/\.\d+/, '').replaceAll(/[-:]/g, '');
  const words = label
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
  return `${time}-${words || 'run'}-${Math.random().toString(36).slice(2, 6).padEnd(4, '0')}`;
}
