// bench/bench.ts: `npm run bench`: the bars of the compiled wasm target, side by side in one run.
// Contenders (plan.ts) run in turns, round by round; bars.ts judges; results go to a JSON file. Peers that are not here
// show as missing.

import { existsSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { randomModelFolder } from 'response-time/cli/models';
import { findPython } from 'response-time/notebook/pytorch';
import { cacheFolder, modelsFolder, resultsFolder } from 'response-time/paths';
import { writeRandomCheckpoint } from 'response-time/randomModel';
import { writeTextAtomically } from 'response-time/results/files';
import { machineFacts, projectCommit, runtimeFacts } from 'response-time/results/machine';
import { figures, judge, type Measured, median, type Outcome } from './bars.js';
import { Contender } from './contender.js';
import {
  FULL,
  type Measurement,
  type ModelName,
  type Places,
  type Plan,
  planOf,
  QUICK,
  type Sizes,
} from './plan.js';
import { type Facts, type KernelTime, messageOf, type Timing } from './protocol.js';
import { barsTable, figuresTable, profileTable } from './table.js';

export const HELP = `npm run bench -- [options]

Measures the compiled wasm target and its peers in turns, and says which bars are met: about 20 minutes on two idle cores.
  --rounds COUNT     of each measurement, medians are taken (default: 5)
  --models NAMES     gpt2,smollm2 (default: both). GPT-2's shape gets random weights; SmolLM2 comes from scripts/smollm2.sh
  --only TEXT        measurements whose id holds the text, such as gpt2/int8; bandwidth is always measured
  --peers FOLDER     what bench/peers.sh made (default: RESPONSE_TIME_PEERS)
  --output FILE      default: results/latest/bench.json
  --quick            the embedded tiny model and one round, to try the command: its figures mean nothing
PyTorch is measured where python3, or RESPONSE_TIME_PYTHON, has torch and transformers.
`;

export interface Settings {
  readonly rounds: number;
  readonly models: readonly ModelName[];
  readonly only: string | undefined;
  readonly peers: string | undefined;
  readonly output: string;
  readonly quick: boolean;
  readonly help: boolean;
}

/** @throws RangeError or TypeError that says what was expected */
export function readSettings(parameters: readonly string[], environment = process.env): Settings {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const options = {
    rounds: text,
    models: text,
    only: text,
    peers: text,
    output: text,
    quick: flag,
    help: flag,
  };
  const { values } = parseArgs({ args: [...parameters], options });
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new RangeError(`--rounds: expected a whole number of at least 1, received ${values.rounds}`);
  }
  const models = (values.models ?? (values.quick ? 'gpt2' : 'gpt2,smollm2')).split(',');
  const stray = models.find((name) => name !== 'gpt2' && name !== 'smollm2');
  if (stray !== undefined)
    throw new RangeError(`--models: expected gpt2, smollm2 or both, received ${stray}`);
  const peers = values.peers ?? environment.RESPONSE_TIME_PEERS;
  return {
    rounds,
    models: models as ModelName[],
    only: values.only,
    peers: peers === undefined ? undefined : resolve(peers),
    output: resolve(values.output ?? join(resultsFolder(), 'bench.json')),
    quick: values.quick,
    help: values.help,
  };
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** The model's folder, made when it can be; undefined, with a word, when it is not here. */
async function folderOf(model: ModelName, quick: boolean): Promise<string | undefined> {
  if (quick) return join(modelsFolder(), model === 'gpt2' ? 'tiny-gpt2' : 'tiny-mistral');
  if (model === 'smollm2') {
    const folder = process.env.RESPONSE_TIME_SMOLLM2 ?? join(cacheFolder(), 'smollm2');
    return existsSync(join(folder, 'model.safetensors')) ? folder : undefined;
  }
  const folder = randomModelFolder('gpt2');
  if (!existsSync(join(folder, 'config.json'))) await writeRandomCheckpoint(folder, 'gpt2');
  return folder;
}

type Started = ReadonlyMap<string, Contender | { readonly missing: string }>;

async function startAll({ contenders }: Plan): Promise<Started> {
  const started = new Map<string, Contender | { readonly missing: string }>();
  for (const { id, start } of contenders) {
    const contender = 'missing' in start ? start : await Contender.start(start);
    say('missing' in contender ? `${id}: missing: ${contender.missing}` : `${id}: ready`);
    started.set(id, contender);
  }
  return started;
}

/** Warms each measurement up by the whole of its work, then takes them in turns. One that fails is missing from then. */
async function measureAll(plan: Plan, started: Started, rounds: number): Promise<Map<string, Measured>> {
  const measured = new Map<string, Measured>();
  const run = async ({ id, contender, work }: Measurement, keep: boolean): Promise<void> => {
    const before = measured.get(id) ?? [];
    if ('missing' in before) return;
    const runner = started.get(contender)!;
    if ('missing' in runner) return void measured.set(id, runner);
    try {
      const timing = await runner.run(work);
      if (keep) measured.set(id, [...before, timing]);
    } catch (error) {
      measured.set(id, { missing: messageOf(error) });
    }
  };
  say('warming up');
  for (const measurement of plan.measurements) if (!measurement.once) await run(measurement, false);
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}`);
    for (const measurement of plan.measurements) {
      if (!measurement.once || round === 0) await run(measurement, true);
    }
  }
  return measured;
}

export interface Profile {
  readonly contender: string;
  readonly kernels: readonly KernelTime[];
}

/** Kernel by kernel: where the time of a token goes, with two threads. */
async function profileAll(started: Started, { promptTokens, loopSteps }: Sizes): Promise<Profile[]> {
  const profiles: Profile[] = [];
  for (const [id, contender] of started) {
    if ('missing' in contender || !/\/(f32|int8|int4)\/2$/.test(id)) continue;
    const work = { kind: 'profile', depth: promptTokens, steps: loopSteps } as const;
    try {
      await contender.run(work); // compiles
      const { kernels = [] } = await contender.run(work);
      profiles.push({ contender: id, kernels });
    } catch (error) {
      say(`${id}: no profile: ${messageOf(error)}`);
    }
  }
  return profiles;
}

/** Keeps what `only` names, and the bandwidth. */
export function narrowed(plan: Plan, only: string | undefined): Plan {
  if (only === undefined) return plan;
  const measurements = plan.measurements.filter(({ id }) => id.includes(only) || id.includes('/bandwidth/'));
  const needed = new Set(measurements.map(({ contender }) => contender));
  return { measurements, contenders: plan.contenders.filter(({ id }) => needed.has(id)) };
}

interface ModelOutcome {
  readonly measured: ReadonlyMap<string, Measured>;
  readonly facts: ReadonlyMap<string, Facts>;
  readonly profiles: readonly Profile[];
}

async function benchModel(model: ModelName, settings: Settings, places: Places): Promise<ModelOutcome> {
  const sizes = settings.quick ? QUICK : FULL;
  const shape = model === 'gpt2' && !settings.quick ? 'gpt2' : places.folder;
  const plan = narrowed(planOf(model, places, shape, sizes), settings.only);
  const started = await startAll(plan);
  try {
    const measured = await measureAll(plan, started, settings.rounds);
    const profiles = await profileAll(started, sizes);
    const present = [...started].filter((entry): entry is [string, Contender] => !('missing' in entry[1]));
    return { measured, profiles, facts: new Map(present.map(([id, { facts }]) => [id, facts])) };
  } finally {
    for (const contender of started.values()) if (!('missing' in contender)) await contender.stop();
  }
}

/** All of a model's measurements, missing. */
function absent(model: ModelName, { only }: Settings): ModelOutcome {
  const missing = 'the model is not here; sh scripts/smollm2.sh makes it';
  say(`${model}: missing: ${missing}`);
  const places = { folder: '', python: undefined, peers: undefined };
  const { measurements } = narrowed(planOf(model, places, model, FULL), only);
  return {
    measured: new Map(measurements.map(({ id }) => [id, { missing }])),
    facts: new Map(),
    profiles: [],
  };
}

async function main(): Promise<void> {
  const settings = readSettings(process.argv.slice(2));
  if (settings.help) return void process.stdout.write(HELP);
  const [load] = loadavg() as [number, number, number];
  if (load > 1) say(`note: other programs run (load ${load.toFixed(1)}): the figures will mean little`);
  const python = await findPython(new AbortController().signal);
  const outcomes: ModelOutcome[] = [];
  for (const model of settings.models) {
    const folder = await folderOf(model, settings.quick);
    if (folder) outcomes.push(await benchModel(model, settings, { folder, python, peers: settings.peers }));
    else outcomes.push(absent(model, settings));
  }
  await report(settings, outcomes, load);
}

async function report(settings: Settings, outcomes: readonly ModelOutcome[], load: number): Promise<void> {
  const sizes = settings.quick ? QUICK : FULL;
  const outcome: Outcome = {
    measured: new Map(outcomes.flatMap(({ measured }) => [...measured])),
    facts: new Map(outcomes.flatMap(({ facts }) => [...facts])),
    sizes,
  };
  const profiles = outcomes.flatMap((each) => each.profiles);
  const bars = judge(outcome);
  const record = {
    schemaVersion: 1,
    createdAt: new Date().toISOString(),
    commit: projectCommit(),
    machine: machineFacts(),
    runtime: runtimeFacts(),
    settings: { rounds: settings.rounds, quick: settings.quick, sizes },
    loadBefore: load,
    contenders: Object.fromEntries(outcome.facts),
    bars,
    figures: figures(outcome),
    samples: Object.fromEntries(outcome.measured),
    profiles,
  };
  // Before anything is printed: a reader who ends the pipe early loses no figure.
  await writeTextAtomically(settings.output, `${JSON.stringify(record, null, 1)}\n`);
  const bandwidthOf = (model: string): number =>
    median(outcome, `${model}/bandwidth/2`, ({ gigabytesPerSecond = 0 }: Timing) => gigabytesPerSecond);
  const text = [
    figuresTable(outcome),
    ...profiles.map(({ contender, kernels }) => {
      return `${contender}, by kernel\n${profileTable(kernels, bandwidthOf(contender.split('/')[0]!))}`;
    }),
    barsTable(bars),
    notes(settings, sizes),
  ];
  process.stdout.write(`${text.join('\n\n')}\n`);
  say(`written to ${settings.output}`);
}

function notes({ rounds, quick }: Settings, sizes: Sizes): string {
  const lines = [
    `${sizes.promptTokens} prompt and ${sizes.newTokens} new tokens, greedy, batch 1, medians of ${rounds} rounds in turns, each after a`,
    'warm-up as long as itself; only tfjs eager, uncached, which takes minutes, is measured once and without a warm-up.',
    `Short run: ${sizes.shortPromptTokens} prompt and ${sizes.shortNewTokens} new tokens. Compiled: two threads. Peers: their better number of threads, 1 or 2.`,
    'measured: whole generations, prompt included; a token: those after the first. What one run says moves by 15 %.',
  ];
  return (quick ? ['--quick: a tiny model, one round: these figures mean nothing.', ...lines] : lines).join(
    '\n',
  );
}

// Only when it is the program: tests import its parts.
if (process.argv[1]?.endsWith('bench.js')) {
  await main().catch((error: unknown) => {
    say(messageOf(error));
    process.exitCode = 1;
  });
}
