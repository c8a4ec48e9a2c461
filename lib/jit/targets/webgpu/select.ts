// lib/jit/targets/webgpu/select.ts: which kernels the steps of a plan get: specialised ones first, asked in order, then
// the generic one. README.md beside this says how to add one.

import type { Step } from '../../steps.js';
import type { LowerContext } from './context.js';
import type { Dispatch } from './dispatch.js';
import { selectAttend } from './kernels/selectAttend.js';
import { selectAttendMatrices } from './kernels/selectAttendMatrices.js';
import { selectEmbed } from './kernels/selectEmbed.js';
import { selectHeads } from './kernels/selectHeads.js';
import { selectMatmul } from './kernels/selectMatmul.js';
import { selectMatrices } from './kernels/selectMatrices.js';
import { selectMatvec } from './kernels/selectMatvec.js';

/** Dispatches that stand for some steps of a plan, from the one that was asked about on. */
export interface Selection {
  readonly dispatches: readonly Dispatch[];
  readonly steps: number;
}

/** Looks at the steps of one level (the plan's own, or a loop's) from `at` on. */
export type Selector = (steps: readonly Step[], at: number, context: LowerContext) => Selection | undefined;

/** Specialised kernels, the most particular first. */
export const selectors: readonly Selector[] = [
  selectMatvec,
  selectMatrices,
  selectMatmul,
  selectAttend,
  selectAttendMatrices,
  selectHeads,
  selectEmbed,
];

/** The first selection that fits. */
export function selectKernels(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  if (context.kernels === 'plain') return undefined;
  for (const selector of selectors) {
    const selection = selector(steps, at, context);
    if (selection) return selection;
  }
  return undefined;
}
