// lib/jit/targets/webgpu/kernels/matvecFinish.ts: what a workgroup of a matrix-vector kernel has summed up in shared
// memory -> its outputs: what its splits have is added, Weights' scales and a norm's root are applied, and a thread hands
// each column (or pair of columns, for rotary positions) to the part that writes it.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';

/** Where one product's weights lie. */
export interface WeightRows {
  readonly words: ArrayRef; // u32x4, `rowVectors` a row
  readonly scales: ArrayRef | null; // f32: one; one a row; or `groups` a row
  readonly firstRow: number;
}

/** One output of the kernel: its columns, and what is done with them. */
export interface MatvecPart {
  readonly width: number;
  readonly products: readonly WeightRows[];
  /** Columns that one thread finishes together; null: each by itself. */
  readonly pairs: { readonly layout: 'halves' | 'pairs'; readonly headDim: number } | null;
  /**
   * Writes columns of a row.
   * @param columns one, or two for pairs
   * @param values for each column its products
   * @param local the thread's column in the workgroup's tile
   */
  finish(row: Expr, columns: readonly Expr[], values: readonly (readonly Expr[])[]): void;
  /**
   * For what needs several columns of the workgroup: runs in every thread before they are finished, and what it returns
   * runs after.
   */
  readonly around?: (firstColumn: Expr) => () => void;
}

/** Columns that a workgroup makes of a part. */
export function columnsOf(part: Pick<MatvecPart, 'products'>, { rows }: { readonly rows: number }): number {
  return rows / part.products.length;
}

/** Workgroups that the parts need together, each of so many weight rows. */
export function matvecWorkgroups(
  parts: readonly Pick<MatvecPart, 'products' | 'width'>[],
  shape: { readonly rows: number },
): number {
  return parts.reduce((sum, part) => sum + Math.ceil(part.width / columnsOf(part, shape)), 0);
}

/** Writes each part's kernel: workgroups are counted through the parts. */
export function eachPart(
  k: KernelBuilder,
  parts: readonly MatvecPart[],
  shape: { readonly rows: number },
  write: (part: MatvecPart, workgroup: Expr) => void,
): void {
  const workgroup = k.let('tile', k.builtin('workgroupX'));
  const from = (at: number, first: number): void => {
    const part = parts[at]!;
    const end = first + matvecWorkgroups([part], shape);
    const body = (): void => write(part, workgroup.sub(first));
    if (at === parts.length - 1) body();
    else k.if(workgroup.lt(end), body, () => from(at + 1, end));
  };
  from(0, 0);
}

/** What finishing needs to know of the whole product. */
export interface FinishSpec {
  readonly rows: number; // of x
  readonly inDim: number;
  readonly scales: 'none' | 'tensor' | 'row' | { readonly groupSize: number };
  /** The norm that x goes through. `rms` comes out of what is read anyway; `layer` needs its mean first. */
  readonly norm: { readonly kind: 'rms' | 'layer'; readonly epsilon: number } | null;
}

/** What the workgroup has. */
export interface HeldSums {
  readonly sums: ArrayRef; // f32 [splits, weight rows, rows of x]; a column's products are neighbours
  readonly rows: number; // weight rows
  readonly splits: number;
  /** Sums of squares of x, f32 [squareSplits, rows of x]; null: no norm needs them. */
  readonly squares: ArrayRef | null;
  readonly squareSplits: number;
}

/** Finishes the workgroup's columns of a part, from `first` on. All threads arrive, and what they hold is written. */
export function finishPart(
  k: KernelBuilder,
  spec: FinishSpec,
  part: MatvecPart,
  first: Expr,
  columns: number,
  held: HeldSums,
): void {
  const afterwards = part.around?.(first);
  const atOnce = part.pairs ? 2 : 1;
  const threads = (columns / atOnce) * spec.rows;
  const whole = (index: Expr): void => {
    const row = k.let('outRow', index.div(columns / atOnce));
    const local = k.let('local', index.rem(columns / atOnce).mul(atOnce));
    const places = Array.from({ length: atOnce }, (_, i) =>
      k.let('column', columnAt(part, first, local.add(i))),
    );
    k.if(places.at(-1)!.lt(part.width), () => {
      const root = held.squares && k.let('root', rootOf(spec, held, held.squares, row));
      const values = places.map((column, i) =>
        part.products.map((product, p) => {
          const own = local.add(i).mul(part.products.length).add(p);
          const place = own.mul(spec.rows).add(row);
          const sum = overSplits(held.sums, place, held.rows * spec.rows, held.splits);
          const scaled = rowScale(spec, product, sum, column);
          return k.let('value', root ? scaled.mul(root) : scaled);
        }),
      );
      part.finish(row, places, values);
    });
  };
  if (threads <= k.threads) k.if(k.localIndex.lt(threads), () => whole(k.localIndex));
  else k.for('index', k.localIndex, literal('u32', threads), whole, k.threads);
  afterwards?.();
}

function rootOf({ rows, inDim, norm }: FinishSpec, held: HeldSums, squares: ArrayRef, row: Expr): Expr {
  const square = overSplits(squares, row, rows, held.squareSplits);
  return square.div(inDim).add(norm!.epsilon).rsqrt();
}

function overSplits(array: ArrayRef, at: Expr, stride: number, splits: number): Expr {
  const parts = Array.from({ length: splits }, (_, split) => array.at(at.add(split * stride)));
  return parts.reduce((sum, part) => sum.add(part));
}

function rowScale(
  { scales: per }: FinishSpec,
  { scales, firstRow }: WeightRows,
  sum: Expr,
  column: Expr,
): Expr {
  if (!scales || typeof per !== 'string') return sum;
  return sum.mul(scales.at(per === 'tensor' ? 0 : column.add(firstRow)));
}

/** Column of a part from its place in the workgroup's tile: for pairs, neighbours there rotate together. */
export function columnAt({ pairs }: MatvecPart, first: Expr, local: Expr): Expr {
  if (pairs?.layout !== 'halves') return first.add(local);
  const half = pairs.headDim / 2;
  const pair = first.div(2).add(local.shr(1));
  return pair.div(half).mul(pairs.headDim).add(pair.rem(half)).add(local.and(1).mul(half));
}
