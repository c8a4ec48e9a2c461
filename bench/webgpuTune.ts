// bench/webgpuTune.ts: `node bench/dist/webgpuTune.js [FILE]`: how fast each way to cut a matrix-vector kernel is on this
// GPU, for the products of a token of Mistral-7B and GPT-2. What targets/webgpu/kernels/tuning.ts takes by default comes
// from here.

import { writeFileSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { allocate } from 'response-time/cache';
import { decodeLoop } from 'response-time/compile/decode';
import { optimize } from 'response-time/jit/optimize';
import { groupKernels } from 'response-time/jit/passes/groupKernels';
import { planMemory } from 'response-time/jit/plan';
import type { Mode } from 'response-time/jit/target';
import { openGpu } from 'response-time/jit/targets/webgpu/device';
import { weightBytes } from 'response-time/jit/targets/webgpu/kernels/candidates';
import { type Timing, type TunableProblem, tuneMatvec } from 'response-time/jit/targets/webgpu/kernels/tune';
import { matvecShape } from 'response-time/jit/targets/webgpu/kernels/tuning';
import { lowerPlan } from 'response-time/jit/targets/webgpu/lower';
import { traceFunction } from 'response-time/jit/trace';
import { cacheSpecOf } from 'response-time/models/layers';
import { GREEDY } from 'response-time/sample';
import { randomModelInMemory } from './webgpuModel.js';

interface Case {
  readonly model: 'mistral-7b-instruct-v0.2' | 'gpt2';
  readonly scheme: 'stored' | 'int8' | 'int4';
  readonly mode: Mode;
  readonly batch?: number;
}

const mistral = 'mistral-7b-instruct-v0.2';
const cases: readonly Case[] = [
  { model: mistral, scheme: 'int8', mode: 'fast' },
  { model: mistral, scheme: 'int8', mode: 'exact' },
  { model: mistral, scheme: 'int4', mode: 'fast' },
  { model: mistral, scheme: 'stored', mode: 'exact' },
  { model: mistral, scheme: 'int8', mode: 'fast', batch: 8 },
  { model: 'gpt2', scheme: 'stored', mode: 'exact' },
];

await tf.setBackend('cpu');
const gpu = await openGpu();
console.log(`# ${gpu.name} ${JSON.stringify(gpu.features)}`);

/** The products of a token, with all that the decode loop has around them. */
function problemsOf({ model: name, scheme, mode, batch = 1 }: Case): ReadonlyMap<string, TunableProblem> {
  const model = randomModelInMemory(name, { name: scheme, groupSize: 128 } as never, 2);
  const loop = decodeLoop(model.forwardFunction);
  const column = (value: number) => tf.tensor1d(new Array<number>(batch).fill(value), 'int32');
  const cache = allocate(cacheSpecOf(model.config, 256), batch, 'fixed');
  const ended = tf.cast(column(0), 'bool') as tf.Tensor1D;
  const carry = { token: column(1), position: column(5), left: column(9), ended, cache };
  const traced = traceFunction(
    (params, begun, key, eosIds) =>
      loop(params as never, begun as never, key as never, eosIds as never, { ...GREEDY, seed: 0 }, 16),
    [model.params, carry, tf.tensor1d([1, 2, 3, 4]), tf.tensor1d([-1], 'int32')],
  );
  const { graph, groups } = groupKernels(optimize(traced.graph));
  const plan = planMemory(graph, [], groups, { alignmentBytes: 256, zeroedOutputs: true });
  return lowerPlan(plan, { features: gpu.features, bindingBytes: 2 ** 31 - 4, mode }).problems;
}

const all: Record<string, readonly Timing[]> = {};
for (const each of cases) {
  const problems = problemsOf(each);
  const started = performance.now();
  const most = Number(process.env.TUNE_MOST ?? 90);
  const results = await tuneMatvec(gpu, [...problems.values()], { most });
  const { model, scheme, mode, batch = 1 } = each;
  const name = `${model} ${scheme} ${mode} x${batch}`;
  console.log(`# ${name}: ${((performance.now() - started) / 1000).toFixed(1)} s`);
  for (const [key, { problem }] of problems) {
    const timings = results.get(key)!;
    const gigabytes = weightBytes(problem) / 1e9;
    const line = ({ shape, microseconds }: Timing): string => {
      const { rows, lanes, rowsPerGroup, splits, unroll } = shape;
      const speed = ((1e6 * gigabytes) / microseconds).toFixed(0);
      return `${microseconds.toFixed(1)}us ${speed}GB/s R${rows}.L${lanes}.P${rowsPerGroup}.S${splits}.U${unroll}`;
    };
    const own = JSON.stringify(matvecShape(gpu.features, problem));
    const place = timings.findIndex(({ shape }) => JSON.stringify(shape) === own);
    const best = timings.slice(0, 4).map(line).join(' | ');
    const rest = place < 0 ? '' : ` | default ${line(timings[place]!)} (${place + 1} of ${timings.length})`;
    console.log(`${key}: ${best}${rest}`);
    all[`${name}: ${key}`] = timings.slice(0, 30);
  }
}
const [file] = process.argv.slice(2);
if (file) writeFileSync(file, `${JSON.stringify(all, null, 2)}\n`);
gpu.close();
process.exit();
