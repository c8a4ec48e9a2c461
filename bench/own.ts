// bench/own.ts: the project itself as a contender: one model, eager or compiled.
//   node own.js FOLDER SCHEME eager|wasm      threads by RT_THREADS

import * as tf from '@tensorflow/tfjs-core';
import { selectBackend } from 'response-time/backend';
import { allocate, disposeCache, type KVCache } from 'response-time/cache';
import { type CompiledModel, compileModel } from 'response-time/compile';
import { collect } from 'response-time/generate';
import { type Jitted, jit, scan } from 'response-time/jit';
import { loadModel, type Model } from 'response-time/model';
import { cacheSpecOf } from 'response-time/models/layers';
import type { SchemeName } from 'response-time/quantize';
import { GREEDY, randomKey, sampleToken } from 'response-time/sample';
import { type ParamTree, weightBytes, weightEntries } from 'response-time/tensor';
import {
  type GenerateWork,
  type KernelTime,
  serve,
  syntheticPrompt,
  type Timing,
  type Work,
} from './protocol.js';

const CAPACITY = 256; // of the loops below; as compile.ts rounds it for 128 + 128 tokens

type Carry = { readonly token: tf.Tensor1D; readonly position: tf.Tensor1D; readonly cache: KVCache };
type Loop = Jitted<[ParamTree, Carry, tf.Tensor1D, number], unknown>;

/** Bytes of weights that a token reads: all, but of a table of positions one row. */
function bytesOfToken(params: ParamTree): number {
  return [...weightEntries(params)]
    .filter(([path]) => !/\bwpe\b/.test(path))
    .reduce((sum, [, weight]) => sum + weightBytes(weight), 0);
}

async function generate(
  model: Model,
  compiled: CompiledModel | null,
  { promptTokens, newTokens, cache = true }: GenerateWork,
): Promise<Timing> {
  const prompt = syntheticPrompt(0, promptTokens, model.vocabSize);
  const options = { maxNewTokens: newTokens, useCache: cache, ignoreEos: true };
  const { totalMs, firstTokenMs, newIds } = await collect(compiled ?? model, prompt, options);
  return { totalMs, firstTokenMs, newTokens: newIds.length, threads: compiled?.report().threads ?? 1 };
}

/** The decode loop of compile.ts for any number of rows, without an end. */
function decodeLoop({ forwardFunction }: Model): Loop {
  const loop = (params: ParamTree, begun: Carry, key: tf.Tensor1D, steps: number) =>
    scan(
      ({ token, position, cache }: Carry) => {
        const batch = token.shape[0];
        const tokens = tf.reshape(token, [batch, 1]) as tf.Tensor2D;
        const one = tf.ones([batch], 'int32') as tf.Tensor1D;
        const output = forwardFunction(params, { tokens, start: position, count: one }, cache);
        const next = tf.add(position, one) as tf.Tensor1D;
        const id = tf.cast(sampleToken(output.logits, GREEDY, key, next), 'int32') as tf.Tensor1D;
        return { carry: { token: id, position: next, cache: output.cache }, output: id };
      },
      begun,
      steps,
    );
  return jit(loop, { target: 'wasm', donate: [1], name: 'bench decode' });
}

function carryAt(model: Model, batch: number, depth: number): Carry {
  return {
    token: tf.fill([batch], 1, 'int32') as tf.Tensor1D,
    position: tf.fill([batch], depth, 'int32') as tf.Tensor1D,
    cache: allocate(cacheSpecOf(model.config, Math.min(CAPACITY, model.maxPositions)), batch, 'fixed'),
  };
}

async function decodeRows(
  loop: Loop,
  model: Model,
  work: Work & { readonly kind: 'batch' },
): Promise<Timing> {
  const carry = carryAt(model, work.batch, work.depth);
  const key = randomKey(0);
  const begun = performance.now();
  const result = (await loop(model.params, carry, key, work.steps)) as {
    readonly carry: Carry;
    readonly outputs: tf.Tensor;
    readonly steps: tf.Tensor;
  };
  const totalMs = performance.now() - begun;
  const { token, position, cache } = result.carry;
  disposeCache(cache);
  disposeCache(carry.cache);
  tf.dispose([token, position, carry.token, carry.position, key, result.outputs, result.steps]);
  const threads = loop.report().threads ?? 1;
  return { totalMs, firstTokenMs: 0, newTokens: work.batch * work.steps, threads };
}

/** Times each kernel of the decode loop; those of one kind and shape together, by the token. */
async function profile(loop: Loop, model: Model, work: Work & { readonly kind: 'profile' }): Promise<Timing> {
  await loop.profile(model.params, carryAt(model, 1, work.depth), randomKey(0), work.steps);
  const kernels = new Map<string, KernelTime>();
  for (const { depth, op, shapes, ms, bytes } of loop.explain({ bandwidthGBps: 1 }).kernels) {
    if (depth === 0) continue; // what runs once, and the loop itself
    const name = `${op} ${shapes}`;
    const before = kernels.get(name) ?? { kernel: name, count: 0, ms: 0, bytes: 0 };
    kernels.set(name, {
      kernel: name,
      count: before.count + 1,
      ms: before.ms + (ms ?? 0) / work.steps,
      bytes: before.bytes + bytes / work.steps,
    });
  }
  const sorted = [...kernels.values()].sort((a, b) => b.ms - a.ms);
  const totalMs = sorted.reduce((sum, { ms }) => sum + ms, 0) * work.steps;
  return {
    totalMs,
    firstTokenMs: 0,
    newTokens: work.steps,
    kernels: sorted,
    threads: loop.report().threads ?? 1,
  };
}

async function main(): Promise<void> {
  const [folder, scheme, target] = process.argv.slice(2) as [string, SchemeName, 'eager' | 'wasm'];
  await selectBackend(target === 'eager' ? 'wasm' : 'cpu');
  const model = await loadModel(folder, { scheme: { name: scheme } });
  const weights = bytesOfToken(model.params); // before they move
  const { layers, kvHeads, headDim } = model.config;
  const compiled = target === 'wasm' ? await compileModel(model, { target, moveWeights: true }) : null;
  const loop = decodeLoop(model);
  const facts = {
    name: `${model.name} ${scheme} ${target}`,
    weightBytes: weights,
    cacheBytesPerToken: 2 * layers * kvHeads * headDim * Float32Array.BYTES_PER_ELEMENT,
  };
  await serve(facts, async (work): Promise<Timing> => {
    switch (work.kind) {
      case 'generate':
        return generate(model, compiled, work);
      case 'batch':
        return decodeRows(loop, model, work);
      case 'profile':
        return profile(loop, model, work);
      case 'bandwidth':
        throw new Error('bandwidth: expected to be asked of bandwidth.js');
    }
  });
  await compiled?.dispose();
}

await main();
