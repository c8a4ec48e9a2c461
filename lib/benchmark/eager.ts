// lib/benchmark/eager.ts: a loaded model -> a configuration that benchmark measures op by op.

import type { Configuration } from '../benchmark.js';
import { collect } from '../generate.js';
import type { Model } from '../model.js';
import type { ModelFacts } from '../results.js';
import { weightEntries } from '../tensor.js';

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

/** A way to run a model eagerly; its samples are the prompts' token ids. Greedy. */
export function eagerConfiguration(
  model: Model,
  {
    label,
    source,
    backend,
    cache,
    newTokens,
    ignoreEos = false,
  }: {
    readonly label: string;
    readonly source: string;
    readonly backend: string;
    readonly cache: boolean;
    readonly newTokens: number;
    readonly ignoreEos?: boolean;
  },
): Configuration<readonly number[]> {
  return {
    label,
    model: modelFacts(model, source),
    weights: model.weights,
    backend,
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

function notesOn(model: Model): string[] {
  const hasIntegers = [...weightEntries(model.params)].some(([, { kind }]) => kind !== 'float');
  return [
    ...(model.randomWeights ? ['random weights: only speed and memory mean anything'] : []),
    ...(hasIntegers ? ['integer weights run op by op are decoded at every use: right, but not fast'] : []),
  ];
}
