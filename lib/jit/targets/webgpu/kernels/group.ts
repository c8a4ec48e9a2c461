// lib/jit/targets/webgpu/kernels/group.ts: steps of a plan that stand together (passes/groupKernels.ts) -> what each of
// them is to the product among them.

import type { StructuredNode } from '../../../graph.js';
import type { KernelStep, Place, Step } from '../../../steps.js';

type StepOf<Op extends KernelStep['node']['op']> = KernelStep & { readonly node: StructuredNode<Op> };

/** What follows one output of the product. */
export interface Chain {
  readonly rotary: StepOf<'Rotary'> | null;
  readonly append: StepOf<'CacheAppend'> | null;
  readonly largest: StepOf<'Reduce'> | null;
}

export interface LinearGroup {
  readonly norm: StepOf<'Norm'> | null;
  readonly linear: StepOf<'Linear'>;
  readonly chains: readonly Chain[]; // one an output
  readonly steps: number;
}

/** The group around a Linear that begins at this step; undefined where something else begins. */
export function readLinearGroup(steps: readonly Step[], at: number): LinearGroup | undefined {
  const members = membersFrom(steps, at);
  const norm = isOp(members[0], 'Norm') ? members[0] : null;
  const linear = members[norm ? 1 : 0];
  if (!isOp(linear, 'Linear')) return undefined;
  if (norm && !samePlace(norm.outputs[0]!, linear.inputs[0]!)) return undefined;
  let rest: readonly KernelStep[] = members.slice(norm ? 2 : 1);
  const chains = linear.outputs.map((output): Chain => {
    let place = output;
    const take = <Op extends KernelStep['node']['op']>(op: Op, input: number): StepOf<Op> | null => {
      const found = rest.find((step) => isOp(step, op) && samePlace(step.inputs[input]!, place));
      if (!found) return null;
      rest = rest.filter((step) => step !== found);
      place = found.outputs[0]!;
      return found as StepOf<Op>;
    };
    const rotary = take('Rotary', 0);
    return { rotary, append: take('CacheAppend', 1), largest: take('Reduce', 0) };
  });
  return rest.length === 0 ? { norm, linear, chains, steps: members.length } : undefined;
}

/** The kernels that stand together from this step on: itself, where it is in no group. */
export function membersFrom(steps: readonly Step[], at: number): KernelStep[] {
  const [first] = steps.slice(at, at + 1);
  if (first?.kind !== 'kernel') return [];
  const members: KernelStep[] = [];
  for (let i = at; ; i++) {
    const step = steps[i];
    const belongs =
      i === at || (first.group !== undefined && step?.kind === 'kernel' && step.group === first.group);
    if (!belongs) return members;
    members.push(step as KernelStep);
  }
}

export function isOp<Op extends KernelStep['node']['op']>(
  step: KernelStep | undefined,
  op: Op,
): step is StepOf<Op> {
  return step?.node.op === op;
}

export function samePlace(a: Place, b: Place): boolean {
  if (a.space === 'arena' || b.space === 'arena')
    return a.space === b.space && 'offset' in a && 'offset' in b && a.offset === b.offset;
  return a.space === b.space && a.index === b.index;
}
