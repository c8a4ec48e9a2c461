// lib/cluster/files.ts: the files of a run over many machines: one for each shard and attempt, never shared.
// A process appends to a file of its own alone, since an attempt that is thought dead may still write beside its
// successor; what all attempts of a shard have is read from all of their files.

import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Key, Measured } from '../benchmark/store.js';
import { checkMeasured } from '../benchmark/store.js';
import { readSampleFile, SampleStore, type StoredSample } from '../results/samples.js';
import { checkFacts } from '../results/schema.js';
import { type Check, count, list, number, object } from '../results/validate.js';
import type { RunFacts } from '../results.js';
import type { ClusterPlan } from './plan.js';

/** How well weights foresaw one reference answer, beside the reference weights. */
export interface Judged {
  /** Sum over the answer's tokens, nats. */
  readonly logProbability: number;
  readonly tokens: number;
  /** KL divergence from the reference weights at each token, nats; none for the reference itself. */
  readonly klDivergence: readonly number[];
  /** Tokens at which both put the same one first. */
  readonly sameTop: number;
}

const checkJudged: Check<Judged> = object<Judged>({
  logProbability: number(),
  tokens: count(1),
  klDivergence: list(number(0)),
  sameTop: count(0),
});

type Line = Measured | RunFacts | Judged;

/** Each kind of line has a field that no other has. */
const checkLine: Check<Line> = (value, path) => {
  const has = (key: string) => typeof value === 'object' && value !== null && key in value;
  if (has('latencyMs')) return checkMeasured(value, path);
  if (has('logProbability')) return checkJudged(value, path);
  return checkFacts(value, path);
};

const isFacts = (line: Line): line is RunFacts => 'machine' in line;
const isJudged = (line: Line): line is Judged => 'logProbability' in line;
const isMeasured = (line: Line): line is Measured => 'latencyMs' in line;

/** What an attempt is called, in its file's name: Slurm's job and restart, and random letters whatever it says. */
export function attemptName(environment: Readonly<Record<string, string | undefined>> = process.env): string {
  const random = randomBytes(4).toString('hex');
  const { SLURM_JOB_ID, SLURM_RESTART_COUNT } = environment; // no restart count on the first start
  return SLURM_JOB_ID ? `job${SLURM_JOB_ID}-${SLURM_RESTART_COUNT ?? 0}-${random}` : random;
}

/** File that an attempt writes. The same name with .log ends its log. */
export function attemptFile(folder: string, shard: number, attempt: string): string {
  return join(folder, `shard-${String(shard).padStart(4, '0')}.${attempt}.jsonl`);
}

/** Files of a shard's attempts, or of all shards', in one order on every machine. */
export async function attemptFiles(
  folder: string,
  shard?: number,
): Promise<{ file: string; shard: number }[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw new Error(
      `${folder}: expected the folder of the shards' files, could not read it (${error.message})`,
    );
  });
  return names
    .sort()
    .flatMap((name) => {
      const [, index] = /^shard-(\d+)\.[\w-]+\.jsonl$/.exec(name) ?? [];
      return index === undefined ? [] : [{ file: join(folder, name), shard: Number(index) }];
    })
    .filter((found) => shard === undefined || found.shard === shard);
}

/** What one attempt left. */
export interface Attempt {
  readonly file: string;
  readonly shard: number;
  /** By configuration's label, the last that it wrote. */
  readonly facts: ReadonlyMap<string, RunFacts>;
  readonly measured: readonly (StoredSample<Measured> & { readonly label: string })[];
  readonly judged: readonly StoredSample<Judged>[];
}

/**
 * Reads what an attempt left; one that was killed before its first line was whole has nothing.
 * @throws Error naming the file and what does not fit; of another plan: both fingerprints
 */
export async function readAttempt(
  plan: Pick<ClusterPlan, 'fingerprint'>,
  { file, shard }: { readonly file: string; readonly shard: number },
): Promise<Attempt> {
  const { header, samples } = await readSampleFile<Line>(file, checkLine);
  if (header !== null && header !== headerOf(plan, shard)) {
    throw new Error(
      `${file}: expected measurements of ${headerOf(plan, shard)}, found those of ${header}; one folder holds one plan's`,
    );
  }
  const only = <Kind extends Line>(is: (line: Line) => line is Kind) =>
    samples.flatMap(({ value, ...names }) => (is(value) ? [{ ...names, value }] : []));
  return {
    file,
    shard,
    facts: new Map(only(isFacts).map(({ value }) => [value.label, value])),
    measured: only(isMeasured).map((line) => ({ ...line, label: labelOf(line.configuration, file) })),
    judged: only(isJudged),
  };
}

function headerOf({ fingerprint }: Pick<ClusterPlan, 'fingerprint'>, shard: number): string {
  return `plan ${fingerprint}, shard ${shard}`;
}

/** Label of a configuration in a sample's key, which begins with it (benchmark/store.ts). */
function labelOf(configuration: string, file = 'key'): string {
  try {
    const [label] = JSON.parse(configuration) as unknown[];
    if (typeof label === 'string') return label;
  } catch {} // no JSON, or no list: the message below says what was expected
  throw new Error(
    `${file}: configuration: expected a list that begins with a label, found ${configuration}; move the file away`,
  );
}

/** An attempt's own file, open to append, and what the shard's attempts have finished so far. */
export class ShardStore {
  private constructor(
    private readonly own: SampleStore<Line>,
    private readonly finished: Set<string>,
  ) {}

  /** @throws Error if a file of the shard is of another plan, or the new one cannot be written */
  static async open(plan: ClusterPlan, shard: number, folder: string, attempt: string): Promise<ShardStore> {
    const finished = new Set<string>();
    for (const found of await attemptFiles(folder, shard)) {
      const { measured, judged } = await readAttempt(plan, found);
      for (const { label, sample } of measured) finished.add(nameOf(label, sample));
      for (const { configuration, sample } of judged) finished.add(nameOf(configuration, sample));
    }
    const file = attemptFile(folder, shard, attempt);
    return new ShardStore(await SampleStore.open<Line>(file, headerOf(plan, shard), checkLine), finished);
  }

  get file(): string {
    return this.own.file;
  }

  has(...[configuration, sample]: Key): boolean {
    return this.finished.has(nameOf(labelOf(configuration), sample));
  }

  async add([configuration, sample]: Key, measured: Measured): Promise<void> {
    await this.own.append(configuration, sample, measured);
    this.finished.add(nameOf(labelOf(configuration), sample));
  }

  hasJudged(label: string, sample: string): boolean {
    return this.finished.has(nameOf(judgedName(label), sample));
  }

  async addJudged(label: string, sample: string, judged: Judged): Promise<void> {
    await this.own.append(judgedName(label), sample, judged);
    this.finished.add(nameOf(judgedName(label), sample));
  }

  /** @param when facts are known before the first sample, and better after the last */
  async addFacts(facts: RunFacts, when: 'begin' | 'end'): Promise<void> {
    await this.own.append(facts.label, `facts ${when}`, facts);
  }

  close(): Promise<void> {
    return this.own.close();
  }
}

/** Name under which a configuration's judged answers are stored. */
export function judgedName(label: string): string {
  return `judged ${label}`;
}

function nameOf(label: string, sample: string): string {
  return `${label}\n${sample}`;
}
