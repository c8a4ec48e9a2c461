// Ways to run one model, by name: 'eager-uncached-f32', 'wasm-cached-int8'. In: names and a model's folder. Out: loaded
// models, compiled where the name says so, and configurations that benchmark measures. Source: own.

import type { BackendName } from '../backend.js';
import { compiledConfiguration, eagerConfiguration } from '../benchmark/eager.js';
import type { Configuration } from '../benchmark.js';
import { type PlannedConfiguration, parseConfiguration } from '../cli/benchmarkPlan.js';
import { identify } from '../cli/models.js';
import { type CompiledModel, compileModel } from '../compile.js';
import type { GenerativeModel } from '../generate.js';
import type { TargetName } from '../jit/jit.js';
import { loadModel, type Model } from '../model.js';
import type { SchemeName } from '../quantize.js';
import { progressBar } from './display.js';

/** The same configurations, the compiled ones of them on this target: 'wasm-cached-int8' -> 'webgpu-cached-int8'. */
export function onTarget(names: readonly string[], target: TargetName): string[] {
  return names.map((name) =>
    parseConfiguration(name).target === 'eager' ? name : name.replace(/^\w+/, target),
  );
}

/**
 * What `check` takes as `soft` for a claim that the cache saves time op by op.
 * @returns true where time goes with the work; of a GPU, why it need not
 */
export function ifCachePays(backend: BackendName): string | true {
  if (backend !== 'webgpu') return true;
  return 'op by op a GPU spends its time on launching operations: few tokens take as long as one';
}

/** A way to run a model, ready to generate. */
export interface Variant extends PlannedConfiguration {
  readonly model: Model;
  /** What generates: the model itself, or its compiled form. */
  readonly runs: GenerativeModel;
  /** The same as `runs`; null when eager. */
  readonly compiled: CompiledModel | null;
}

/**
 * Loads a model once for each kind of weights that the names ask for, and compiles it once for each target. Shows its
 * progress.
 * @param names TARGET-cached-WEIGHTS or TARGET-uncached-WEIGHTS, as `response-time benchmark` takes them
 * @throws RangeError for a name that is none (says what was expected)
 */
export async function loadVariants(
  folder: string,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Variant[]> {
  const plans = names.map(parseConfiguration); // a misspelled name is noticed before anything is loaded
  const kinds = new Set(plans.map(({ weights }) => weights));
  const [floats, integers] = [FLOATS.filter((kind) => kinds.has(kind)), [...kinds].filter(isInteger)];
  const programCount = new Set(plans.filter(isCompiled).map(programKey)).size;
  const bar = progressBar(`Loading ${identify(folder).name}`, kinds.size + programCount);
  const models = new Map<SchemeName, Model>();
  const programs = new Map<string, CompiledModel>();
  const next = (note: string) => {
    signal.throwIfAborted();
    bar.update(models.size + programs.size, note);
  };
  const loadKind = async (weights: SchemeName) => {
    next(weights);
    const loaded = models.get('f32') ?? models.get('stored');
    const options = { name: identify(folder).name, scheme: { name: weights }, loaded, signal };
    models.set(weights, await loadModel(folder, options));
  };
  const compileKind = async (weights: SchemeName) => {
    const own = plans.filter((plan) => plan.weights === weights);
    const shared = new Set(own.map(programKey)).size > 1;
    for (const plan of own.filter(isCompiled)) {
      if (programs.has(programKey(plan))) continue;
      const { target, mode } = plan;
      next(`${weights} to ${target}`);
      // Weights move into the target where nobody else needs them, so that there is one copy in memory.
      const compiled = await compileModel(models.get(weights)!, { target, mode, moveWeights: !shared });
      programs.set(programKey(plan), compiled);
    }
  };
  // Integers are made from the floats that are there, which must not have moved before.
  for (const weights of floats) await loadKind(weights);
  for (const weights of integers) {
    await loadKind(weights);
    await compileKind(weights);
  }
  for (const weights of floats) await compileKind(weights);
  bar.end();
  return plans.map((plan) => {
    const compiled = programs.get(programKey(plan)) ?? null;
    const model = models.get(plan.weights)!;
    return { ...plan, model, runs: compiled ?? model, compiled };
  });
}

const FLOATS: readonly SchemeName[] = ['stored', 'f32'];
const isInteger = (weights: SchemeName) => !FLOATS.includes(weights);
const isCompiled = (
  plan: PlannedConfiguration,
): plan is PlannedConfiguration & { readonly target: TargetName } => plan.target !== 'eager';
const programKey = ({ target, mode, weights }: PlannedConfiguration) => `${target} ${mode} ${weights}`;

/** @param backend the tfjs backend that was started: what an eager variant runs on */
export function variantConfiguration(
  { label, cache, batch, model, compiled }: Variant,
  {
    backend,
    ...work
  }: { readonly backend: string; readonly newTokens: number; readonly ignoreEos?: boolean },
): Configuration<readonly number[]> {
  const options = { ...work, label, cache, batch, backend, source: identify(model.folder).source };
  return compiled ? compiledConfiguration(model, compiled, options) : eagerConfiguration(model, options);
}

/** Name of the GPU that compiled variants run on, for their records; undefined where none does. */
export function gpuOf(variants: readonly Variant[]): string | undefined {
  return variants.flatMap(({ compiled }) => compiled?.report().device ?? [])[0];
}

/** Frees models and programs. */
export async function disposeVariants(variants: readonly Variant[]): Promise<void> {
  for (const compiled of new Set(variants.map((variant) => variant.compiled))) await compiled?.dispose();
  for (const model of new Set(variants.map((variant) => variant.model))) model.dispose();
}
