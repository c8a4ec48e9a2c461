// lib/jit/targets/wasm/work.ts: how much a step has to do: to choose what is worth splitting between threads, and to tell
// when threads wait for each other longer than they should.

import { costOf } from '../../cost.js';
import type { CopyStep, KernelStep, Plan, Step } from '../../steps.js';
import { NAP_MS } from './control.js';

type Graph = Plan['graph'];

function costOfStep(step: KernelStep | CopyStep, graph: Graph) {
  return step.kind === 'copy' ? { flops: 0, bytes: 2 * step.bytes } : costOf(step.node, graph);
}

/** Size of a step: floating-point operations and half its bytes. */
export function workOf(step: KernelStep | CopyStep, graph: Graph): number {
  const { flops, bytes } = costOfStep(step, graph);
  return flops + bytes / 2;
}

/** Of all steps, all rounds of their loops. */
export function totalWork(steps: readonly Step[], graph: Graph): number {
  return sumOver(steps, (step) => workOf(step, graph));
}

/** About what two threads reach on two cores (`npm run bench`). */
const BYTES_A_MS = 2e7;
const FLOPS_A_MS = 4e7;

/** Milliseconds that the steps should take, by a rough model: the longer of memory and arithmetic for each. */
export function expectedMs(steps: readonly Step[], graph: Graph): number {
  return sumOver(steps, (step) => {
    const { flops, bytes } = costOfStep(step, graph);
    return Math.max(bytes / BYTES_A_MS, flops / FLOPS_A_MS);
  });
}

function sumOver(steps: readonly Step[], measure: (step: KernelStep | CopyStep) => number): number {
  return steps.reduce((sum, step) => {
    const own = step.kind === 'scan' ? step.node.attrs.length * sumOver(step.steps, measure) : measure(step);
    return sum + own;
  }, 0);
}

/**
 * Naps at barriers that make two threads slower than one. With both cores free, one thread takes up to twice as long as
 * two: waiting for most of the time that the work should take eats up the gain. Never so few that chance decides.
 */
export const tooManyNaps = (expected: number): number => Math.max(8, Math.ceil((0.6 * expected) / NAP_MS));
