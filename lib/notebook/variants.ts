// Ways to run one model, by name: 'eager-uncached-f32', 'wasm-cached-int8'. In: names and a model's folder. Out: loaded
// models, compiled where the name says so, and configurations that benchmark measures. Source: own.

import { compiledConfiguration, eagerConfiguration } from '../benchmark/eager.js';
import type { Configuration } from '../benchmark.js';
import { type PlannedConfiguration, parseConfiguration } from '../cli/benchmarkPlan.js';
import { identify } from '../cli/models.js';
import { type CompiledModel, compileModel } from '../compile.js';
import type { GenerativeModel } from '../generate.js';
import { loadModel, type Model } from '../model.js';
import type { SchemeName } from '../quantize.js';

/** A way to run a model, ready to generate. */
export interface Variant extends PlannedConfiguration {
  readonly model: Model;
  /** What generates: the model itself, or its compiled form. */
  readonly runs: GenerativeModel;
  /** The same as `runs`; null when eager. */
  readonly compiled: CompiledModel | null;
}

/**
 * Loads a model once for each kind of weights that the names ask for, and compiles it once for each target.
 * @param names TARGET-cached-WEIGHTS or TARGET-uncached-WEIGHTS, as `response-time benchmark` takes them
 * @throws RangeError for a name that is none (says what was expected)
 */
export async function loadVariants(
  folder: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Variant[]> {
  const plans = names.map(parseConfiguration); // a misspelled name is noticed before anything is loaded
  const models = new Map<string, Model>();
  const programs = new Map<string, CompiledModel>();
  const variants: Variant[] = [];
  for (const plan of plans) {
    signal.throwIfAborted();
    const { target, weights } = plan;
    const model = models.get(weights) ?? (await load(folder, weights, signal));
    models.set(weights, model);
    if (target === 'eager') {
      variants.push({ ...plan, model, runs: model, compiled: null });
      continue;
    }
    const key = `${target} ${weights}`;
    // Weights move into the target where nobody else needs them, so that there is one copy in memory.
    const moveWeights = plans.every((other) => other.weights !== weights || other.target === target);
    const compiled = programs.get(key) ?? (await compileModel(model, { target, moveWeights }));
    programs.set(key, compiled);
    variants.push({ ...plan, model, runs: compiled, compiled });
  }
  return variants;
}

function load(folder: string, weights: SchemeName, signal: AbortSignal): Promise<Model> {
  return loadModel(folder, { name: identify(folder).name, scheme: { name: weights }, signal });
}

/** @param backend the tfjs backend that was started: what an eager variant runs on */
export function variantConfiguration(
  { label, cache, model, compiled }: Variant,
  {
    backend,
    ...work
  }: { readonly backend: string; readonly newTokens: number; readonly ignoreEos?: boolean },
): Configuration<readonly number[]> {
  const options = { ...work, label, cache, backend, source: identify(model.folder).source };
  return compiled ? compiledConfiguration(model, compiled, options) : eagerConfiguration(model, options);
}

/** Frees models and programs. */
export async function disposeVariants(variants: readonly Variant[]): Promise<void> {
  for (const compiled of new Set(variants.map((variant) => variant.compiled))) await compiled?.dispose();
  for (const model of new Set(variants.map((variant) => variant.model))) model.dispose();
}
