// lib/compile/load.ts: a model's folder -> the model in a target, compiled. Where the target's memory is not this
// process's, each tensor goes there as soon as it is read and quantized: a model larger than this machine's RAM will do.

import { type CompiledModel, type CompileOptions, compileModel } from '../compile.js';
import { bindWeight, type TargetName, unbind } from '../jit/jit.js';
import { type LoadOptions, loadModel, type Model } from '../model.js';
import type { ParamTree, Weight } from '../tensor.js';

/** Targets with memory of their own. The wasm target's is this process's, and it asks whether all fits beforehand. */
const ELSEWHERE: ReadonlySet<TargetName> = new Set(['webgpu']);

export interface LoadedAndCompiled {
  /** Its Weights are in the target: it says what the model is, and cannot be run eagerly. */
  readonly model: Model;
  readonly compiled: CompiledModel;
}

/**
 * Loads a model into a target and compiles it there.
 * @throws as loadModel and compileModel; nothing stays in the target then
 */
export async function loadCompiled(
  folder: string,
  { target, ...options }: Omit<CompileOptions, 'moveWeights'> & Omit<LoadOptions, 'place' | 'widen'>,
): Promise<LoadedAndCompiled> {
  const placed: Record<string, Weight> = {};
  const place = async (path: string, weight: Weight): Promise<void> => {
    placed[path] = weight;
    await bindWeight(weight, path, target);
  };
  try {
    const model = await loadModel(folder, ELSEWHERE.has(target) ? { ...options, place } : options);
    return { model, compiled: await compileModel(model, { ...options, target, moveWeights: true }) };
  } catch (error) {
    await unbind(placed as ParamTree, target).catch(() => {}); // the first error is the one to tell
    throw error;
  }
}
