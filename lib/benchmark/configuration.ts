// lib/benchmark/configuration.ts: what benchmark is given: ways to run a model, samples, and how to measure them.
import type { Run } from '../results.js';

/** What one generation tells of itself; a Generation of generate.ts fits. */
export interface GenerationTiming {
  readonly promptIds: readonly number[];
  /** Of all sequences of the batch together. */
  readonly newIds: readonly number[];
  readonly text: string | null;
  readonly firstTokenMs: number;
  /** Of the tokens after the first. */
  readonly perTokenMs: readonly number[];
  readonly totalMs: number;
  readonly cacheBytes: number;
}

/** One way to run a model: the facts that its Run will state, and how to run it. */
export interface Configuration<Sample>
  extends Pick<Run, 'label' | 'model' | 'weights' | 'backend' | 'target' | 'mode' | 'cache' | 'newTokens'> {
  /** 1 unless given. */
  readonly batch?: number;
  /** Compiles what these samples will need, so that no compilation falls into a measurement. */
  readonly prepare?: (samples: readonly Sample[], signal: AbortSignal) => Promise<void>;
  /** Generates for one sample; ends early, by any means, when the signal says so. */
  readonly run: (sample: Sample, signal: AbortSignal) => Promise<GenerationTiming>;
  /** Bytes it holds; asked for after the last sample. */
  readonly memory: () => {
    readonly weightBytes: number;
    readonly arenaBytes?: number;
    readonly gpuBytes?: number;
  };
  /** What compiling took so far; asked for after the last sample. */
  readonly compile?: () => Run['compile'];
  readonly notes?: readonly string[];
}

export interface BenchmarkOptions<Sample> {
  readonly samples: readonly Sample[];
  /** Reference answers, one a sample: the Runs then carry ROUGE and exact match. */
  readonly references?: readonly string[];
  /** Unmeasured generations before the first sample of each configuration, as long as the measured ones. Default 1. */
  readonly warmUp?: number;
  /** How often each sample is measured. Default 1. */
  readonly repeats?: number;
  /** JSON-lines file that keeps each sample at once: called again, the benchmark measures only what is missing. */
  readonly resumeFile?: string;
  /** Name of the GPU, for the record. */
  readonly gpu?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
}

export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly label: string;
  /** Of this call's measured samples, all configurations together. */
  readonly tokensPerSecond: number;
  readonly remainingMs: number;
}
