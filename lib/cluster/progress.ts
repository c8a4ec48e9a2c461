// lib/cluster/progress.ts: how far a shard is, in one line for a person who watches.
// measurements as they come -> done/total, tokens/s so far, time left, last error.
// Times are differences of performance.now: a clock that is set meanwhile changes nothing.

import type { ClusterPlan } from './plan.js';

export interface ShardProgress {
  readonly shard: number;
  readonly shards: number;
  /** Generations are measured first; then answers are compared token by token, if the plan wants it. */
  readonly phase: Phase;
  /** Of this phase, with what earlier attempts finished. */
  readonly done: number;
  readonly total: number;
  /** Of this attempt's measurements; 0 before the first. */
  readonly tokensPerSecond: number;
  /** Of this phase; null before its first measurement. */
  readonly remainingMs: number | null;
  readonly lastError: string | null;
}

export type Phase = 'measuring' | 'comparing';

/** 'shard 3 of 8, measuring: 12/125 (9 %), 34.2 tok/s, 4 min left, last error: none' */
export function progressLine(progress: ShardProgress): string {
  const { shard, shards, phase, done, total, tokensPerSecond, remainingMs, lastError } = progress;
  return [
    `shard ${shard} of ${shards}, ${phase}: ${done}/${total} (${Math.floor((100 * done) / Math.max(1, total))} %)`,
    `${tokensPerSecond.toFixed(1)} tok/s`,
    remainingMs === null ? 'time left unknown' : `${duration(remainingMs)} left`,
    `last error: ${lastError ?? 'none'}`,
  ].join(', ');
}

/** 45 s, 12 min, 3 h 20 min. */
function duration(ms: number): string {
  const minutes = Math.round(ms / 60_000);
  if (minutes < 2) return `${Math.round(ms / 1000)} s`;
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Counts a shard's measurements and tells the listener. */
export class ShardWatch {
  private phase: Phase = 'measuring';
  private total = 0;
  private doneBefore = 0;
  private doneNow = 0;
  private begunMs = 0;
  private tokens = 0;
  private busyMs = 0;
  private failures = 0;
  private lastError: string | null = null;
  private finished = { done: 0, total: 0 };

  constructor(
    private readonly plan: Pick<ClusterPlan, 'shards'>,
    private readonly shard: number,
    private readonly onProgress: ((progress: ShardProgress) => void) | undefined,
  ) {}

  /** @param done what is finished already */
  begin(phase: Phase, total: number, done: number): void {
    this.finished = this.sum();
    [this.phase, this.total, this.doneBefore, this.doneNow] = [phase, total, done, 0];
    this.begunMs = performance.now();
    this.tell();
  }

  /** A generation was measured. */
  measured(newTokens: number, latencyMs: number): void {
    this.tokens += newTokens;
    this.busyMs += latencyMs;
    this.step();
  }

  /** An answer was compared. */
  step(): void {
    this.doneNow++;
    this.tell();
  }

  failed(error: unknown): void {
    this.failures++;
    this.lastError = (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
    this.tell();
  }

  outcome(): { readonly done: number; readonly total: number; readonly failed: number } {
    return { ...this.sum(), failed: this.failures };
  }

  private sum() {
    const { done, total } = this.finished;
    return { done: done + this.doneBefore + this.doneNow, total: total + this.total };
  }

  private tell(): void {
    const done = this.doneBefore + this.doneNow;
    const elapsedMs = performance.now() - this.begunMs;
    this.onProgress?.({
      shard: this.shard,
      shards: this.plan.shards,
      phase: this.phase,
      done,
      total: this.total,
      tokensPerSecond: this.busyMs > 0 ? (1000 * this.tokens) / this.busyMs : 0,
      remainingMs: this.doneNow > 0 ? (elapsedMs / this.doneNow) * (this.total - done) : null,
      lastError: this.lastError,
    });
  }
}
