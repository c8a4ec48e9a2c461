// bench/webgpuEager.ts: `node bench/dist/webgpuEager.js`: the models of bench/webgpu.ts op by op on tfjs's own WebGPU
// backend, float32, on this machine's GPU: what compiling is compared with. Each configuration -> a Run.

import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { selectBackend } from 'response-time/backend';
import { benchmark } from 'response-time/benchmark';
import { eagerConfiguration } from 'response-time/benchmark/eager';
import type { Model } from 'response-time/model';
import { releaseTensors } from 'response-time/ops';
import type { RandomShapeName } from 'response-time/randomModel';
import { randomModelInMemory } from './webgpuModel.js';
import { describeRun, keepRun } from './webgpuRun.js';
import { describeWork, parseWork, promptOf } from './webgpuWork.js';

export const HELP = `node bench/dist/webgpuEager.js [options]

Measures models of published shapes with random float32 weights on tfjs's WebGPU backend, op by op.
  --models NAMES        of randomShape, by comma (default: gpt2)
  --cache LIST          cached, uncached or both by comma (default: both); uncached reads all again for each token
  --work PROMPT+NEW     tokens (default: 32+50)
  --repeats COUNT       after one generation of warm-up (default: 10)
  --layers COUNT        fewer than the model has, to try the command
  --commit NAME         for the records, where git is not there
  --output FOLDER       (default: results/latest/webgpu)
RESPONSE_TIME_WEBGPU, set to anything, accepts a GPU that is emulated on the CPU.
`;

const text = { type: 'string' } as const;
const { values } = parseArgs({
  options: {
    ...{ models: text, cache: text, work: text, repeats: text, layers: text, commit: text, output: text },
    help: { type: 'boolean', default: false },
  },
});

/** Bytes of all buffers that tfjs's backend holds, those that it keeps for later among them. */
function gpuBytes(): number {
  return (tf.memory() as { numBytesAllocatedInGPU?: number }).numBytesAllocatedInGPU ?? 0;
}

async function measure(model: Model, cache: boolean, gpu: string): Promise<void> {
  const work = parseWork(values.work ?? '32+50');
  if (work.batch > 1 || work.depth !== work.promptTokens)
    throw new RangeError(`--work: expected PROMPT+NEW alone, received ${values.work}`);
  const configuration = eagerConfiguration(model, {
    label: `${model.name} f32 tfjs eager${cache ? '' : ' uncached'}${describeWork(work)}`,
    ...{ source: 'random weights, in memory', backend: 'webgpu', cache, newTokens: work.newTokens },
    ignoreEos: true,
  });
  const run = await benchmark(
    { ...configuration, memory: () => ({ ...configuration.memory(), gpuBytes: gpuBytes() }) },
    { samples: [promptOf(work, model.vocabSize)], warmUp: 1, repeats: Number(values.repeats ?? 10), gpu },
  );
  console.log(describeRun(keepRun(run, resolve(values.output ?? 'results/latest/webgpu'), values.commit)));
}

async function main(): Promise<void> {
  if (values.help) return void process.stdout.write(HELP);
  const { device } = await selectBackend('webgpu', {
    softwareGpu: process.env.RESPONSE_TIME_WEBGPU !== undefined,
  });
  console.log(`# tfjs ${tf.version_core} on ${device}`);
  const layers = values.layers === undefined ? undefined : Number(values.layers);
  for (const name of (values.models ?? 'gpt2').split(',')) {
    const model = randomModelInMemory(name as RandomShapeName, { name: 'f32' }, layers);
    for (const kind of (values.cache ?? 'cached,uncached').split(','))
      await measure(model, kind !== 'uncached', device);
    releaseTensors(model.params);
  }
}

await main();
process.exit(); // a device that is still open keeps the process
