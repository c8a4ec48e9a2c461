// lib/cli/configurations.ts: planned configurations -> the same, loaded, compiled and ready to be measured; their
// prompts.

import type { Backend } from '../backend.js';
import type { Configuration } from '../benchmark.js';
import { type InstructionSample, samplePrompt, syntheticPrompt } from '../dataset.js';
import type { GenerativeModel } from '../generate.js';
import type { Model } from '../model.js';
import type { Plan, PlannedConfiguration } from './benchmarkPlan.js';
import { loadRunner, type Runner, startBackend } from './load.js';
import { identify, resolveModel } from './models.js';
import type { Terminal } from './terminal.js';

export interface LoadedConfigurations {
  /** Any of the loaded ones: tokenizer and vocabulary are all the same. */
  readonly model: Model;
  /** In the plan's order. */
  readonly configurations: readonly Configuration<readonly number[]>[];
  /** Name of the GPU that computes, where one does. */
  readonly gpu?: string;
  /** What generates in a configuration. */
  runs(label: string): GenerativeModel;
  dispose(): Promise<void>;
}

/**
 * Starts the backend and loads each kind of weights once for each target: configurations that differ in the cache
 * alone share them.
 * @throws Error as startBackend and loadRunner; nothing stays loaded then
 */
export async function loadConfigurations(
  terminal: Terminal,
  name: string,
  plan: Pick<Plan, 'configurations' | 'backend' | 'newTokens' | 'ignoreEos'>,
): Promise<LoadedConfigurations> {
  const backend = await startBackend(plan.backend);
  const runners = new Map<string, Runner>();
  const dispose = async () => {
    for (const runner of runners.values()) await runner.dispose();
  };
  try {
    for (const planned of plan.configurations) {
      const key = runnerKey(planned);
      if (!runners.has(key)) runners.set(key, await loadRunner(terminal, name, planned));
    }
    const runnerOf = (planned: PlannedConfiguration) => runners.get(runnerKey(planned))!;
    const { compiledConfiguration, eagerConfiguration } = await import('../benchmark/eager.js');
    const { source } = identify(resolveModel(name));
    return {
      model: runnerOf(plan.configurations[0]!).model,
      configurations: plan.configurations.map((planned) => {
        const { model, compiled } = runnerOf(planned);
        const { label, cache, batch } = planned;
        const { newTokens, ignoreEos } = plan;
        const options = { label, source, backend: backend.name, cache, newTokens, ignoreEos, batch };
        return compiled
          ? compiledConfiguration(model, compiled, options)
          : eagerConfiguration(model, options);
      }),
      ...gpuOf(backend, [...runners.values()]),
      runs: (label) => runnerOf(plan.configurations.find((planned) => planned.label === label)!).runs,
      dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** Configurations with the same key share a runner: one model in one form. */
export function runnerKey({ target, weights, mode }: PlannedConfiguration): string {
  return `${target} ${weights} ${mode}`;
}

/** The GPU that tfjs or a compiled model computes on, if any does. */
function gpuOf({ name, device }: Backend, runners: readonly Runner[]): { gpu?: string } {
  if (name === 'webgpu' || device.endsWith('CUDA GPU')) return { gpu: device };
  const compiledFor = runners.map(({ compiled }) => compiled?.report().device).find(Boolean);
  return compiledFor ? { gpu: compiledFor } : {};
}

/** Token ids of a sample; made up for a model without tokenizer. */
export function promptOf(
  { tokenizer, vocabSize }: Pick<Model, 'tokenizer' | 'vocabSize'>,
  sample: InstructionSample,
  i: number,
  { promptTokens }: Pick<Plan, 'promptTokens'>,
): number[] {
  return tokenizer ? samplePrompt(tokenizer, sample) : syntheticPrompt(i, promptTokens, vocabSize);
}
