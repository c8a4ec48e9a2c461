// lib/jit/targets/webgpu/kernels/attendMatrices.ts: many queries over the cache on the adapter's matrix units: a prompt's
// attention. A workgroup has one head and 64 queries, a subgroup 16 of them; keys and values pass through shared memory
// 64 at a time, and each query keeps a running softmax. What units cannot do (a row's own factor) threads do, two a row.
// Source: Dao 2023, "FlashAttention-2", arXiv:2307.08691; Milakov and Gimelshein 2018, arXiv:1805.02867.

import type { ArrayRef, KernelBuilder, Matrix, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, vector } from '../../../kernels/expression.js';
import { matrixSide, matrixThreads } from '../../../kernels/kernel.js';
import type { AttendArrays } from './attend.js';

export interface AttendMatricesSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly queries: number;
  readonly headDim: number; // a multiple of 16
  readonly capacity: number;
  readonly window: number | null;
  readonly scale: number;
}

const subgroups = 4;
export const attendMatricesThreads = subgroups * matrixThreads;
/** Queries of a workgroup, and keys that pass at a time. */
export const queriesTogether = subgroups * matrixSide;
const keysTogether = 64;

/** Below any score, and finite: a query that has seen no key yet weighs what it has by exp2 of 0. */
const nothing = -1e30;

/** Columns of the result that are put together at a time. */
function chunkOf(headDim: number): number {
  return headDim % 64 === 0 ? 64 : headDim % 32 === 0 ? 32 : 16;
}

/** Numbers from one row to the next of what passes from units to threads. */
const stageStride = keysTogether + 4;
const weightStride = keysTogether / 8 + 1;
const rowStride = (headDim: number): number => headDim / 8 + 1;

export function attendMatricesSharedBytes(headDim: number): number {
  const rows = 16 * keysTogether * rowStride(headDim);
  return rows + subgroups * matrixSide * (4 * stageStride + 16 * weightStride);
}

/** Workgroups: rows of heads, and for each its blocks of queries, the last ones first: they see the most keys. */
export function attendMatricesWorkgroups(rows: number, queries: number): number {
  return rows * Math.ceil(queries / queriesTogether);
}

/**
 * Writes the kernel; the builder has attendMatricesThreads threads.
 * @param arrays q has all queries: [batch, heads, queries, headDim]
 * @param store writes two neighbouring elements of a query's result
 */
export function writeAttendMatrices(
  k: KernelBuilder,
  spec: AttendMatricesSpec,
  arrays: AttendArrays,
  store: (row: Expr, query: Expr, element: Expr, values: readonly [Expr, Expr]) => void,
): void {
  new Writer(k, spec, arrays).write(store);
}

/** Two threads share a row: each has every other pair of columns. */
interface OwnRow {
  readonly row: Expr; // in the subgroup, 0 to 15
  readonly pair: Expr; // first column of the thread's first pair
  /** In which order a pair is read, so that the threads of a subgroup meet in no bank. */
  readonly swap: Expr;
}

class Writer {
  readonly #rows: ArrayRef; // queries, then keys, then values, as halves
  readonly #stage: ArrayRef; // f32: scores or parts of the result
  readonly #weights: ArrayRef; // what values are weighed by, as halves

  constructor(
    readonly k: KernelBuilder,
    readonly spec: AttendMatricesSpec,
    readonly arrays: AttendArrays,
  ) {
    this.#rows = k.shared('rows', 'u32x4', keysTogether * rowStride(spec.headDim));
    this.#stage = k.shared('stage', 'f32', subgroups * matrixSide * stageStride);
    this.#weights = k.shared('weights', 'u32x4', subgroups * matrixSide * weightStride);
  }

  write(store: Parameters<typeof writeAttendMatrices>[3]): void {
    const { k, spec, arrays } = this;
    const { heads, kvHeads, queries, headDim, window } = spec;
    const blocks = Math.ceil(queries / queriesTogether);
    const workgroup = k.let('workgroup', k.builtin('workgroupX'));
    const rows = k.let('row', workgroup.div(blocks));
    const block = k.let('block', literal('u32', blocks - 1).sub(workgroup.rem(blocks)));
    const batch = k.let('batch', rows.div(heads));
    const kvRow = k.let('kvRow', batch.mul(kvHeads).add(rows.rem(heads).div(heads / kvHeads)));
    const start = k.let('start', arrays.start.at(batch));
    const count = k.let('count', arrays.count.at(batch));
    const firstQuery = k.let('firstQuery', block.mul(queriesTogether));
    const subgroup = k.let('subgroup', k.builtin('matrixGroup'));
    const lane = k.let('lane', k.localIndex.rem(matrixThreads));
    const own: OwnRow = {
      row: k.let('ownRow', lane.div(2)),
      pair: k.let('pair', lane.rem(2).mul(2)),
      swap: k.let('swap', lane.div(16)),
    };
    const query = k.let('query', firstQuery.add(subgroup.mul(matrixSide)).add(own.row));
    const isReal = k.let('isReal', query.bits('i32').lt(count).and(query.lt(queries)));
    const newest = k.let('newest', start.add(query.bits('i32')));
    const oldest = window === null ? literal('i32', 0) : k.let('oldest', newest.add(1 - window));

    this.#stageRows(queriesTogether, (place) => {
      const at = rows.mul(queries).add(firstQuery.add(place).min(queries - 1));
      return (i) => arrays.q.at(at.mul(headDim / 4).add(i)).mul(spec.scale * Math.LOG2E);
    });
    k.barrier();
    const stride = rowStride(headDim);
    const lefts = Array.from({ length: headDim / matrixSide }, (_, at) =>
      k.matrixLoad('left', 'halves', this.#rows, subgroup.mul(matrixSide * stride).add(2 * at), stride),
    );
    k.barrier();

    const largest = k.variable('largest', literal('f32', nothing));
    const total = k.variable('total', literal('f32', 0));
    const results = Array.from({ length: headDim / 2 }, () => k.variable('result', literal('f32', 0)));
    // Keys that some query of the block sees; a block of padding sees none.
    const lastQuery = firstQuery.add(queriesTogether).min(queries).bits('i32').min(count);
    const end = k.uniform(
      'end',
      firstQuery.bits('i32').lt(count).select(start.add(lastQuery), literal('i32', 0)),
    );
    const begin = k.uniform(
      'begin',
      window === null
        ? literal('i32', 0)
        : start
            .add(firstQuery.bits('i32'))
            .add(1 - window)
            .max(0),
    );
    k.for(
      'first',
      begin,
      end,
      (first) => {
        const slot = (place: Expr): Expr => {
          const position = first.add(place.bits('i32')).min(end.sub(1)).bits('u32');
          return kvRow
            .mul(spec.capacity)
            .add(position.rem(spec.capacity))
            .mul(headDim / 4);
        };
        const read = (array: ArrayRef) => (place: Expr) => {
          const at = k.let('slot', slot(place));
          return (i: number | Expr) => array.at(at.add(i));
        };
        this.#stageRows(keysTogether, read(arrays.keys));
        k.barrier();
        this.#scores(lefts, subgroup);
        k.barrier();
        this.#stageRows(keysTogether, read(arrays.values));
        const sees = (column: Expr): Expr => {
          const position = first.add(column.bits('i32'));
          return position.le(newest).and(position.ge(oldest)).and(isReal);
        };
        const keep = this.#weigh(subgroup, own, largest, total, sees);
        k.barrier();
        this.#mix(subgroup, own, results, keep);
      },
      keysTogether,
    );
    const all = k.let('all', total.value.add(total.value.subgroup('subgroupShuffleXor', 1)));
    const factor = k.let('factor', all.gt(0).select(literal('f32', 1).div(all), 0));
    k.if(query.lt(queries), () => {
      const chunk = chunkOf(headDim);
      for (let first = 0, i = 0; first < headDim; first += chunk) {
        for (let at = 0; at < chunk; at += 4, i += 2) {
          const pair = [results[i]!, results[i + 1]!].map(({ value }) => value.mul(factor));
          const [low, high] = this.#inOrder(own, pair[0]!, pair[1]!);
          store(rows, query, own.pair.add(first + at), [low, high]);
        }
      }
    });
  }

  /** Puts rows into shared memory as halves. @param read a row's vectors of four, by the row's place */
  #stageRows(count: number, read: (place: Expr) => (i: Expr) => Expr): void {
    const { k, spec } = this;
    const along = spec.headDim / 8;
    const all = count * along;
    for (let task = 0; task < all; task += k.threads) {
      const index = k.let('task', k.localIndex.add(task));
      const body = (): void => {
        const place = k.let('place', index.div(along));
        const part = k.let('part', index.rem(along));
        const row = read(place);
        const four = [0, 1].map((i) => k.let('four', row(part.mul(2).add(i))));
        const words = four.flatMap((each) =>
          [0, 2].map((lane) => vector(each.lane(lane), each.lane(lane + 1)).packHalves()),
        );
        k.store(this.#rows, place.mul(rowStride(spec.headDim)).add(part), vector(...words));
      };
      if (task + k.threads <= all) body();
      else k.if(index.lt(all), body);
    }
  }

  #stageAt(subgroup: Expr): Expr {
    return subgroup.mul(matrixSide * stageStride);
  }

  /** Queries times keys, to the stage: [16, 64] a subgroup. */
  #scores(lefts: readonly Matrix[], subgroup: Expr): void {
    const { k, spec } = this;
    const stride = rowStride(spec.headDim);
    for (let column = 0; column < keysTogether; column += matrixSide) {
      const sum = k.matrixSum('score', 'halves');
      for (const [at, left] of lefts.entries()) {
        const right = k.matrixLoad(
          'right',
          'halves',
          this.#rows,
          literal('u32', column * stride + 2 * at),
          stride,
        );
        k.matrixMultiplyAdd(sum, left, right);
      }
      k.matrixStore(sum, this.#stage, this.#stageAt(subgroup).add(column), stageStride);
    }
  }

  /** The thread's pairs of a row of the stage: values and the column of the first read. */
  #pairs({ row, pair, swap }: OwnRow, subgroup: Expr, columns: number): { at: Expr; values: [Expr, Expr] }[] {
    const { k } = this;
    const base = k.let('base', this.#stageAt(subgroup).add(row.mul(stageStride)).add(pair));
    return Array.from({ length: columns / 4 }, (_, i) => ({
      at: pair.add(4 * i),
      values: [
        k.let('one', this.#stage.at(base.add(4 * i).add(swap))),
        k.let('other', this.#stage.at(base.add(4 * i + 1).sub(swap))),
      ],
    }));
  }

  /** A pair as it lies in memory. */
  #inOrder({ swap }: OwnRow, one: Expr, other: Expr): readonly [Expr, Expr] {
    const isSwapped = swap.ne(0);
    return [isSwapped.select(other, one), isSwapped.select(one, other)];
  }

  /** Scores -> weights against the largest so far. @returns what older results are multiplied by */
  #weigh(
    subgroup: Expr,
    own: OwnRow,
    largest: Variable,
    total: Variable,
    sees: (column: Expr) => Expr,
  ): Expr {
    const { k } = this;
    const lowest = literal('f32', nothing);
    const scores = this.#pairs(own, subgroup, keysTogether).flatMap(({ at, values: [one, other] }) => {
      const [first, second] = [at.add(own.swap), at.add(1).sub(own.swap)];
      return [
        k.let('score', sees(first).select(one, lowest)),
        k.let('score', sees(second).select(other, lowest)),
      ];
    });
    const most = k.let('most', scores.reduce((held, score) => held.max(score))); // biome-ignore format: short
    const both = k.let('both', most.max(most.subgroup('subgroupShuffleXor', 1)));
    const next = k.let('next', largest.value.max(both));
    const keep = k.let('keep', largest.value.sub(next).unary('exp2'));
    k.set(largest, next);
    // A query that sees nothing yet: its scores are `nothing`, and so is the largest.
    const isSeen = k.let('isSeen', next.gt(nothing / 2));
    const weights = scores.map((score) =>
      k.let('weight', isSeen.select(score.sub(next).unary('exp2'), literal('f32', 0))),
    );
    k.set(total, weights.reduce((sum, weight) => sum.add(weight), total.value.mul(keep))); // biome-ignore format: short
    const base = k.let('weightsAt', subgroup.mul(matrixSide).add(own.row).mul(weightStride));
    // The thread has words 0, 2, 4, ... or 1, 3, 5, ...; its neighbour the others: a vector is two of each.
    for (let i = 0; i < weights.length; i += 4) {
      const word = (first: number): Expr =>
        k.let('word', vector(...this.#inOrder(own, weights[first]!, weights[first + 1]!)).packHalves());
      const [one, two] = [word(i), word(i + 2)];
      const [theirs, next2] = [one, two].map((mine) =>
        k.let('theirs', mine.subgroup('subgroupShuffleXor', 1)),
      ) as [Expr, Expr];
      k.if(own.pair.eq(0), () => k.store(this.#weights, base.add(i / 4), vector(one, theirs, two, next2)));
    }
    return keep;
  }

  /** Adds the weighed values to the results, some columns at a time. */
  #mix(subgroup: Expr, own: OwnRow, results: readonly Variable[], keep: Expr): void {
    const { k, spec } = this;
    const stride = rowStride(spec.headDim);
    const chunk = chunkOf(spec.headDim);
    const base = subgroup.mul(matrixSide * weightStride);
    const lefts = Array.from({ length: keysTogether / matrixSide }, (_, at) =>
      k.matrixLoad('left', 'halves', this.#weights, base.add(2 * at), weightStride),
    );
    for (let first = 0; first < spec.headDim; first += chunk) {
      for (let column = 0; column < chunk; column += matrixSide) {
        const sum = k.matrixSum('mixed', 'halves');
        for (const [at, left] of lefts.entries()) {
          const offset = at * matrixSide * stride + (first + column) / 8;
          const right = k.matrixLoad('right', 'halves', this.#rows, literal('u32', offset), stride, 'across');
          k.matrixMultiplyAdd(sum, left, right);
        }
        k.matrixStore(sum, this.#stage, this.#stageAt(subgroup).add(column), stageStride);
      }
      k.barrier();
      this.#pairs(own, subgroup, chunk).forEach(({ values }, i) => {
        for (const [which, value] of values.entries()) {
          const result = results[(first / chunk) * (chunk / 2) + 2 * i + which]!;
          k.set(result, result.value.mul(keep).add(value));
        }
      });
      k.barrier();
    }
  }
}
