// bench/webgpu.ts: `node bench/dist/webgpu.js`: models of true shapes and random Weights on this machine's GPU.
// Each configuration -> a Run; with --profile also the time of each kernel beside the bytes that it moves.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { benchmark } from 'response-time/benchmark';
import { compiledConfiguration } from 'response-time/benchmark/eager';
import { type CompiledModel, compileModel } from 'response-time/compile';
import { collect } from 'response-time/generate';
import { closeTarget, type Mode, targetMemory } from 'response-time/jit';
import type { Scheme } from 'response-time/quantize';
import type { RandomShapeName } from 'response-time/randomModel';
import type { Run } from 'response-time/results';
import { randomModelInMemory } from './webgpuModel.js';

export const HELP = `node bench/dist/webgpu.js [options]

Measures models of published shapes with random weights on this machine's GPU: speed and memory only.
  --models NAMES        of randomShape, by comma (default: mistral-7b-instruct-v0.2)
  --configurations LIST scheme and mode, such as 'int8 fast,int8 exact,int4 fast,stored exact' (the default)
  --prompt TOKENS       (default: 32)
  --new TOKENS          (default: 50)
  --repeats COUNT       after one warm-up (default: 10)
  --group SIZE          of int4 and int8-group: 32, 64 or 128 (default: 128)
  --batch COUNT         the prompt so many times at once (default: 1)
  --layers COUNT        fewer than the model has, to try the command
  --profile             times each kernel of the decode program once more
  --commit NAME         for the records, where git is not there
  --output FOLDER       (default: results/latest/webgpu)
`;

const text = { type: 'string' } as const;
const flag = { type: 'boolean', default: false } as const;

interface Settings {
  readonly prompt: number;
  readonly newTokens: number;
  readonly repeats: number;
  readonly group: 32 | 64 | 128;
  readonly batch: number;
  readonly layers: number | undefined;
  readonly profile: boolean;
  readonly commit: string | undefined;
  readonly output: string;
}

async function measure(name: RandomShapeName, scheme: Scheme, mode: Mode, settings: Settings): Promise<void> {
  const batch = settings.batch > 1 ? ` x${settings.batch}` : '';
  const label = `${name} ${scheme.name === 'stored' ? 'f16' : scheme.name} ${mode}${batch}`;
  const started = performance.now();
  const model = randomModelInMemory(name, scheme, settings.layers);
  const compiled = await compileModel(model, { target: 'webgpu', mode, moveWeights: true });
  console.log(`# ${label}: bound in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  const { prompt, newTokens, repeats, commit, output } = settings;
  const { device } = compiled.report();
  try {
    const options = {
      label,
      source: 'random weights, in memory',
      backend: 'webgpu',
      cache: true,
      newTokens,
      ignoreEos: true,
      ...(settings.batch > 1 ? { batch: settings.batch } : {}),
    };
    const configuration = compiledConfiguration(model, compiled, options);
    const promptIds = Array.from({ length: prompt }, (_, i) => (i * 7919 + 13) % model.vocabSize);
    const gpuBytes = (): number =>
      Object.values(targetMemory('webgpu')).reduce((sum, bytes) => sum + bytes, 0);
    const measured = await benchmark(
      { ...configuration, memory: () => ({ ...configuration.memory(), gpuBytes: gpuBytes() }) },
      { samples: [promptIds], warmUp: 2, repeats, ...(device ? { gpu: device } : {}) },
    );
    const run: Run = commit ? { ...measured, commit } : measured;
    const last = compiled.decodeProgram.report();
    const latencies = (run.samples.perTokenMs ?? []).flat().sort((a, b) => a - b);
    console.log(
      `${label}: ${decodeSpeed(run).toFixed(1)} tok/s in decode, first token ${run.summary.firstTokenMs.p50.toFixed(2)} ms, ` +
        `${(gpuBytes() / 1e9).toFixed(2)} GB, a token p50 ${latencies[latencies.length >> 1]?.toFixed(3)} ms, ` +
        `${last.kernels} steps, compiled in ${(compiled.report().compileMs / 1000).toFixed(1)} s`,
    );
    mkdirSync(output, { recursive: true });
    writeFileSync(join(output, `${label.replaceAll(' ', '-')}.json`), `${JSON.stringify(run, null, 1)}\n`);
    if (settings.profile) console.log(await profile(compiled, promptIds));
  } finally {
    await compiled.dispose();
    await closeTarget('webgpu');
  }
}

/** Tokens a second after the first one: medians of whole generations. */
function decodeSpeed({ samples, batch }: Run): number {
  const speeds = samples.latencyMs.map((latency, i) => {
    return (1000 * (samples.newTokens[i]! - batch)) / (latency - samples.firstTokenMs[i]!);
  });
  return speeds.sort((a, b) => a - b)[speeds.length >> 1]!;
}

/** Where a token's time goes: kernels with times, those alike put together. */
async function profile(compiled: CompiledModel, promptIds: readonly number[]): Promise<string> {
  process.env.RT_PROFILE = '1';
  process.env.RT_DEBUG = '2';
  const lines: string[] = [];
  const write = process.stderr.write.bind(process.stderr);
  process.stderr.write = ((chunk: string) => {
    lines.push(chunk);
    return true;
  }) as typeof process.stderr.write;
  try {
    await collect(compiled, promptIds, { maxNewTokens: 17, ignoreEos: true });
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
      ...{ models: text, configurations: text, prompt: text, new: text, repeats: text, group: text },
      ...{ batch: text, layers: text, commit: text, output: text, profile: flag, help: flag },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  await tf.setBackend('cpu');
  const settings: Settings = {
    prompt: Number(values.prompt ?? 32),
    newTokens: Number(values.new ?? 50),
    repeats: Number(values.repeats ?? 10),
    group: Number(values.group ?? 128) as Settings['group'],
    batch: Number(values.batch ?? 1),
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
