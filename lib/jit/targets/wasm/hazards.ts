// lib/jit/targets/wasm/hazards.ts: decides before which steps all threads have to meet.
// A kernel is either split, each thread doing a part of its units, or done whole by every thread, where that costs less
// than meeting: all then write the same values to the same place, and each may read its own at once.

import type { Place } from '../../steps.js';

/** Bytes that a step reads or writes. */
export interface Range {
  readonly place: Place;
  readonly bytes: number;
}

export interface Access {
  readonly reads: readonly Range[];
  readonly writes: readonly Range[];
  /** Each thread does a part; else every thread does all. */
  readonly split: boolean;
}

/** What was read and written since the threads last met. */
export class Hazards {
  private pending: Access[] = [];

  /** Takes note of a step; true if the threads must meet before it. */
  needsBarrier(next: Access): boolean {
    const needed = this.pending.some((earlier) => conflicts(earlier, next));
    if (needed) this.pending = [];
    this.pending.push(next);
    return needed;
  }

  /** The threads meet here. */
  clear(): void {
    this.pending = [];
  }
}

function conflicts(earlier: Access, next: Access): boolean {
  const overlap = (a: readonly Range[], b: readonly Range[]) =>
    a.some((one) => b.some((other) => touches(one, other)));
  // Reading what another thread wrote a part of; writing what another may still read, or may still write.
  return (
    (earlier.split && overlap(earlier.writes, next.reads)) ||
    overlap(earlier.writes, next.writes) ||
    overlap(earlier.reads, next.writes)
  );
}

function touches(a: Range, b: Range): boolean {
  if (a.place.space === 'arena' && b.place.space === 'arena')
    return a.place.offset < b.place.offset + b.bytes && b.place.offset < a.place.offset + a.bytes;
  if (a.place.space === 'arena' || b.place.space === 'arena') return false;
  return a.place.space === b.place.space && a.place.index === b.place.index;
}
