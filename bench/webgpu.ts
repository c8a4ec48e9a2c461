// bench/webgpu.ts: `node bench/dist/webgpu.js`: models of true shapes and random Weights on this machine's GPU.
// Each configuration -> a Run; with --profile also the time of each kernel beside the bytes that it moves.

import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { benchmark } from 'response-time/benchmark';
import { compiledConfiguration } from 'response-time/benchmark/eager';
import { type CompiledModel, compileModel } from 'response-time/compile';
import { collect } from 'response-time/generate';
import { generateBatch } from 'response-time/generateBatch';
import { closeTarget, type Mode, targetMemory } from 'response-time/jit';
import type { Model } from 'response-time/model';
import type { Scheme } from 'response-time/quantize';
import type { RandomShapeName } from 'response-time/randomModel';
import { randomModelInMemory } from './webgpuModel.js';
import { describeRun, keepRun } from './webgpuRun.js';
import { atDepth, describeWork, notesOn, parseWork, promptOf, type Work } from './webgpuWork.js';

export const HELP = `node bench/dist/webgpu.js [options]

Measures models of published shapes with random weights on this machine's GPU: speed and memory only.
  --models NAMES        of randomShape, by comma (default: mistral-7b-instruct-v0.2)
  --configurations LIST scheme and mode, such as 'int8 fast,int8 exact,int4 fast,stored exact' (the default);
                        stored is float16
  --work LIST           PROMPT+NEW tokens, then @DEPTH for a token deep in a text and xBATCH for several at once, such as
                        '32+50,2048+2,32+50@8000,32+50x8', done in this order (default: 32+50)
  --repeats COUNT       after two generations of warm-up (default: 10)
  --group SIZE          of int4 and int8-group: 32, 64 or 128 (default: 128)
  --layers COUNT        fewer than the model has, to try the command
  --profile             times each kernel of the decode program once more
  --commit NAME         for the records, where git is not there
  --output FOLDER       (default: results/latest/webgpu)
`;

const text = { type: 'string' } as const;
const flag = { type: 'boolean', default: false } as const;

interface Settings {
  readonly work: readonly Work[];
  readonly repeats: number;
  readonly group: 32 | 64 | 128;
  readonly layers: number | undefined;
  readonly profile: boolean;
  readonly commit: string | undefined;
  readonly output: string;
}

/** All work of one model in one form, which is bound once. */
async function measure(name: RandomShapeName, scheme: Scheme, mode: Mode, settings: Settings): Promise<void> {
  const label = `${name} ${scheme.name === 'stored' ? 'f16' : scheme.name} ${mode}`;
  const started = performance.now();
  const model = randomModelInMemory(name, scheme, settings.layers);
  const compiled = await compileModel(model, { target: 'webgpu', mode, moveWeights: true });
  console.log(`# ${label}: bound in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  try {
    for (const [i, work] of settings.work.entries())
      await measureWork(model, compiled, `${label}${describeWork(work)}`, work, i > 0, settings);
    for (const work of settings.profile ? settings.work : []) {
      console.log(`# ${describeWork(work) || 'as above'}, by kernel`);
      console.log(await profile(compiled, promptOf(work, model.vocabSize), work.batch));
    }
  } finally {
    await compiled.dispose();
    await closeTarget('webgpu');
  }
}

async function measureWork(
  model: Model,
  compiled: CompiledModel,
  label: string,
  work: Work,
  isLater: boolean,
  { repeats, commit, output }: Settings,
): Promise<void> {
  const { newTokens, batch } = work;
  const options = {
    ...{ label, source: 'random weights, in memory', backend: 'webgpu', cache: true, newTokens },
    ...{ ignoreEos: true, batch },
  };
  const configuration = compiledConfiguration(
    model,
    atDepth(compiled, work.depth - work.promptTokens),
    options,
  );
  const before = compiled.report();
  const gpuBytes = (): number => Object.values(targetMemory('webgpu')).reduce((sum, bytes) => sum + bytes, 0);
  const run = await benchmark(
    {
      ...configuration,
      memory: () => ({ ...configuration.memory(), gpuBytes: gpuBytes() }),
      compile: () => {
        const { compilations, compileMs } = compiled.report();
        return { compilations: compilations - before.compilations, compileMs: compileMs - before.compileMs };
      },
      notes: [
        ...(configuration.notes ?? []),
        ...notesOn(work),
        ...(isLater ? ['gpuBytes and compile are of a process that had done other work before'] : []),
      ],
    },
    {
      ...{ samples: [promptOf(work, model.vocabSize)], warmUp: 2, repeats },
      ...(before.device ? { gpu: before.device } : {}),
    },
  );
  const kept = keepRun(run, output, commit);
  const latencies = (run.samples.perTokenMs ?? []).flat().sort((a, b) => a - b);
  console.log(
    `${describeRun(kept)}, a token p50 ${latencies[latencies.length >> 1]?.toFixed(3)} ms, ` +
      `${compiled.decodeProgram.report().kernels} steps, compiled in ${((run.compile?.compileMs ?? 0) / 1000).toFixed(1)} s`,
  );
}

/** Where a token's time goes: kernels with times, those alike put together. */
async function profile(
  compiled: CompiledModel,
  promptIds: readonly number[],
  batch: number,
): Promise<string> {
  process.env.RT_PROFILE = '1';
  process.env.RT_DEBUG = '2';
  const lines: string[] = [];
  const write = process.stderr.write.bind(process.stderr);
  process.stderr.write = ((chunk: string) => {
    lines.push(chunk);
    return true;
  }) as typeof process.stderr.write;
  try {
    const options = { maxNewTokens: 17, ignoreEos: true };
    if (batch === 1) await collect(compiled, promptIds, options);
    else await generateBatch(compiled, new Array<readonly number[]>(batch).fill(promptIds), options);
  } finally {
    process.stderr.write = write;
    delete process.env.RT_DEBUG;
  }
  // The prompt's program was explained on stderr: its slow steps.
  const promptLines = lines
    .join('')
    .split('\n')
    .filter((line) => Number(/ (\d+\.\d{3}) +[\d.-]+ +[\d-]+ ?%?/.exec(line)?.[1] ?? 0) >= 0)
    .slice(0, 40);
  console.log(
    promptLines
      .filter((line) => !line.startsWith('  '))
      .slice(0, 26)
      .join('\n'),
  );
  const { kernels } = compiled.decodeProgram.explain();
  // A dispatch that does several steps has the time of its first one: the rest has none.
  const dispatches: { key: string; ms: number; bytes: number }[] = [];
  for (const { op, shapes, ms, bytes, depth } of kernels) {
    if (depth === 0) continue;
    const last = dispatches.at(-1);
    if (last && !ms) {
      last.key += ` + ${op} ${shapes.slice(0, 40)}`;
      last.bytes += bytes;
    } else dispatches.push({ key: `${op} ${shapes.slice(0, 40)}`, ms: ms ?? 0, bytes });
  }
  const groups = new Map<string, { ms: number; bytes: number; count: number }>();
  for (const { key, ms, bytes } of dispatches) {
    const group = groups.get(key) ?? { ms: 0, bytes: 0, count: 0 };
    groups.set(key, { ms: group.ms + ms, bytes: group.bytes + bytes, count: group.count + 1 });
  }
  const rounds = 16; // run, of 1,024 planned, which the bytes are counted for
  const planned = 1024;
  const rows = [...groups].sort(([, a], [, b]) => b.ms - a.ms).slice(0, 16);
  return rows
    .map(([key, { ms, bytes, count }]) => {
      const us = (1000 * ms) / rounds / count;
      return `  ${us.toFixed(1)} us x${count}  ${(bytes / planned / count / 1e3 / Math.max(1e-9, us)).toFixed(0)} GB/s  ${key.slice(0, 150)}`;
    })
    .join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      ...{ models: text, configurations: text, work: text, repeats: text, group: text, layers: text },
      ...{ commit: text, output: text, profile: flag, help: flag },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  await tf.setBackend('cpu');
  const settings: Settings = {
    work: (values.work ?? '32+50').split(',').map(parseWork),
    repeats: Number(values.repeats ?? 10),
    group: Number(values.group ?? 128) as Settings['group'],
    layers: values.layers === undefined ? undefined : Number(values.layers),
    profile: values.profile ?? false,
    commit: values.commit,
    output: resolve(values.output ?? 'results/latest/webgpu'),
  };
  for (const name of (values.models ?? 'mistral-7b-instruct-v0.2').split(',')) {
    const list = values.configurations ?? 'int8 fast,int8 exact,int4 fast,stored exact';
    for (const each of list.split(',')) {
      const [scheme, mode] = each.trim().split(' ') as [Scheme['name'], Mode];
      try {
        await measure(name as RandomShapeName, { name: scheme, groupSize: settings.group }, mode, settings);
      } catch (error) {
        console.log(`${name} ${each}: ${(error as Error).message}`);
        process.exitCode = 1;
      }
    }
  }
}

await main();
process.exit(); // a device that is still open keeps the process
