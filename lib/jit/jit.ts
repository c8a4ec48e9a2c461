// lib/jit/jit.ts: the compiler's front door. An ordinary tfjs function -> a compiled one with the same arguments and
// results. Source: jax.jit and jax.lax.scan, for tfjs.
//
//   const f = jit((p, x) => tf.add(tf.matMul(x, p.w), p.b), { target: 'wasm' });
//   const y = await f({ w, b }, x);                       // y is a tf.Tensor; await y.data()
//
// The way of a call: trace.ts -> optimize.ts (passes/*.ts) -> plan.ts -> a target (targets/*/run.ts). A program serves
// all calls with the same shapes, types, tree structure and plain values; anything else compiles anew and is counted.

import type * as tf from '@tensorflow/tfjs-core';
import { captureArgument } from './arguments.js';
import { debug, debugLevel } from './debug.js';
import type { ExplainOptions, Explanation, TraceFile } from './explain.js';
import { explainProgram, traceFile } from './explain.js';
import { graphText, Program } from './program.js';
import type { LoopReport, Mode, RunOptions } from './target.js';
import type { TargetName } from './targets.js';
import { openTarget, runningTarget } from './targets.js';
import type { Flat } from './trees.js';
import { flatten } from './trees.js';

export { type ScanOptions, type ScanResult, type ScanStep, scan } from './scan.js';
export { type Mode, modes } from './target.js';
export {
  closeTarget,
  type TargetName,
  targetDevice,
  targetMemory,
  targetNames,
  targetRows,
} from './targets.js';
export { bind, bindWeight, unbind } from './weights.js';

export interface JitOptions {
  /** What the program runs on: wasm (fast), reference (a slow interpreter: the oracle). Default wasm. */
  readonly target?: TargetName;
  /**
   * Numbers of the arguments that a call uses up: their memory is written over, and using them again throws.
   * Give the key/value cache, so that it is updated in place.
   */
  readonly donate?: readonly number[];
  /** Trace twice and refuse a function whose constants differ, such as tf.randomUniform; verify after each pass. */
  readonly check?: boolean;
  /** Default true; false leaves out all passes but those a target needs, to see what fusing buys. */
  readonly fuse?: boolean;
  /** `fast` lets a target round what integer Weights are multiplied with; default `exact`. */
  readonly mode?: Mode | undefined;
  /** For messages; default the function's own name. */
  readonly name?: string;
}

/** What is known of a compiled function so far. */
export interface JitReport {
  readonly target: TargetName;
  readonly compilations: number;
  /** Of the program that ran last: kernels in it, loops' kernels counted once. */
  readonly kernels: number;
  /** All compilations together: tracing, passes, planning, code. */
  readonly compileMs: number;
  /** Of the last run. */
  readonly runMs: number | null;
  readonly hostCalls: number | null;
  readonly threads: number | null;
  /** Of the last run's outermost loop, on targets that are another device. */
  readonly loop: LoopReport | null;
  readonly codeBytes: number;
  readonly arenaBytes: number;
}

/** A compiled function. */
export interface Jitted<Args extends readonly unknown[], Result> {
  /** Compiles on the first call with new shapes, then runs. Tensors in the result are the caller's to dispose. */
  (...args: Args): Promise<Result>;
  /** The same with an AbortSignal, or with a listener to the rounds of its scan. */
  run(args: Args, options: RunOptions): Promise<Result>;
  /** How often it was compiled: once for each set of shapes, types, structure and plain values. */
  readonly compilations: number;
  report(): JitReport;
  /** The graph for these arguments as text, after all passes or one: 'trace', 'fuseNorm', ...; nothing is compiled. */
  graph(...args: Args): string;
  graphAfter(pass: string, ...args: Args): string;
  /** Compiles for these arguments without running. Donated arguments stay usable. */
  compile(...args: Args): Promise<JitReport>;
  /**
   * Lists the kernels of the program that ran last, with FLOPs, bytes and, if it was run by `profile`, time and share
   * of the measured bandwidth.
   */
  explain(options?: ExplainOptions): Explanation;
  /** Runs once, timing each kernel; donated arguments are used up, the result is disposed. @returns a trace that Perfetto and chrome://tracing open, as an object for JSON */
  profile(...args: Args): Promise<TraceFile>;
  /** Frees the compiled programs; results stay. */
  dispose(): void;
}

/**
 * Compiles a tfjs function.
 * @param fn pure and synchronous; computes on tensors with tfjs operations (tf.where for if, scan for loops over values).
 *   It runs only to be traced. Tensors and Weights that it closes over are captured once
 * @returns an asynchronous function of the same arguments: tensors, Weights and plain values in nested objects and lists
 * @throws (the compiled function, by rejecting) Error for an operation without a lowering, a read of a traced value, a
 *   Promise, a donated argument; each names the argument or the line
 */
export function jit<Args extends unknown[], Result>(
  fn: (...args: Args) => Result,
  options: JitOptions = {},
): Jitted<Args, Result> {
  return new Compiled(fn as (...args: never[]) => unknown, options).callable<Args, Result>();
}

const donatedTensors = new WeakMap<tf.Tensor, string>();

/** Calls on one target take turns: they share its arena. */
const turns = new Map<TargetName, Promise<unknown>>();

class Compiled {
  readonly #fn: (...args: never[]) => unknown;
  readonly #options: JitOptions;
  readonly #target: TargetName;
  readonly #donate: ReadonlySet<number>;
  readonly #programs = new Map<string, Promise<Program>>();
  #lastLines: readonly string[] | undefined;
  #last: Program | undefined;
  #compileMs = 0;

  constructor(fn: (...args: never[]) => unknown, options: JitOptions) {
    this.#fn = fn;
    this.#options = options;
    this.#target = options.target ?? 'wasm';
    this.#donate = new Set(options.donate ?? []);
  }

  callable<Args extends unknown[], Result>(): Jitted<Args, Result> {
    const { fuse } = this.#options;
    const call = (...args: Args): Promise<Result> => this.#call(args, {}) as Promise<Result>;
    const methods: Omit<Jitted<Args, Result>, 'compilations'> = {
      run: (args: Args, options: RunOptions) => this.#call(args, options) as Promise<Result>,
      report: () => this.#report(),
      graph: (...args: Args) => graphText(this.#fn, args, { fuse }),
      graphAfter: (after: string, ...args: Args) => graphText(this.#fn, args, { after, fuse }),
      compile: async (...args: Args) => {
        this.#last = await this.#program(args, flatten(args));
        return this.#report();
      },
      explain: (options?: ExplainOptions) => explainProgram(this.#ran(), options),
      profile: async (...args: Args) => {
        const result = await this.#call(args, { profile: true });
        disposeTree(result);
        await this.#ran().measureBandwidth();
        return traceFile(this.#ran());
      },
      dispose: () => this.#dispose(),
    };
    const compiled = Object.assign(call, methods);
    Object.defineProperty(compiled, 'compilations', { get: () => this.#programs.size, enumerable: true });
    return compiled as Jitted<Args, Result>; // `compilations` was just defined
  }

  get #name(): string {
    return this.#options.name ?? (this.#fn.name || 'function');
  }

  async #call(args: readonly unknown[], options: RunOptions): Promise<unknown> {
    options.signal?.throwIfAborted();
    const flat = flatten(args);
    this.#checkAlive(flat);
    const target = runningTarget(this.#target);
    const tensors = flat.tensors.map(({ tensor, path }) =>
      captureArgument(tensor, this.#isDonated(path), target),
    );
    const profile = options.profile || debugLevel() >= 2;
    try {
      const program = await this.#program(args, flat);
      this.#last = program;
      return await inTurn(this.#target, async () => {
        this.#markDonated(flat);
        const result = await program.run(tensors, flat.weights, { ...options, profile });
        debug(2, () => `jit ${this.#name}\n${explainProgram(program).text}`);
        return result;
      });
    } finally {
      for (const { end } of tensors) end();
    }
  }

  /** From now on these tensors are used up, and whoever uses them again is told so. */
  #markDonated(flat: Flat): void {
    for (const { tensor, path } of flat.tensors)
      if (this.#isDonated(path)) donatedTensors.set(tensor, `argument ${path} of ${this.#name}`);
  }

  #isDonated(path: string): boolean {
    return this.#donate.has(Number.parseInt(path, 10)); // the first number in it
  }

  #checkAlive(flat: Flat): void {
    const seen = new Map<object, string>();
    for (const { tensor, path } of flat.tensors) {
      const where = donatedTensors.get(tensor);
      if (where)
        throw new Error(
          `${this.#name}: argument ${path} was donated before, as ${where}: use what that call returned`,
        );
      if (tensor.isDisposed) throw new Error(`${this.#name}: argument ${path} is disposed`);
      const other = seen.get(tensor.dataId);
      if (other !== undefined && (this.#isDonated(path) || this.#isDonated(other)))
        throw new Error(
          `${this.#name}: argument ${path} is donated but is also argument ${other}; pass a clone`,
        );
      seen.set(tensor.dataId, path);
    }
  }

  async #program(args: readonly unknown[], flat: Flat): Promise<Program> {
    const key = flat.lines.join('\n');
    const known = this.#programs.get(key);
    if (known) return known;
    this.#sayWhy(flat.lines);
    this.#lastLines = flat.lines;
    const { check = false, fuse = true, mode } = this.#options;
    const donated = flat.tensors.map(({ path }) => this.#isDonated(path));
    const compiling = openTarget(this.#target).then((target) =>
      Program.compile(this.#fn, args, donated, target, { check, fuse, mode }),
    );
    this.#programs.set(key, compiling);
    try {
      const program = await compiling;
      this.#compileMs += program.compileMs;
      return program;
    } catch (error) {
      this.#programs.delete(key); // a function that cannot be compiled was not
      throw error;
    }
  }

  /** Says which argument changed, old and new. */
  #sayWhy(lines: readonly string[]): void {
    const before = this.#lastLines;
    debug(1, () => {
      if (!before) return `jit ${this.#name}: compiled for the first time`;
      const at = lines.findIndex((line, i) => line !== before[i]);
      const i = at < 0 ? lines.length : at;
      return `jit ${this.#name}: compiled anew: was ${before[i] ?? 'nothing'}, is ${lines[i] ?? 'nothing'}`;
    });
  }

  #ran(): Program {
    if (!this.#last) throw new Error(`${this.#name}: call it first: nothing has been compiled yet`);
    return this.#last;
  }

  #report(): JitReport {
    const program = this.#last;
    const run = program?.lastRun;
    return {
      target: this.#target,
      compilations: this.#programs.size,
      kernels: program?.kernels ?? 0,
      compileMs: this.#compileMs,
      runMs: run?.runMs ?? null,
      hostCalls: run?.hostCalls ?? null,
      threads: run?.threads ?? null,
      loop: run?.loop ?? null,
      codeBytes: program?.executable.codeBytes ?? 0,
      arenaBytes: program?.plan.arenaBytes ?? 0,
    };
  }

  #dispose(): void {
    for (const compiling of this.#programs.values())
      compiling.then(
        (program) => program.dispose(),
        () => {},
      );
    this.#programs.clear();
  }
}

async function inTurn<T>(target: TargetName, work: () => Promise<T>): Promise<T> {
  const before = turns.get(target) ?? Promise.resolve();
  const mine = before.then(work, work);
  turns.set(
    target,
    mine.catch(() => {}),
  );
  return mine;
}

function disposeTree(tree: unknown): void {
  for (const { tensor } of flatten(tree).tensors) tensor.dispose();
}
