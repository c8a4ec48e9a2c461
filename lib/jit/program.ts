// lib/jit/program.ts: one compiled program: a function traced for one set of shapes, its plan and code, and what it takes
// to run it: arguments into buffers, buffers into results.

import type { Argument } from './arguments.js';
import { argumentBuffer } from './arguments.js';
import { bytesText, debug } from './debug.js';
import type { Graph } from './graph.js';
import { adoptBuffer } from './memory.js';
import { optimize } from './optimize.js';
import { groupKernels } from './passes/groupKernels.js';
import { planMemory } from './plan.js';
import { print } from './print.js';
import type { Plan, Step } from './steps.js';
import type { BoundWeight, Executable, Mode, RunOptions, RunReport, Target, TargetBuffer } from './target.js';
import type { Traced } from './trace.js';
import { traceFunction } from './trace.js';
import type { Flat } from './trees.js';
import { boundWeight, checkAllFit, weightUses } from './weights.js';

export interface CompileOptions {
  readonly fuse: boolean;
  readonly check: boolean;
  readonly mode?: Mode | undefined;
}

/** The text of the graph that a function becomes, after all passes or after one of them. */
export function graphText(
  fn: (...args: never[]) => unknown,
  args: readonly unknown[],
  options: { readonly after?: string | undefined; readonly fuse?: boolean | undefined } = {},
): string {
  const { graph } = traceFunction(fn, args);
  return print(options.after === 'trace' ? graph : optimize(graph, options));
}

/**
 * Refuses a function that makes other constants each time it is traced: random numbers and times would be baked in.
 * @throws Error that names the operation and its line
 */
function checkConstants(first: Traced, second: Traced): void {
  const changed = first.constants.find(({ values }, i) => {
    const other = second.constants[i]?.values;
    return other?.length !== values.length || values.some((value, at) => !Object.is(value, other[at]));
  });
  if (!changed && first.constants.length === second.constants.length) return;
  const { op, source } = changed?.origin.site ?? {};
  throw new Error(
    `jit: ${op ?? 'an operation'} at ${source ?? 'an unknown line'} makes another constant each time the function is ` +
      'traced (a random number, a time, a counter?): compiled code would repeat one of them for ever. Pass it as a tensor',
  );
}

export class Program {
  readonly compileMs: number;
  readonly plan: Plan;
  readonly executable: Executable;
  /** Of the newest run. */
  lastRun: RunReport | undefined;
  readonly #result: Traced['result']; // not all of what was traced: that holds its constants
  readonly #target: Target;

  private constructor(
    result: Traced['result'],
    plan: Plan,
    executable: Executable,
    target: Target,
    compileMs: number,
  ) {
    this.#result = result;
    this.plan = plan;
    this.executable = executable;
    this.#target = target;
    this.compileMs = compileMs;
  }

  get graph(): Graph {
    return this.plan.graph;
  }

  static async compile(
    fn: (...args: never[]) => unknown,
    args: readonly unknown[],
    donated: readonly boolean[],
    target: Target,
    { fuse, check, mode }: CompileOptions,
  ): Promise<Program> {
    const started = performance.now();
    const traced = traceFunction(fn, args);
    if (check) checkConstants(traced, traceFunction(fn, args));
    const optimized = optimize(traced.graph, { fuse, check });
    const { graph, groups } =
      fuse && target.groups ? groupKernels(optimized) : { graph: optimized, groups: undefined };
    const plan = planMemory(graph, donated, groups, target.planOptions);
    const executable = await target.compile(plan, { mode });
    const compileMs = performance.now() - started;
    debug(1, () => {
      const planned = `${bytesText(plan.arenaBytes)} of arena, ${bytesText(executable.codeBytes)} of code`;
      return `jit: ${countKernels(plan.steps)} kernels for ${target.name}, ${planned}, ${compileMs.toFixed(1)} ms`;
    });
    debug(4, () => executable.listing());
    return new Program(traced.result, plan, executable, target, compileMs);
  }

  /** Read bandwidth of the target's memory, to compare kernels with; once measured. */
  get readGBps(): number | null {
    return readSpeeds.get(this.#target) ?? null;
  }

  async measureBandwidth(): Promise<void> {
    const target = this.#target;
    if (!target.readGBps || readSpeeds.has(target)) return;
    readSpeeds.set(target, await target.readGBps());
  }

  /** Kernels of the plan, those of loops counted once. */
  get kernels(): number {
    return countKernels(this.plan.steps);
  }

  /**
   * Runs the program.
   * @param args one a graph input, in order; donated ones are disposed
   */
  async run(args: readonly Argument[], weights: Flat['weights'], options: RunOptions): Promise<unknown> {
    const target = this.#target;
    const owned = new Set<TargetBuffer>(); // of this call: handed on as results, or released
    try {
      const handles = this.#weights(weights);
      const inputs = args.map((argument) => {
        const { buffer, own } = argumentBuffer(argument, target);
        if (own) owned.add(buffer);
        return buffer;
      });
      const outputs = this.plan.outputs.map(({ bytes, alias }) => {
        const buffer = alias === null ? target.allocate(bytes) : inputs[alias]!;
        owned.add(buffer);
        return buffer;
      });
      this.lastRun = await this.executable.run(inputs, handles, outputs, options);
      const tensors = outputs.map((buffer, i) => {
        const { dtype, shape } = this.plan.outputs[i]!;
        owned.delete(buffer);
        return adoptBuffer(target, buffer, dtype, shape);
      });
      const given = weights.map(({ weight }) => weight);
      return this.#result(tensors, given);
    } finally {
      for (const buffer of owned) target.release(buffer);
    }
  }

  dispose(): void {
    this.executable.dispose();
  }

  /** One handle a WeightSlot: those of the arguments come first, in their order. */
  #weights(weights: Flat['weights']): BoundWeight[] {
    const uses = this.#uses;
    const all = this.graph.weights.map((slot, i) => slot.weight ?? weights[i]!.weight);
    checkAllFit(this.#target, all, uses);
    return all.map((weight, i) => boundWeight(this.#target, weight, uses[i]!));
  }

  get #uses(): ReturnType<typeof weightUses> {
    this.#knownUses ??= weightUses(this.graph);
    return this.#knownUses;
  }
  #knownUses: ReturnType<typeof weightUses> | undefined;
}

const readSpeeds = new WeakMap<Target, number>();

function countKernels(steps: readonly Step[]): number {
  return steps.reduce((sum, step) => {
    return sum + (step.kind === 'kernel' ? 1 : step.kind === 'scan' ? countKernels(step.steps) : 0);
  }, 0);
}
