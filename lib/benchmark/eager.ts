// lib/benchmark/eager.ts: a loaded model -> a configuration that benchmark measures, op by op or compiled.

import type { CompiledModel } from '../compile.js';
import { collect, type GenerateOptions, type Generation, generate } from '../generate.js';
import { generateBatch } from '../generateBatch.js';
import type { Model } from '../model.js';
import type { ModelFacts } from '../results.js';
import { weightEntries } from '../tensor.js';
import type { Configuration } from './configuration.js';

/** What a record says of a model. @param source as in ModelFacts: 'embedded', the folder, or how it was made */
export function modelFacts(model: Model, source: string): ModelFacts {
  return {
    name: model.name,
    source,
    family: model.family,
    parameters: model.parameterCount,
    randomWeights: model.randomWeights,
  };
}

export interface ConfigurationOptions {
  readonly label: string;
  readonly source: string;
  readonly backend: string;
  readonly cache: boolean;
  readonly newTokens: number;
  readonly ignoreEos?: boolean;
  /** Texts generated at once, each from the same prompt; compiled and cached only. 1 unless given. */
  readonly batch?: number;
}

/** A way to run a model eagerly; its samples are the prompts' token ids. Greedy. */
export function eagerConfiguration(
  model: Model,
  { source, newTokens, cache, ignoreEos = false, ...rest }: ConfigurationOptions,
): Configuration<readonly number[]> {
  return {
    ...rest,
    model: modelFacts(model, source),
    weights: model.weights,
    target: 'eager',
    mode: 'eager',
    cache,
    newTokens,
    run: (promptIds, signal) =>
      collect(model, promptIds, { maxNewTokens: newTokens, useCache: cache, ignoreEos, signal }),
    memory: () => ({ weightBytes: model.weightBytes }),
    notes: notesOn(model),
  };
}

/** The same, compiled: with the cache, all tokens after the first come from one program. */
export function compiledConfiguration(
  model: Model,
  compiled: CompiledModel,
  options: ConfigurationOptions,
): Configuration<readonly number[]> {
  const { newTokens, cache, ignoreEos = false, batch = 1 } = options;
  return {
    ...eagerConfiguration(model, options),
    target: compiled.report().target,
    backend: compiled.report().target,
    mode: (cache ? 'scan' : 'jit') + (compiled.report().mode === 'fast' ? ', fast' : ''),
    prepare: (samples, signal) => prepareLengths(compiled, samples, options, signal),
    run: (promptIds, signal) => {
      const asked = { maxNewTokens: newTokens, ignoreEos, signal };
      if (batch > 1) return collectMany(compiled, promptIds, batch, asked);
      return collect(compiled, promptIds, { ...asked, useCache: cache });
    },
    memory: () => ({ weightBytes: model.weightBytes, arenaBytes: compiled.report().arenaBytes }),
    compile: () => {
      const { compilations, compileMs } = compiled.report();
      return { compilations, compileMs };
    },
    notes: randomNote(model),
  };
}

/** One prompt, `batch` times at once, as one generation: its tokens are those of all. */
async function collectMany(
  compiled: CompiledModel,
  promptIds: readonly number[],
  batch: number,
  options: GenerateOptions,
): Promise<Generation> {
  const all = await generateBatch(compiled, new Array<readonly number[]>(batch).fill(promptIds), options);
  const longest = all.reduce((a, b) => (a.totalMs >= b.totalMs ? a : b));
  return { ...longest, newIds: all.flatMap(({ newIds }) => newIds) };
}

/**
 * A prompt's program serves all lengths up to a power of two: two tokens are generated at one length of each class.
 * Without the cache every token is a prompt, one longer than the last.
 */
async function prepareLengths(
  compiled: CompiledModel,
  samples: readonly (readonly number[])[],
  { newTokens, cache, ignoreEos = false, batch = 1 }: ConfigurationOptions,
  signal: AbortSignal,
): Promise<void> {
  const classOf = (tokens: number) => Math.ceil(Math.log2(tokens));
  const prepared = new Set<string>();
  for (const ids of samples) {
    for (let more = 0; more < (cache ? 1 : newTokens); more++) {
      const key = `${classOf(ids.length + more)} ${classOf(ids.length + newTokens)}`;
      if (prepared.has(key)) continue;
      prepared.add(key);
      signal.throwIfAborted();
      const promptIds = [...ids, ...new Array<number>(more).fill(ids[0]!)];
      const options = { maxNewTokens: newTokens - more, useCache: cache, ignoreEos, signal };
      if (batch > 1) {
        await collectMany(compiled, promptIds, batch, { ...options, maxNewTokens: Math.min(2, newTokens) });
        continue;
      }
      let tokens = 0;
      for await (const _ of generate(compiled, promptIds, options)) if (++tokens === 2) break;
    }
  }
}

function randomNote({ randomWeights }: Model): string[] {
  return randomWeights ? ['random weights: only speed and memory mean anything'] : [];
}

function notesOn(model: Model): string[] {
  const hasIntegers = [...weightEntries(model.params)].some(([, { kind }]) => kind !== 'float');
  return [
    ...randomNote(model),
    ...(hasIntegers ? ['integer weights run op by op are decoded at every use: right, but not fast'] : []),
  ];
}
