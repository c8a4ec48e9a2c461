// lib/jit/targets.ts: targets by name, each made on first use and shared by all compiled functions: Weights are bound
// once, and results of one function are another's arguments without a copy.

import type { Target } from './target.js';
import { createReferenceTarget } from './targets/reference/run.js';

export type TargetName = 'reference' | 'wasm';
export const targetNames: readonly TargetName[] = ['reference', 'wasm'];

const makers: Readonly<Record<TargetName, () => Promise<Target>>> = {
  reference: async () => createReferenceTarget(),
  // Loaded when asked for: who only reads graphs need not start it.
  wasm: async () => (await import('./targets/wasm/run.js')).createWasmTarget(),
};

const opened = new Map<TargetName, Promise<Target>>();

/** The target of that name. @throws RangeError for an unknown name (lists them) */
export function openTarget(name: TargetName): Promise<Target> {
  const make = makers[name];
  if (!make)
    throw new RangeError(`target: expected one of ${targetNames.join(', ')}, received ${String(name)}`);
  const target = opened.get(name) ?? make();
  opened.set(name, target);
  return target;
}

/** Ends a target's workers and frees its memory, if it was opened. */
export async function closeTarget(name: TargetName): Promise<void> {
  const target = opened.get(name);
  opened.delete(name);
  await (await target)?.dispose();
}
