// lib/jit/targets/webgpu/lower.ts: plan -> dispatches: for each step a specialised kernel where one fits, else the generic
// one; copies; loops. Then small dispatches that do not need each other become one (merge.ts).

import type { Kernel } from '../../kernels/kernel.js';
import type { CopyStep, KernelStep, Plan, Step } from '../../steps.js';
import { type ContextOptions, LowerContext } from './context.js';
import type { Dispatch, Item, LoweredPlan } from './dispatch.js';
import { attention, cachedAttention } from './generic/attention.js';
import { elementwise } from './generic/elementwise.js';
import { cacheAppend, rotary } from './generic/heads.js';
import { linear } from './generic/linear.js';
import { concat, copyWords, gather, gatherNd, scatterNd } from './generic/moves.js';
import { batchMatMul, embed } from './generic/products.js';
import { cumulative, norm, reduce, softmax, topK } from './generic/rows.js';
import type { TunableProblem } from './kernels/tune.js';
import { guarded, LoopWriter } from './loops.js';
import { mergeDispatches } from './merge.js';
import { selectKernels } from './select.js';

/** A lowered plan and the constants that it needs beside the plan's own. */
export interface Lowering extends LoweredPlan {
  readonly tables: readonly Float32Array[];
  /** Matrix-vector problems in it, by problemKey: what tuning may time. */
  readonly problems: ReadonlyMap<string, TunableProblem>;
}

/** Writes all dispatches of a plan. */
export function lowerPlan(plan: Plan, options: ContextOptions): Lowering {
  const lowerer = new Lowerer(new LowerContext(plan, options));
  const items = lowerer.level(plan.steps, null);
  const { scratchBytes, lastingBytes, step, tables, problems } = lowerer.context;
  return { items, scratchBytes, lastingBytes, loops: lowerer.loops, steps: step, tables, problems };
}

class Lowerer {
  loops = 0;

  constructor(readonly context: LowerContext) {}

  /** @param guard number of the loop whose end makes these steps do nothing; null where there is none */
  level(steps: readonly Step[], guard: number | null): Item[] {
    const items: Item[] = [];
    let pending: Dispatch[] = []; // up to the next loop
    const finish = (): void => {
      const { kernels, features } = this.context;
      const merged = kernels === 'plain' ? pending : mergeDispatches(pending, features.maxBuffers);
      for (const dispatch of merged)
        items.push({ kind: 'dispatch', dispatch: guard === null ? dispatch : guarded(dispatch, guard) });
      pending = [];
    };
    for (let at = 0; at < steps.length; ) {
      const step = steps[at]!;
      if (step.kind === 'scan') {
        finish();
        items.push(this.#loop(step, guard));
        at += 1;
        continue;
      }
      const selection = selectKernels(steps, at, this.context);
      pending.push(...(selection?.dispatches ?? genericKernels(step, this.context)));
      at += selection?.steps ?? 1;
      this.context.nextStep(selection?.steps ?? 1);
    }
    finish();
    return items;
  }

  #loop(step: Extract<Step, { kind: 'scan' }>, outer: number | null): Item {
    const number = this.loops++;
    const index = this.context.step;
    const isGuarded = step.until !== null || outer !== null;
    const writer = new LoopWriter(step, number, outer, this.context);
    const begin = writer.begin();
    this.context.nextStep(1);
    const body = this.level(step.steps, isGuarded ? number : null);
    const roundEnd = writer.roundEnd(index).map((dispatch): Item => ({ kind: 'dispatch', dispatch }));
    return {
      kind: 'loop',
      step,
      number,
      index,
      begin,
      body: [...body, ...roundEnd],
      end: writer.end(index),
    };
  }
}

/** The plain kernels of a step. */
export function genericKernels(step: KernelStep | CopyStep, context: LowerContext): readonly Dispatch[] {
  if (step.kind === 'copy') {
    const [from, to] = [context.place(step.from, step.bytes), context.place(step.to, step.bytes)];
    return copyWords(from, to, step.bytes / 4, context);
  }
  const { node } = step;
  switch (node.op) {
    case 'Elementwise':
      return elementwise(step, node, context);
    case 'Concat':
      return concat(step, node, context);
    case 'Reduce':
      return reduce(step, node, context);
    case 'Cumulative':
      return cumulative(step, node, context);
    case 'Gather':
      return gather(step, node, context);
    case 'GatherNd':
      return gatherNd(step, context);
    case 'ScatterNd':
      return scatterNd(step, node, context);
    case 'TopK':
      return topK(step, node, context);
    case 'BatchMatMul':
      return batchMatMul(step, node, context);
    case 'Linear':
      return linear(step, node, context);
    case 'Embed':
      return embed(step, node, context);
    case 'Norm':
      return norm(step, node, context);
    case 'Softmax':
      return softmax(step, node, context);
    case 'Rotary':
      return rotary({ ...step, node }, context);
    case 'CacheAppend':
      return cacheAppend(step, context);
    case 'CachedAttention':
      return cachedAttention(step, node, context);
    case 'Attention':
      return attention(step, node, context);
  }
}

/** Kernels of a lowered plan, each once. */
export function kernelsOf(items: readonly Item[]): ReadonlySet<Kernel> {
  const found = new Set<Kernel>();
  const visit = (item: Item): void => {
    if (item.kind === 'dispatch') found.add(item.dispatch.kernel);
    else {
      for (const { kernel } of [...item.begin, ...item.end]) found.add(kernel);
      item.body.forEach(visit);
    }
  };
  items.forEach(visit);
  return found;
}
