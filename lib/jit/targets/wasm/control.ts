// lib/jit/targets/wasm/control.ts: the words through which the driver's threads and the main thread talk, at the start of
// memory, each on a cache line of its own; and the code of the barrier.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { globalValue } from './context.js';
import type { Heap } from './heap.js';
import { atomics } from './memory.js';
import { constant, type Expr, makeNode } from './nodes.js';
import { i32 } from './scalars.js';

const LINE = 64;
/** Addresses. Programs run one at a time, so that they share the words. */
export const CONTROL = {
  /** Threads that have come to the barrier. */
  arrived: 0 * LINE,
  /** Counts barriers passed: a thread waits for it to change. */
  generation: 1 * LINE,
  /** Threads asleep at the barrier. */
  sleepers: 2 * LINE,
  /** Naps that threads took at the barrier in this run, each of NAP_MS: another program has a core. */
  naps: 3 * LINE,
  /** Set by the main thread: stop after this round. */
  abort: 4 * LINE,
  /** Set when a worker failed, so that the others leave the barrier. */
  failed: 5 * LINE,
  /** Rounds of the outermost loop that are complete. */
  rounds: 6 * LINE,
  /** Counts everything that the main thread should wake up for. */
  events: 7 * LINE,
  /** What thread 0 decided at the end of a round, in turns: see DECISION. */
  decisions: 8 * LINE,
  /** Where a thread that is not needed waits: the count of its recalls, and how many wait. */
  recalls: 10 * LINE,
  parked: 15 * LINE,
  /** What a recalled thread has missed: the round, and whether the loop has ended. */
  round: 13 * LINE,
  ended: 14 * LINE,
  /** Commands given to the workers, and workers that have finished the latest. */
  commands: 11 * LINE,
  finished: 12 * LINE,
  /** Set by the main thread: it wants to hear of rounds. */
  listens: 16 * LINE,
  bytes: 17 * LINE,
} as const;

/**
 * Addresses of the profile: by step float64 milliseconds, and positions of the cache that attention saw. The first page,
 * which the heap leaves free, holds so many steps.
 */
export const PROFILE_STEPS = (65536 - CONTROL.bytes) / 16;
export const PROFILE_AT = { ms: CONTROL.bytes, positions: CONTROL.bytes + PROFILE_STEPS * 8 } as const;
export type ProfileColumn = keyof typeof PROFILE_AT;

/** A decision: go on with all threads, stop, or go on with thread 0 alone. */
export const DECISION = { together: 0, stop: 1, alone: 2 } as const;

/** Looks at the barrier before a thread sleeps: about 100 us. A fork and join by spinning costs 0.2 us, by sleep 50. */
const SPINS = 60_000;
/** A thread looks again after so long, in case its wake was lost. */
export const NAP_MS = 0.25;
/** What memory.atomic.wait32 answers when nobody woke it. */
const TIMED_OUT = 2;

export const word = (offset: number): Expr => i32.add(globalValue('control'), offset);
export const trap = makeNode('unreachable', undefined, [0x00], []);

/** barrier(): returns when all threads have called it. Sleeps have an end: an endless wait was seen to miss its wake. */
export function barrierFunction(name: string): FunctionCode {
  const f = new FunctionBuilder(name);
  const threads = f.let('threads', globalValue('threads'));
  const generation = f.let('generation', atomics.load(word(CONTROL.generation)));
  f.when(i32.eq(threads, 1), () => f.return());
  const isLast = i32.eq(i32.add(atomics.add(word(CONTROL.arrived), 1), 1), threads);
  f.when(isLast, () => {
    f.do(
      atomics.store(word(CONTROL.arrived), 0),
      atomics.store(word(CONTROL.generation), i32.add(generation, 1)),
    );
    f.when(atomics.load(word(CONTROL.sleepers)), () => {
      f.set(threads, atomics.notify(word(CONTROL.generation), threads));
    });
    f.return();
  });
  const isOpen = () => i32.ne(atomics.load(word(CONTROL.generation)), generation);
  const left = f.let('left', constant('i32', SPINS));
  f.repeat(() => {
    f.when(isOpen(), () => f.return());
    f.increase(left, -1);
    return left;
  });
  sleepUntil(f, isOpen, generation);
  return f.finish();
}

function sleepUntil(f: FunctionBuilder, isOpen: () => Expr, generation: Local): void {
  const ignored = f.let('ignored', atomics.add(word(CONTROL.sleepers), 1));
  f.repeat(() => {
    const outcome = atomics.wait(word(CONTROL.generation), generation, constant('i64', NAP_MS * 1e6));
    f.when(i32.eq(outcome, TIMED_OUT), () => f.set(ignored, atomics.add(word(CONTROL.naps), 1)));
    f.when(atomics.load(word(CONTROL.failed)), () => f.do(trap));
    return i32.eqz(isOpen());
  });
  f.set(ignored, atomics.add(word(CONTROL.sleepers), -1));
}

/** Words that a run starts from zero; the counts of barriers, events, recalls and commands go on. */
const RESET = ['arrived', 'sleepers', 'naps', 'abort', 'failed', 'rounds', 'finished', 'parked'] as const;

/** Makes the words and the profile ready for a run. */
export function resetControl(heap: Heap, steps: number): void {
  for (const name of RESET) Atomics.store(heap.int32(CONTROL[name], 1), 0, 0);
  for (const column of ['ms', 'positions'] as const) profileOf(heap, steps, column).fill(0);
}

/** A column of the latest run's profile, by step. */
export function profileOf(heap: Heap, steps: number, column: ProfileColumn): Float64Array {
  return new Float64Array(heap.memory.buffer, PROFILE_AT[column], Math.min(steps, PROFILE_STEPS));
}
