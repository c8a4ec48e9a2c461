// lib/jit/targets/wasm/queries.ts: a few queries that attention handles together, and the walks over them.

import type { FunctionBuilder, Local } from './builder.js';
import type { Expr, Operand } from './nodes.js';
import { i32 } from './scalars.js';

/** Queries over keys and values in a ring: row-major [capacity, dim], position p in slot p % capacity. */
export interface Queries {
  /** How many; they and their results follow each other: [rows, keyDim] and [rows, valueDim]. */
  readonly rows: Operand;
  readonly query: Local;
  readonly out: Local;
  readonly keys: Local;
  readonly values: Local;
  readonly scores: Local; // scratch of scoreBytes a row
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

/** Queries of one call at most, where they are tokens. */
export const QUERY_BLOCK = 4;

/** Scratch of one row: scores of all slots and what a block reaches beyond, fillers, and at inverseAt 1 / sum. */
export const scoreBytes = (capacity: number): number => inverseAt(capacity) + 16;
/** Where 1 / the sum of a row's weights lies. */
export const inverseAt = (capacity: number) => Math.ceil((capacity + QUERY_BLOCK) / 4) * 16 + 16;

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
