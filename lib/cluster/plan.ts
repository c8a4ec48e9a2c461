// lib/cluster/plan.ts: what a run over many machines measures, fixed once, in a file that all of them read.
// model, samples, configurations, shard count -> a JSON file with a fingerprint of itself.

import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { writeTextAtomically } from '../results/files.js';
import {
  anyText,
  type Check,
  count,
  flag,
  InvalidValue,
  list,
  object,
  oneOf,
  orNull,
  text,
} from '../results/validate.js';

/** Rises when a plan's meaning, or that of the shards' files, changes: another one is refused. */
export const PLAN_VERSION = 1;

/** Slurm's MaxArraySize is 1001 unless a site changed it. */
export const MOST_SHARDS = 1000;

export interface ClusterPlan {
  readonly kind: 'cluster plan';
  readonly schemaVersion: typeof PLAN_VERSION;
  /** SHA-256 of all the rest: two plans are the same if it is, and a file that was edited shows. */
  readonly fingerprint: string;
  readonly shards: number;
  readonly model: PlannedModel;
  /** Labels such as wasm-cached-int8, measured in turns. */
  readonly configurations: readonly string[];
  /** Label that the others' weights are compared with, token by token; null: none are. */
  readonly reference: string | null;
  /** Of each reference answer, from its first on, those that are compared; null: all. */
  readonly answerTokens: number | null;
  readonly newTokens: number;
  /** Of a model without tokenizer. */
  readonly promptTokens: number;
  readonly repeats: number;
  readonly ignoreEos: boolean;
  readonly backend: string;
  /** File's name or hub id that the samples are from. */
  readonly dataset: string;
  readonly samples: readonly PlannedSample[];
}

export interface PlannedModel {
  readonly name: string;
  readonly folder: string;
  /** Digest of its files, without reading the weights: names and sizes, and the text of config and tokenizer. */
  readonly digest: string;
}

export interface PlannedSample {
  /** Keys of its measurements, one a repeat, as the benchmark forms them of the prompt's token ids. */
  readonly keys: readonly string[];
  readonly instruction: string;
  readonly input: string;
  readonly output: string;
}

const checkPlan: Check<ClusterPlan> = object<ClusterPlan>({
  kind: oneOf('cluster plan'),
  schemaVersion: oneOf(PLAN_VERSION),
  fingerprint: text,
  shards: count(1),
  model: object<PlannedModel>({ name: text, folder: text, digest: text }),
  configurations: list(text),
  reference: orNull(text),
  answerTokens: orNull(count(1)),
  newTokens: count(1),
  promptTokens: count(1),
  repeats: count(1),
  ignoreEos: flag,
  backend: text,
  dataset: text,
  samples: list(
    object<PlannedSample>({ keys: list(text), instruction: text, input: anyText, output: anyText }),
  ),
});

/**
 * Fixes a plan.
 * @throws RangeError if there are more shards than samples, or than a Slurm array takes; if nothing is to be measured
 */
export function makeClusterPlan(
  content: Omit<ClusterPlan, 'kind' | 'schemaVersion' | 'fingerprint'>,
): ClusterPlan {
  const { shards, samples, configurations, reference } = content;
  const most = Math.min(samples.length, MOST_SHARDS);
  if (!Number.isInteger(shards) || shards < 1 || shards > most) {
    throw new RangeError(
      `shards: expected 1 to ${most}, at most one a sample and ${MOST_SHARDS} in all, received ${shards}`,
    );
  }
  if (configurations.length === 0)
    throw new RangeError('configurations: expected one or more, received none');
  if (reference !== null && !configurations.includes(reference)) {
    throw new RangeError(`reference: expected one of ${configurations.join(', ')}, received ${reference}`);
  }
  return withFingerprint({ kind: 'cluster plan', schemaVersion: PLAN_VERSION, ...content });
}

function withFingerprint(content: Omit<ClusterPlan, 'fingerprint'>): ClusterPlan {
  // Sorted keys: the file may have been written by another program, in another order.
  const canonical = JSON.stringify(content, (_, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return { ...content, fingerprint: createHash('sha256').update(canonical).digest('hex').slice(0, 16) };
}

/** Writes the plan; the file is either whole or not there. @throws Error naming the file */
export async function writePlan(plan: ClusterPlan, file: string): Promise<void> {
  await writeTextAtomically(file, `${JSON.stringify(plan, null, 1)}\n`);
}

/**
 * Reads a plan.
 * @throws Error naming the file: missing, not JSON, of another version, a field that does not fit, edited by hand
 */
export async function readPlan(file: string): Promise<ClusterPlan> {
  const content = await readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`${file}: expected a plan, could not read it (${error.message})`);
  });
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (error) {
    throw new Error(`${file}: expected a plan in JSON: ${(error as Error).message}`);
  }
  const version = (value as { schemaVersion?: unknown } | null)?.schemaVersion;
  if (typeof version === 'number' && version !== PLAN_VERSION) {
    throw new Error(
      `${file}: plan version: expected ${PLAN_VERSION}, found ${version}; make the plan again, or use the version of this project that made it`,
    );
  }
  try {
    const { fingerprint, ...rest } = checkPlan(value, '');
    const plan = withFingerprint(rest);
    if (plan.fingerprint === fingerprint) return plan;
    throw new InvalidValue('fingerprint', `${plan.fingerprint}, as its content gives`, fingerprint);
  } catch (error) {
    if (!(error instanceof InvalidValue)) throw error;
    throw new Error(`${file}: ${error.message}; a plan is not edited: make a new one`);
  }
}

/** The shard that measures a sample: neighbours go to different ones, so that a list sorted by length is spread. */
export function shardOf({ shards }: Pick<ClusterPlan, 'shards'>, sample: number): number {
  return sample % shards;
}

/**
 * The shard that a process is to run.
 * @param given by option; else SLURM_ARRAY_TASK_ID, else JOB_COMPLETION_INDEX (an indexed Job on Kubernetes)
 * @throws RangeError if none says it, or it is no shard of the plan. The count is the plan's alone: Slurm's own says
 *   how many tasks one `--array=3,7` has
 */
export function shardIndex(
  { shards }: Pick<ClusterPlan, 'shards'>,
  given: string | undefined,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): number {
  const [source, value] = [
    ['--shard', given],
    ['SLURM_ARRAY_TASK_ID', environment.SLURM_ARRAY_TASK_ID],
    ['JOB_COMPLETION_INDEX', environment.JOB_COMPLETION_INDEX],
  ].find(([, found]) => found !== undefined && found !== '') ?? ['--shard', 'nothing'];
  if (/^\d+$/.test(value!) && Number(value) < shards) return Number(value);
  throw new RangeError(
    `${source}: expected a shard from 0 to ${shards - 1}, as the plan has ${shards}, received ${value}`,
  );
}

/**
 * A digest of a model's folder, quick even for large weights: file names and sizes, and the text of the JSON files.
 * @throws Error if the folder cannot be read
 */
export async function modelDigest(folder: string): Promise<string> {
  const hash = createHash('sha256');
  for (const name of (await readdir(folder)).filter(isOfModel).sort()) {
    const file = join(folder, name);
    const { size } = await stat(file);
    hash.update(JSON.stringify([name, size]));
    if (name.endsWith('.json')) hash.update(await readFile(file));
  }
  return hash.digest('hex').slice(0, 16);
}

function isOfModel(name: string): boolean {
  return /\.(json|safetensors|bin|jinja)$/.test(name) && !name.startsWith('.');
}
