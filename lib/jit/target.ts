// lib/jit/target.ts: what jit.ts asks of a target: memory, Weights, and compiled plans. Implemented by
// targets/reference/run.ts and targets/wasm/run.ts; jit.ts calls nothing else of them.

import type { Weight } from '../tensor.js';
import type { ElementType, ElementValues } from './graph.js';
import type { PlanOptions } from './plan.js';
import type { Plan } from './steps.js';

/** Memory of one tensor in the target. The target knows more of it than its size. */
export interface TargetBuffer {
  readonly bytes: number;
}

/** A Weight in the target's own layout. */
export interface BoundWeight {
  readonly bytes: number;
}

/** How a Weight will be read, as far as the caller knows: the axis of its output features (1 for a kernel [in, out]). */
export interface WeightUse {
  readonly path: string;
  readonly outputAxis: 0 | 1;
}

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  /**
   * Called after each round of the program's Scan (the outermost, first one) with the values of its stacked outputs in
   * that round, while the loop goes on. Rounds arrive in order; several may arrive together.
   */
  readonly onRound?: ((round: number, outputs: readonly ElementValues[]) => void) | undefined;
  /**
   * The loop's `until` should end it by this round: a target that runs ahead of what it knows sends no more until it
   * knows. Default: nothing is expected.
   */
  readonly expectedRounds?: number | undefined;
  /** Measures each step: RunReport.stepMs. */
  readonly profile?: boolean | undefined;
}

/** How a loop on another device went, seen from here. */
export interface LoopReport {
  readonly rounds: number;
  readonly submissions: number;
  readonly roundsPerSubmission: number;
  readonly hostMicrosecondsPerRound: number;
  /** Of the time from the first round's begin to the last one's end; null where the device has no clock to ask. */
  readonly gpuIdleShare: number | null;
}

export interface RunReport {
  readonly runMs: number;
  /** Times that the program called back into JavaScript. */
  readonly hostCalls: number;
  readonly threads: number;
  /** Of the outermost loop, where it runs on another device. */
  readonly loop?: LoopReport;
  /** Milliseconds by step of the plan, a Scan's own steps after it (depth first), summed over rounds; with `profile`. */
  readonly stepMs?: Float64Array;
  /** By step, as stepMs: positions of a cache that a CachedAttention saw, those of its rows and rounds added up. */
  readonly stepPositions?: Float64Array;
}

/**
 * How exactly a target computes. `exact`: as float32 does, but for the order of sums; integer Weights may meet integers
 * of 24 bits, 16 to a scale, which are as near; only where all products' Weights are float16 or integers, products of many
 * rows and their attention may round to float16. `fast`: where Weights are integers it may also round what they are
 * multiplied with to signed bytes, 16 or (of many rows) a piece of a row to a scale.
 */
export type Mode = 'exact' | 'fast';
export const modes: readonly Mode[] = ['exact', 'fast'];

export interface TargetCompileOptions {
  readonly mode?: Mode | undefined;
}

export interface Executable {
  /** Bytes of generated code, 0 where none is. */
  readonly codeBytes: number;
  /**
   * Runs the program.
   * @param inputs one buffer a graph input
   * @param weights one a WeightSlot
   * @param outputs one buffer an output; for an output with an alias, the input's buffer
   * @throws Error when aborted (the signal's reason) or when the program traps
   */
  run(
    inputs: readonly TargetBuffer[],
    weights: readonly BoundWeight[],
    outputs: readonly TargetBuffer[],
    options?: RunOptions,
  ): Promise<RunReport>;
  /** Generated code as text, for RT_DEBUG=4 and file snapshots. */
  listing(): string;
  dispose(): void;
}

export interface Target {
  readonly name: string;
  /** True where plans should come with groups: steps that one dispatch may do together (passes/groupKernels.ts). */
  readonly groups?: boolean;
  /** What it asks of the plans that it compiles. */
  readonly planOptions?: PlanOptions;
  /** Name of the device that it computes on, where that is not this process's processor. */
  readonly device?: string;
  /**
   * Generates code for a plan.
   * @throws RangeError if arena and constants do not fit into the target's memory (says how much would)
   */
  compile(plan: Plan, options?: TargetCompileOptions): Promise<Executable>;
  /** Asked before many are bound. @throws RangeError if together they do not fit (bytes, limit, what would fit) */
  checkFit?(weights: readonly { readonly weight: Weight; readonly use: WeightUse }[]): void;
  /** @throws RangeError if it does not fit (gives bytes, limit, and what would fit instead) */
  bind(weight: Weight, use: WeightUse): BoundWeight;
  unbind(weight: BoundWeight): void;
  allocate(bytes: number): TargetBuffer;
  release(buffer: TargetBuffer): void;
  write(buffer: TargetBuffer, values: ElementValues): void;
  /**
   * A copy of the buffer's values; i32 and bool as Int32Array. Not while a program writes to it.
   * @throws Error if the values are on a device that cannot be waited for (says to await readLater)
   */
  read(buffer: TargetBuffer, dtype: ElementType): ElementValues;
  /** The same, for targets whose memory is elsewhere. */
  readLater?(buffer: TargetBuffer, dtype: ElementType): Promise<ElementValues>;
  /** Resolves when what bind and write have sent is there. @throws Error if it did not fit */
  settled?(): Promise<void>;
  /** 10^9 bytes a second that programs can read from memory at best; asked when kernels were timed. */
  readGBps?(): Promise<number>;
  /** Bytes now held: weights, buffers, and arenas apart. */
  memory(): { readonly weightBytes: number; readonly bufferBytes: number; readonly arenaBytes: number };
  /** Ends workers and frees memory; the target can be used again and starts anew. */
  dispose(): Promise<void>;
}
