// lib/jit/program.ts: one compiled program: a function traced for one set of shapes, its plan and code, and what it takes
// to run it: arguments into buffers, buffers into results.

import type * as tf from '@tensorflow/tfjs-core';
import { sizeOf } from '../tensor.js';
import { bytesText, debug } from './debug.js';
import type { Graph } from './graph.js';
import { elementType } from './lower/lowering.js';
import { adoptBuffer, bufferOf, holdBuffer, takeBuffer } from './memory.js';
import { optimize } from './optimize.js';
import type { Plan, Step } from './plan.js';
import { elementBytes, planMemory } from './plan.js';
import { print } from './print.js';
import type { BoundWeight, Executable, RunOptions, RunReport, Target, TargetBuffer } from './target.js';
import type { Traced } from './trace.js';
import { elementValues, traceFunction } from './trace.js';
import type { Flat } from './trees.js';
import { boundWeight, weightUses } from './weights.js';

/** A tensor argument: what it is, and whether its memory may be handed on. */
export interface TensorArgument {
  readonly tensor: tf.Tensor;
  readonly donated: boolean;
}

export interface CompileOptions {
  readonly fuse: boolean;
  readonly check: boolean;
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
  readonly #traced: Traced;
  readonly #target: Target;
  #captured: (BoundWeight | undefined)[] = [];

  private constructor(traced: Traced, plan: Plan, executable: Executable, target: Target, compileMs: number) {
    this.#traced = traced;
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
    { fuse, check }: CompileOptions,
  ): Promise<Program> {
    const started = performance.now();
    const traced = traceFunction(fn, args);
    if (check) checkConstants(traced, traceFunction(fn, args));
    const graph = optimize(traced.graph, { fuse, check });
    const plan = planMemory(graph, donated);
    const executable = await target.compile(plan);
    const compileMs = performance.now() - started;
    debug(1, () => {
      const planned = `${bytesText(plan.arenaBytes)} of arena, ${bytesText(executable.codeBytes)} of code`;
      return `jit: ${countKernels(plan.steps)} kernels for ${target.name}, ${planned}, ${compileMs.toFixed(1)} ms`;
    });
    debug(4, () => executable.listing());
    return new Program(traced, plan, executable, target, compileMs);
  }

  /** Kernels of the plan, those of loops counted once. */
  get kernels(): number {
    return countKernels(this.plan.steps);
  }

  /**
   * Runs the program.
   * @param args one a graph input, in order; donated ones are disposed
   */
  async run(
    args: readonly TensorArgument[],
    weights: Flat['weights'],
    options: RunOptions,
  ): Promise<unknown> {
    const endings: (() => void)[] = [];
    const inputs = args.map((argument, i) => this.#inputBuffer(argument, i, endings));
    const outputs = this.plan.outputs.map(({ bytes, alias }) => {
      return alias === null ? this.#target.allocate(bytes) : inputs[alias]!.buffer;
    });
    const kept = new Set(outputs);
    let failed = true;
    try {
      const buffers = inputs.map(({ buffer }) => buffer);
      this.lastRun = await this.executable.run(buffers, this.#weights(weights), outputs, options);
      failed = false;
      const tensors = outputs.map((buffer, i) => {
        const { dtype, shape } = this.plan.outputs[i]!;
        return adoptBuffer(this.#target, buffer, dtype, shape);
      });
      return this.#traced.result(
        tensors,
        weights.map(({ weight }) => weight),
      );
    } finally {
      for (const end of endings) end();
      for (const { buffer, own } of inputs) if (own && !kept.has(buffer)) this.#target.release(buffer);
      if (failed) for (const buffer of kept) this.#target.release(buffer);
    }
  }

  dispose(): void {
    this.executable.dispose();
  }

  /** A buffer for one argument. `own`: it belongs to this call, which has to release it or hand it on. */
  #inputBuffer(
    { tensor, donated }: TensorArgument,
    index: number,
    endings: (() => void)[],
  ): { buffer: TargetBuffer; own: boolean } {
    const taken = donated ? takeBuffer(tensor, this.#target) : undefined;
    if (taken) return { buffer: taken, own: true };
    const resident = bufferOf(tensor, this.#target);
    if (resident && !donated) {
      endings.push(holdBuffer(tensor));
      return { buffer: resident, own: false };
    }
    const buffer = uploadedBuffer(tensor, this.#target, this.plan.inputBytes[index]!, donated);
    if (donated && !tensor.isDisposed) tensor.dispose();
    return buffer;
  }

  /** One handle a WeightSlot: those of the arguments come first, in their order. */
  #weights(weights: Flat['weights']): BoundWeight[] {
    const uses = this.#uses;
    return this.graph.weights.map((slot, i) => {
      if (!slot.weight) return boundWeight(this.#target, weights[i]!.weight, uses[i]!);
      this.#captured[i] ??= boundWeight(this.#target, slot.weight, uses[i]!);
      return this.#captured[i];
    });
  }

  get #uses(): ReturnType<typeof weightUses> {
    this.#knownUses ??= weightUses(this.graph);
    return this.#knownUses;
  }
  #knownUses: ReturnType<typeof weightUses> | undefined;
}

// A copy of a small tensor costs less than finding the old one; a large one is kept as long as tfjs keeps its data.
const keptFromBytes = 65536;
const uploads = new WeakMap<Target, WeakMap<object, TargetBuffer>>();
const unreachable = new FinalizationRegistry<{ target: Target; buffer: TargetBuffer }>(
  ({ target, buffer }) => {
    target.release(buffer);
  },
);

/** A tensor of an eager backend in the target's memory: copied once if it is large, else anew for each call. */
function uploadedBuffer(
  tensor: tf.Tensor,
  target: Target,
  bytes: number,
  donated: boolean,
): { buffer: TargetBuffer; own: boolean } {
  const isKept = !donated && bytes >= keptFromBytes;
  const known = uploads.get(target) ?? new WeakMap<object, TargetBuffer>();
  uploads.set(target, known);
  const found = isKept ? known.get(tensor.dataId) : undefined;
  if (found) return { buffer: found, own: false };
  const buffer = target.allocate(sizeOf(tensor.shape) * elementBytes);
  target.write(buffer, elementValues(tensor.dataSync(), elementType(tensor.dtype)));
  if (isKept) {
    known.set(tensor.dataId, buffer);
    unreachable.register(tensor.dataId, { target, buffer });
  }
  return { buffer, own: !isKept };
}

function countKernels(steps: readonly Step[]): number {
  return steps.reduce((sum, step) => {
    return sum + (step.kind === 'kernel' ? 1 : step.kind === 'scan' ? countKernels(step.steps) : 0);
  }, 0);
}
