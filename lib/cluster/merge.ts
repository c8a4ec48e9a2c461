// lib/cluster/merge.ts: what all attempts of all shards left -> the Runs of one machine, or what is missing.
// A measurement made twice counts once. Times of unlike machines never share a Run: each kind of machine gets its own.

import { createHash, randomBytes } from 'node:crypto';
import { toRun } from '../benchmark/record.js';
import type { Measured } from '../benchmark/store.js';
import { percentile } from '../results/statistics.js';
import type { Quality, Run, RunFacts } from '../results.js';
import { type Attempt, attemptFiles, type Judged, judgedName, readAttempt } from './files.js';
import { type ClusterPlan, shardOf } from './plan.js';

/** A measurement that counts, and the machine it was made on. */
export interface MergedSample {
  readonly label: string;
  /** Of the plan's samples. */
  readonly sample: number;
  readonly key: string;
  readonly configuration: string;
  readonly value: Measured;
  readonly facts: RunFacts;
}

export interface Merged {
  /** In the plan's order: by configuration, repeat, sample. */
  readonly samples: readonly MergedSample[];
  /** By label, in the order of the plan's samples; empty unless the plan compares weights. */
  readonly judged: ReadonlyMap<string, readonly Judged[]>;
  /** A line for each shard that lacks something; empty if the run is complete. */
  readonly missing: readonly string[];
  /** Measurements made more than once, and dropped. */
  readonly doubles: number;
  /** Those of them whose text was not the same. */
  readonly unequalDoubles: number;
}

/**
 * Reads what there is of a plan.
 * @throws Error naming the file that does not fit: of another plan, another version, of no shard of the plan, spoilt
 */
export async function collectShards(plan: ClusterPlan, folder: string): Promise<Merged> {
  const attempts: Attempt[] = [];
  for (const found of await attemptFiles(folder)) {
    if (found.shard >= plan.shards) {
      throw new Error(
        `${found.file}: expected shards 0 to ${plan.shards - 1}, as the plan has, found another`,
      );
    }
    attempts.push(await readAttempt(plan, found));
  }
  const measured = firstOfEach(plan, attempts);
  const judged = judgedOf(plan, attempts);
  return {
    samples: plan.configurations.flatMap((label) =>
      keysInOrder(plan).flatMap(({ key }) => measured.kept.get(`${label}\n${key}`) ?? []),
    ),
    judged: judged.byLabel,
    missing: missingShards(plan, attempts, measured.kept, judged.isJudged),
    doubles: measured.doubles,
    unequalDoubles: measured.unequal,
  };
}

function keysInOrder({ samples, repeats }: ClusterPlan): { readonly key: string; readonly sample: number }[] {
  return Array.from({ length: repeats }, (_, repeat) =>
    samples.map(({ keys }, sample) => ({ key: keys[repeat]!, sample })),
  ).flat();
}

/** Of each measurement the first, in the files' order, which is the same wherever they are merged. */
function firstOfEach(plan: ClusterPlan, attempts: readonly Attempt[]) {
  const sampleOf = new Map(keysInOrder(plan).map(({ key, sample }) => [key, sample]));
  const kept = new Map<string, MergedSample>();
  let [doubles, unequal] = [0, 0];
  for (const { file, facts, measured } of attempts) {
    for (const { label, sample: key, configuration, value } of measured) {
      const [sample, known] = [sampleOf.get(key), facts.get(label)];
      if (sample === undefined || known === undefined || !plan.configurations.includes(label)) {
        throw new Error(
          `${file}: ${label}, sample ${key}: expected a measurement that the plan names, on a machine that the file names; move the file away`,
        );
      }
      const name = `${label}\n${key}`;
      const first = kept.get(name);
      if (!first) kept.set(name, { label, sample, key, configuration, value, facts: known });
      else {
        doubles++;
        if (first.value.text !== value.text) unequal++;
      }
    }
  }
  return { kept, doubles, unequal };
}

function judgedOf(plan: ClusterPlan, attempts: readonly Attempt[]) {
  const byName = new Map<string, Judged>();
  const labels = new Set<string>();
  for (const { judged } of attempts) {
    for (const { configuration, sample, value } of judged) {
      labels.add(configuration);
      const name = `${configuration}\n${sample}`;
      if (!byName.has(name)) byName.set(name, value);
    }
  }
  const judges = plan.configurations.filter((label) => labels.has(judgedName(label)));
  const of = (label: string, { keys }: { readonly keys: readonly string[] }) =>
    byName.get(`${judgedName(label)}\n${keys[0]}`);
  return {
    byLabel: new Map(
      judges.map((label) => [label, plan.samples.flatMap((sample) => of(label, sample) ?? [])] as const),
    ),
    isJudged: (sample: number) =>
      plan.reference === null ||
      (judges.length > 1 && judges.every((label) => of(label, plan.samples[sample]!))),
  };
}

/** How many samples a line of what is missing names. */
const NAMED = 5;

function missingShards(
  plan: ClusterPlan,
  attempts: readonly Attempt[],
  kept: ReadonlyMap<string, MergedSample>,
  isJudged: (sample: number) => boolean,
): string[] {
  const isWhole = (sample: number) =>
    isJudged(sample) &&
    plan.configurations.every((label) =>
      plan.samples[sample]!.keys.every((key) => kept.has(`${label}\n${key}`)),
    );
  return Array.from({ length: plan.shards }, (_, shard) => {
    const mine = [...plan.samples.keys()].filter((sample) => shardOf(plan, sample) === shard);
    const missing = mine.filter((sample) => !isWhole(sample));
    if (missing.length === 0) return [];
    const begun = attempts.some((attempt) => attempt.shard === shard);
    const names = missing.slice(0, NAMED).join(', ') + (missing.length > NAMED ? ', ...' : '');
    return [
      `shard ${shard}: ${begun ? '' : 'no file; '}${missing.length} of ${mine.length} samples missing (${names})`,
    ];
  }).flat();
}

/**
 * The records of a complete run: one a configuration where all machines were of one kind, else one for each kind.
 * @throws RangeError if something is missing (says what)
 */
export function mergedRuns(plan: ClusterPlan, { samples, judged, missing }: Merged): Run[] {
  if (missing.length > 0) throw new RangeError(`merge: expected a complete run; ${missing.join('; ')}`);
  const sessions = new Map<string, string>(); // one for each kind of machine: between kinds no ratio is fair
  return plan.configurations.flatMap((label) => {
    const kinds = byKind(samples.filter((sample) => sample.label === label));
    return [...kinds.values()].map((group) => {
      const kind = machineKind(group[0]!.facts);
      const session = sessions.get(kind) ?? randomBytes(6).toString('hex');
      sessions.set(kind, session);
      const run = runOf(plan, group, session);
      const answers = judged.get(label);
      const notes = kinds.size === 1 ? [] : [unlikeNote(group, kinds)];
      return {
        ...run,
        quality: run.quality && { ...run.quality, ...(answers && judgedQuality(answers, group)) },
        notes: [...run.notes, ...notes],
      };
    });
  });
}

/** Machines are of one kind if nothing but their name differs, and the same program ran on them. */
function machineKind({ machine, runtime, commit }: RunFacts): string {
  const { id: _, memoryBytes, ...hardware } = machine;
  // Machines of one make differ by some pages in the memory that they report.
  return JSON.stringify({ hardware, memoryGiB: Math.round(memoryBytes / 2 ** 30), runtime, commit });
}

/** The plan may leave tfjs's backend to each machine: another one is another kind, too. */
function byKind(samples: readonly MergedSample[]): Map<string, MergedSample[]> {
  const kinds = new Map<string, MergedSample[]>();
  for (const sample of samples) {
    const { backend, target, mode, weights, model } = sample.facts;
    const kind = JSON.stringify([machineKind(sample.facts), backend, target, mode, weights, model.name]);
    kinds.set(kind, [...(kinds.get(kind) ?? []), sample]);
  }
  return kinds;
}

function runOf(plan: ClusterPlan, group: readonly MergedSample[], session: string): Run {
  const facts = sharedFacts(group);
  const isScored = !plan.ignoreEos && !facts.model.randomWeights;
  const run = toRun(
    facts,
    group.map(({ value }) => value),
    { session, ...(isScored && { references: group.map(({ sample }) => plan.samples[sample]!.output) }) },
  );
  const machineIds = group.map(({ facts: { machine } }) => machine.id);
  return new Set(machineIds).size === 1 ? run : { ...run, samples: { ...run.samples, machineIds } };
}

/** Facts of all attempts on one kind of machine together. */
function sharedFacts(group: readonly MergedSample[]): RunFacts {
  const all = [...new Set(group.map(({ facts }) => facts))];
  const first = all[0]!;
  const counts = new Map<string, number>();
  for (const { facts } of group) counts.set(facts.machine.id, (counts.get(facts.machine.id) ?? 0) + 1);
  const most = <Value>(value: (facts: RunFacts) => Value, size: (value: Value) => number) =>
    all.map(value).reduce((a, b) => (size(b) > size(a) ? b : a));
  const nodes = [...counts].map(([id, count]) => `${id} (${count})`).join(', ');
  return {
    ...first,
    machine: { ...first.machine, id: sharedId([...counts.keys()]) },
    compile: most(
      ({ compile }) => compile,
      (compile) => compile?.compileMs ?? -1,
    ),
    memory: most(
      ({ memory }) => memory,
      ({ weightBytes, arenaBytes = 0, gpuBytes = 0 }) => weightBytes + arenaBytes + gpuBytes,
    ),
    checks: first.checks.map((_, i) =>
      most(
        ({ checks }) => checks[i]!,
        ({ value }) => value,
      ),
    ),
    notes: [
      ...new Set(all.flatMap(({ notes }) => notes)),
      ...(counts.size > 1
        ? [`measured on ${counts.size} machines of one kind, by id (samples): ${nodes}`]
        : []),
    ],
  };
}

/** Several machines of one kind are none of them: an id of their own, the same for the same machines. */
function sharedId(ids: readonly string[]): string {
  if (ids.length === 1) return ids[0]!;
  return createHash('sha256')
    .update([...ids].sort().join())
    .digest('hex')
    .slice(0, 12);
}

function unlikeNote(
  group: readonly MergedSample[],
  kinds: ReadonlyMap<string, readonly MergedSample[]>,
): string {
  const total = [...kinds.values()].reduce((sum, { length }) => sum + length, 0);
  const others = [...kinds.values()].filter((other) => other !== group).map(kindName);
  return `merged from ${kinds.size} kinds of machines: these are ${group.length} of ${total} samples, those of ${kindName(group)}; the others were measured on ${others.join('; ')}`;
}

function kindName(group: readonly MergedSample[]): string {
  const { machine, runtime, commit, backend } = group[0]!.facts;
  const name = machine.gpu ?? machine.cpu;
  return `${name}, ${machine.cores} cores, ${backend}, Node ${runtime.version}, commit ${commit?.replace(/(?<=^.{10})[0-9a-f]+/, '') ?? 'unknown'}`;
}

/** What reference answers say of weights. */
export interface AnswerFigures extends Pick<Quality, 'klMean' | 'klP99' | 'sameTopToken'> {
  readonly perplexity: number;
}

/** What the judged answers of a group's samples say of the weights; a sample measured repeatedly counts once. */
function judgedQuality(answers: readonly Judged[], group: readonly MergedSample[]): AnswerFigures {
  return summarizeJudged([...new Set(group.map(({ sample }) => sample))].map((sample) => answers[sample]!));
}

/** Perplexity of all answers' tokens together; divergence only where there is a reference to diverge from. */
export function summarizeJudged(answers: readonly Judged[]): AnswerFigures {
  const sum = (value: (judged: Judged) => number) =>
    answers.reduce((total, judged) => total + value(judged), 0);
  const tokens = sum((judged) => judged.tokens);
  const divergences = answers.flatMap(({ klDivergence }) => klDivergence);
  return {
    perplexity: Math.exp(-sum(({ logProbability }) => logProbability) / tokens),
    ...(divergences.length > 0 && {
      klMean: divergences.reduce((total, nats) => total + nats, 0) / divergences.length,
      klP99: percentile(divergences, 99),
      sameTopToken: sum(({ sameTop }) => sameTop) / tokens,
    }),
  };
}
