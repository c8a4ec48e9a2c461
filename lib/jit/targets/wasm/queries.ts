// lib/jit/targets/wasm/queries.ts: a few queries that attention handles together, and the walks over them and over the
// positions that they see.

import type { FunctionBuilder, Local } from './builder.js';
import type { Expr, Operand } from './nodes.js';
import { i32, select } from './scalars.js';

/** Queries over keys and values in a ring: row-major [capacity, dim], position p in slot p % capacity. */
export interface Queries {
  /** How many; they follow each other: [rows, keyDim]. */
  readonly rows: Operand;
  readonly query: Local;
  readonly keys: Local;
  readonly values: Local;
  readonly scores: Local; // scratch of SCORE_BYTES a row
  readonly sums: Local; // sumBytes a row
  readonly capacity: number;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly scale: number;
  /** First position that a row sees, and the number of positions from there to the last that one sees. */
  readonly first: Local;
  readonly count: Local;
  /** Of these, those that a row does not see: so many at the start and at the end. Absent: none. */
  readonly unseen?: (row: Expr) => { readonly before: Expr; readonly after: Expr };
  /** Added to the score of position first + j; for one row. */
  readonly mask?: (j: Expr) => Expr;
}

/** Positions that a query sees at most. */
export const mostSeen = (window: number | null, capacity: number): number =>
  Math.min(window ?? capacity, capacity);

export const leastOf = (a: Expr, b: Operand): Expr => select(a, b, i32.lt_u(a, b), 'i32');

/** Queries of one call at most, where they are tokens. */
export const QUERY_BLOCK = 4;

/**
 * Neighbouring positions whose scores are taken, and then their values: both stay in the first-level cache, and the next
 * block begins while this one ends. 8 to 32 did alike on a busy Xeon, in decoding and with prompts.
 */
export const BLOCK = 16;

/**
 * Whether keys and values are touched ahead. Where queries share them, many instructions are spent on each, and too few
 * loads are under way at a time: 3 heads took a tenth less time with it; a head alone took some percent more.
 */
export const touches = ({ rows }: Queries): boolean => rows !== 1;

/** Neighbouring slots: positions first + j to first + j + size - 1; at most BLOCK. */
export interface Block {
  readonly slot: Local;
  readonly j: Local;
  readonly size: Local;
}

/** Calls body for each block; none goes over the end of a ring. */
export function eachBlockOf(
  f: FunctionBuilder,
  { capacity, first, count }: Queries,
  body: (block: Block) => void,
): void {
  const [slot, j, size] = [f.local('i32', 'slot'), f.local('i32', 'j'), f.local('i32', 'size')];
  f.set(j, 0);
  f.set(slot, i32.rem_u(first, capacity));
  f.when(count, () =>
    f.repeat(() => {
      f.set(size, leastOf(i32.sub(count, j), BLOCK));
      f.set(size, leastOf(size, i32.sub(capacity, slot)));
      body({ slot, j, size });
      f.increase(j, size);
      f.increase(slot, size);
      f.set(slot, select(0, slot, i32.eq(slot, capacity), 'i32'));
      return i32.lt_u(j, count);
    }),
  );
}

/** Scratch of a row: a block's scores, later weights, and what fills their last vector up. */
export const SCORE_BYTES = BLOCK * 4 + 16;

/** Sums of a row: its largest score, in all lanes; the sum of its weights, by lanes; the weighted sum of the values. */
export const SUMS_AT = { largest: 0, total: 16, mixed: 32 } as const;
export const sumBytes = (valueDim: number): number => SUMS_AT.mixed + Math.ceil(valueDim / 4) * 16;

/** body for each row; no loop for one. */
export function eachRow(f: FunctionBuilder, { rows }: Queries, body: (row: Local | undefined) => void): void {
  if (rows === 1) {
    body(undefined);
    return;
  }
  const row = f.local('i32', 'row');
  f.loop(row, 0, rows, 1, () => body(row));
}

/** body for two rows at a time, then for the one that is left: two share each load of a key or a value. */
export function eachPair(
  f: FunctionBuilder,
  { rows }: Queries,
  body: (row: Local | undefined, rows: 1 | 2) => void,
): void {
  if (rows === 1) {
    body(undefined, 1);
    return;
  }
  const row = f.local('i32', 'row');
  f.loop(row, 0, i32.and(rows, -2), 2, () => body(row, 2));
  f.when(i32.and(rows, 1), () => body(row, 1));
}

export const atRow = (f: FunctionBuilder, base: Local, row: Local | undefined, step: number): Local =>
  row ? f.let('own', i32.add(base, i32.mul(row, step))) : base;
