// lib/jit/targets/webgpu/guard.ts: before an adapter's first result is believed: the kinds of kernels that a plan uses, on
// small inputs, against the reference interpreter. Done once an adapter and driver, remembered in the cache folder.

import type { ElementType, ElementValues } from '../../graph.js';
import { groupKernels } from '../../passes/groupKernels.js';
import { planMemory } from '../../plan.js';
import type { Plan } from '../../steps.js';
import type { BoundWeight, Executable, Mode, Target, TargetBuffer } from '../../target.js';
import { interpret } from '../reference/interpret.js';
import { planTakesHalves } from './context.js';
import { guardBlocks } from './guardBlocks.js';
import { type GuardCase, guardCases } from './guardCases.js';
import { readStored, writeStored } from './store.js';

/** Largest error of a kernel, of the largest value: of float32 arithmetic, and of products with signed bytes. */
const tolerances: Readonly<Record<Mode, number>> = { exact: 2e-5, fast: 3e-2 };
/** Of matrix units with float16 in the mode `exact`. */
const halvesTolerance = 2e-3;

export interface GuardOptions {
  readonly adapter: string;
  readonly mode: Mode;
  /** Whether what passed is kept for the next process. */
  readonly isKept: boolean;
}

/** What a guard needs of its target. */
export interface GuardTarget
  extends Pick<Target, 'bind' | 'unbind' | 'allocate' | 'release' | 'write' | 'planOptions'> {
  read(buffer: TargetBuffer, dtype: ElementType): ElementValues | Promise<ElementValues>;
  /** Compiles without guarding again. @param takesHalves what the whole plan says, of which this is a part */
  compile(plan: Plan, mode: Mode, takesHalves: boolean): Promise<Executable>;
  /**
   * The text of all kernels of a plan: with another one, what was found out before says nothing; and whether some use
   * matrix units.
   */
  kernelsOf(
    plan: Plan,
    mode: Mode,
    takesHalves: boolean,
  ): { readonly text: string; readonly matrices: boolean };
}

export class Guard {
  #passed: Promise<Set<string>> | undefined;

  constructor(readonly target: GuardTarget) {}

  /**
   * Runs what was not run before on this adapter.
   * @throws Error that names the kernel, the adapter and the error
   */
  async check(plan: Plan, options: GuardOptions): Promise<void> {
    this.#passed ??= this.#load(options);
    const passed = await this.#passed;
    const takesHalves = planTakesHalves(plan, options.mode);
    let isNew = false;
    for (const each of [...guardCases(plan), ...guardBlocks(plan)]) {
      const grouped = groupKernels(each.graph);
      const small = planMemory(grouped.graph, [], grouped.groups, this.target.planOptions);
      const { text, matrices } = this.target.kernelsOf(small, options.mode, takesHalves);
      const key = `${each.kind} ${options.mode} ${hashOf(text)}`;
      if (passed.has(key)) continue;
      const once = matrices && options.mode === 'exact' ? halvesTolerance : tolerances[options.mode];
      const tolerance = once * (each.stages ?? 1);
      await this.#run(each, small, { ...options, takesHalves, tolerance });
      passed.add(key);
      isNew = true;
    }
    if (isNew && options.isKept) await writeStored(options.adapter, 'guard', [...passed]);
  }

  async #load({ adapter, isKept }: GuardOptions): Promise<Set<string>> {
    const stored = isKept ? await readStored(adapter, 'guard') : undefined;
    return new Set(Array.isArray(stored) ? (stored as string[]) : []);
  }

  async #run(
    { kind, graph, inputs }: GuardCase,
    plan: Plan,
    {
      adapter,
      mode,
      takesHalves,
      tolerance,
    }: GuardOptions & { readonly takesHalves: boolean; readonly tolerance: number },
  ): Promise<void> {
    const { target } = this;
    const bound: BoundWeight[] = [];
    const program = await target.compile(plan, mode, takesHalves);
    const buffers = inputs.map((values) => {
      const buffer = target.allocate(values.byteLength);
      target.write(buffer, values);
      return buffer;
    });
    const outputs = plan.outputs.map(({ bytes }) => target.allocate(bytes));
    try {
      for (const { weight } of graph.weights)
        bound.push(target.bind(weight!, { path: 'guard', outputAxis: 1 }));
      await program.run(buffers, bound, outputs);
      const given = graph.inputs.map(({ dtype, shape }, i) => ({ dtype, shape, values: inputs[i]! }));
      const expected = interpret(graph, given, graph.weights.map(({ weight }) => weight!)); // biome-ignore format: short
      for (const [i, { values, dtype }] of expected.entries())
        compare(await target.read(outputs[i]!, dtype), values, kind, adapter, tolerance);
    } finally {
      for (const weight of bound) target.unbind(weight);
      for (const buffer of [...buffers, ...outputs]) target.release(buffer);
      program.dispose();
    }
  }
}

function compare(
  received: ElementValues,
  expected: ElementValues,
  kind: string,
  adapter: string,
  tolerance: number,
): void {
  const finite = Array.from(expected, Math.abs).filter(Number.isFinite);
  const allowed = tolerance * Math.max(1e-3, ...finite);
  for (const [i, value] of expected.entries()) {
    const other = received[i]!;
    if (value === other || Math.abs(value - other) <= allowed || (Number.isNaN(value) && Number.isNaN(other)))
      continue;
    throw new Error(
      `target webgpu: the kernel ${kind} is wrong on ${adapter}: element ${i} is ${other}, not ${value} ` +
        `(${(Math.abs(value - other) / Math.max(1e-30, Math.max(...finite, 1e-30))).toExponential(1)} of the largest, ` +
        `allowed ${tolerance}). Nothing that it computes can be trusted: take the target wasm, or another driver`,
    );
  }
}

/** FNV-1a, 32 bits. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(36);
}
