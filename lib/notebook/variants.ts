// Ways to run one model, by name: 'eager-uncached-f32', 'wasm-cached-int8'. In: names and a model's folder. Out: loaded
// models, compiled where the name says so, and configurations that benchmark measures. Source: own.

import { compiledConfiguration, eagerConfiguration } from '../benchmark/eager.js';
import type { Configuration } from '../benchmark.js';
import { type PlannedConfiguration, parseConfiguration } from '../cli/benchmarkPlan.js';
import { identify } from '../cli/models.js';
import { type CompiledModel, compileModel } from '../compile.js';
import type { GenerativeModel } from '../generate.js';
import { loadModel, type Model } from '../model.js';

/** A way to run a model, ready to generate. */
export interface Variant extends PlannedConfiguration {
  readonly model: Model;
  /** What generates: the model itself, or its compiled form. */
  readonly runs: GenerativeModel;
  /** The same as `runs`; null when eager. */
  readonly compiled: CompiledModel | null;
}

/**
 * Loads a model as often as the names need it: those that differ in the cache alone share weights and programs.
 * @param names TARGET-cached-WEIGHTS or TARGET-uncached-WEIGHTS, as `response-time benchmark` takes them
 * @throws RangeError for a name that is none (says what was expected)
 */
export async function loadVariants(
  folder: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Variant[]> {
  const plans = names.map(parseConfiguration); // a misspelled name is noticed before anything is loaded
  const loaded = new Map<string, Pick<Variant, 'model' | 'runs' | 'compiled'>>();
  const variants: Variant[] = [];
  for (const plan of plans) {
    const key = `${plan.target} ${plan.weights}`;
    const shared = loaded.get(key) ?? (await load(folder, plan, signal));
    loaded.set(key, shared);
    variants.push({ ...plan, ...shared });
  }
  return variants;
}

async function load(folder: string, { target, weights }: PlannedConfiguration, signal: AbortSignal) {
  signal.throwIfAborted();
  const model = await loadModel(folder, { name: identify(folder).name, scheme: { name: weights }, signal });
  if (target === 'eager') return { model, runs: model, compiled: null };
  const compiled = await compileModel(model, { target, moveWeights: true });
  return { model, runs: compiled, compiled };
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
  for (const owner of new Set(variants.map(({ model, compiled }) => compiled ?? model)))
    await owner.dispose();
}
