// lib/jit/targets/webgpu/kernels/selectEmbed.ts: an embedding whose rows a product reads as bytes: one dispatch leaves both.

import { embed } from '../generic/products.js';
import type { Selector } from '../select.js';
import { isOp } from './group.js';
import { sideWanted } from './sides.js';

export const selectEmbed: Selector = (steps, at, context) => {
  const step = steps[at];
  if (step?.kind !== 'kernel' || !isOp(step, 'Embed')) return undefined;
  const value = { ...context.output(step), place: step.outputs[0]! };
  const wanted = sideWanted(steps, at + 1, value, context);
  return wanted && { dispatches: embed(step, step.node, context, wanted), steps: 1 };
};
