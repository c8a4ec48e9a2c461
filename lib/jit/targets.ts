// lib/jit/targets.ts: targets by name, each made on first use and shared by all compiled functions: Weights are bound
// once, and results of one function are another's arguments without a copy.

import type { Target } from './target.js';
import { createReferenceTarget } from './targets/reference/run.js';

export type TargetName = 'reference' | 'wasm' | 'webgpu';
export const targetNames: readonly TargetName[] = ['reference', 'wasm', 'webgpu'];

const makers: Readonly<Record<TargetName, () => Promise<Target>>> = {
  reference: async () => createReferenceTarget(),
  // Loaded when asked for: who only reads graphs need not start it.
  wasm: async () => (await import('./targets/wasm/run.js')).createWasmTarget(),
  webgpu: async () => (await import('./targets/webgpu/run.js')).createWebgpuTarget(),
};

/**
 * Rows of activations that a program on a target takes at once at best: a GPU reads each Weight once for all of them, and
 * each program costs it a wait; a processor's caches hold no more.
 */
export const targetRows: Readonly<Record<TargetName, number>> = { reference: 256, wasm: 256, webgpu: 2048 };

const opened = new Map<TargetName, Promise<Target>>();
const running = new Map<TargetName, Target>();

/** The target of that name. @throws RangeError for an unknown name (lists them) */
export function openTarget(name: TargetName): Promise<Target> {
  const make = makers[name];
  if (!make)
    throw new RangeError(`target: expected one of ${targetNames.join(', ')}, received ${String(name)}`);
  const target = opened.get(name) ?? make().then((made) => remember(name, made));
  opened.set(name, target);
  return target;
}

function remember(name: TargetName, target: Target): Target {
  running.set(name, target);
  return target;
}

/** The target of that name, if it is open by now. */
export function runningTarget(name: TargetName): Target | undefined {
  return running.get(name);
}

/** Bytes that a target holds now; all 0 if it was never used. */
export function targetMemory(name: TargetName): ReturnType<Target['memory']> {
  return running.get(name)?.memory() ?? { weightBytes: 0, bufferBytes: 0, arenaBytes: 0 };
}

/** Name of the device that a target computes on; null if it is none of its own, or was never used. */
export function targetDevice(name: TargetName): string | null {
  return running.get(name)?.device ?? null;
}

/** Ends a target's workers and frees its memory, if it was opened. */
export async function closeTarget(name: TargetName): Promise<void> {
  const target = opened.get(name);
  opened.delete(name);
  running.delete(name);
  await (await target)?.dispose();
}
