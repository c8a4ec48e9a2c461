// lib/jit/moves.ts: copies that are meant to happen at once -> copies one after another, with the same result.

import type { CopyStep, Place } from './steps.js';

/**
 * Orders copies so that none overwrites what another has still to read.
 * @param moves each place is written at most once; two places are the same or do not overlap
 * @param aside makes room for a value that has to step aside, where copies go round in a circle
 */
export function orderMoves(moves: readonly CopyStep[], aside: (bytes: number) => Place): CopyStep[] {
  let pending = moves.filter((move) => !samePlace(move.from, move.to));
  const ordered: CopyStep[] = [];
  while (pending.length > 0) {
    const free = pending.find((move) =>
      pending.every((other) => other === move || !samePlace(other.from, move.to)),
    );
    if (free) {
      ordered.push(free);
      pending = pending.filter((move) => move !== free);
      continue;
    }
    // A circle, such as a swap: one value steps aside, and its readers follow it.
    const { from, bytes } = pending[0]!;
    const place = aside(bytes);
    ordered.push({ kind: 'copy', from, to: place, bytes });
    pending = pending.map((move) => (samePlace(move.from, from) ? { ...move, from: place } : move));
  }
  return ordered;
}

function samePlace(a: Place, b: Place): boolean {
  if (a.space === 'arena' || b.space === 'arena') {
    return a.space === 'arena' && b.space === 'arena' && a.offset === b.offset;
  }
  return a.space === b.space && a.index === b.index;
}
