// lib/jit/targets/webgpu/kernels/attendMatrices.ts: many queries over the cache on the adapter's matrix units: a prompt's
// attention. A workgroup has some queries of neighbouring heads (attendTile.ts); keys and values pass through shared
// memory, and each query keeps a running softmax. What units cannot do (a row's own factor) threads do.
// Source: Dao 2023, "FlashAttention-2", arXiv:2307.08691; Milakov and Gimelshein 2018, arXiv:1805.02867.
//
// Results stay in the units. So a query's weights are made against a held score, not against the largest so far: it is
// replaced, and the result multiplied by what that makes of it, only when a score exceeds it by more than `slack`.
//
// A round has two phases with a barrier after each: scores of its keys; then weights, while its values and the next keys
// are stored. What the weights make of the values is added before the next scores, without a barrier in between.

import type { ArrayRef, KernelBuilder, Matrix, Variable } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat, vector } from '../../../kernels/expression.js';
import { matrixSide } from '../../../kernels/kernel.js';
import type { AttendArrays } from './attend.js';
import type { AttendLayout, AttendMatricesSpec, AttendTile } from './attendTile.js';
import { attendLayout } from './attendTile.js';

/** The score of a key that a query does not see. */
const hidden = -1e30;
/** Held before the first key: far above `hidden`, so that hidden keys weigh 0, and below any score. */
const nothing = -1e15;
/** A score may exceed the held one by this power of two: weights up to 2^8, float16 holds 2^15. */
const slack = 8;

/**
 * Writes the kernel; the builder has as many threads as attendLayout says.
 * @param arrays q has all queries: [batch, heads, queries, headDim]; keys and values are f32x4, or halves in u32x4
 * @param store writes four neighbouring elements of a query's result: vector `place` of its row
 */
export function writeAttendMatrices(
  k: KernelBuilder,
  spec: AttendMatricesSpec,
  tile: AttendTile,
  arrays: AttendArrays,
  store: Store,
): void {
  new Writer(k, spec, tile, arrays).write(store);
}

type Store = (row: Expr, query: Expr, place: Expr, value: Expr) => void;

/** The same for a whole workgroup. */
interface Block {
  readonly row: Expr; // first of its rows of [batch, heads]
  readonly kvRow: Expr; // of [batch, kvHeads]
  readonly query: Expr; // first of each of its heads
  readonly position: Expr; // i32, of that query
  readonly start: Expr; // i32
  readonly count: Expr; // i32
}

/** Positions, i32. */
interface Range {
  readonly begin: Expr;
  readonly end: Expr;
}

/** Threads share out a row of scores; this thread's share. */
interface OwnRow {
  readonly row: Expr; // of the workgroup's
  readonly query: Expr; // its number
  /** Vectors of four columns, by the thread's number for them. */
  readonly places: readonly Expr[];
  /** Whether vectors 0 and 1, 2 and 3 and so on have changed places; null: they have not. */
  readonly isSwapped: Expr | null;
  readonly threads: number; // neighbours that have the same row
}

/** Where a subgroup's matrices are. */
interface OwnMatrices {
  readonly row: Expr; // first of its queries
  readonly share: Expr; // of keys, and of the result's columns
}

/** A query's running softmax, the same in all threads of its row but for `total`: of the thread's own columns. */
interface Running {
  readonly held: Variable;
  readonly total: Variable;
}

/** Sums by rows and columns of 16. */
type Sums = readonly (readonly Matrix[])[];

class Writer {
  readonly #layout: AttendLayout;
  /** Keys, values, scores and weights; before the first keys: queries. */
  readonly #memory: ArrayRef;
  /** Element 0 is 1 if a query's held score was replaced in this round. */
  readonly #replaced: ArrayRef;

  constructor(
    readonly k: KernelBuilder,
    readonly spec: AttendMatricesSpec,
    readonly tile: AttendTile,
    readonly arrays: AttendArrays,
  ) {
    this.#layout = attendLayout(spec, tile);
    this.#memory = k.shared('memory', 'u32x4', this.#layout.vectors);
    this.#replaced = k.shared('replaced', 'u32', 1);
  }

  write(store: Store): void {
    const { k, spec, tile } = this;
    const block = this.#block();
    const lefts = this.#queries(block);
    const own = this.#ownRow(block);
    const results = this.#sums('result', spec.headDim / matrixSide / tile.columnGroups);
    const running = {
      held: k.variable('held', literal('f32', nothing)),
      total: k.variable('total', literal('f32', 0)),
    };
    const range = this.#range(block);
    const { begins } = this.#layout;
    this.#store(begins.keys, this.#keysAt(range.begin, block, range));
    const ahead = tile.ahead
      ? this.#ahead(range.begin, block, range).map((each) => each.map((value) => k.variable('ahead', value)))
      : null;
    k.barrier();
    k.for(
      'key',
      range.begin,
      range.end,
      (at) => {
        this.#scores(lefts);
        k.barrier();
        const [values, keys] =
          ahead?.map((each) => each.map(({ value }) => value)) ?? this.#ahead(at, block, range);
        const keep = this.#weigh(own, running, at, block);
        this.#store(begins.values, values!);
        this.#store(begins.keys, keys!);
        if (ahead) {
          const next = this.#ahead(at.add(tile.keys), block, range);
          for (const [i, each] of ahead.entries())
            for (const [j, room] of each.entries()) k.set(room, next[i]![j]!);
        }
        k.if(k.uniformLoad('isReplaced', this.#replaced).ne(0), () => {
          k.if(k.localIndex.eq(0), () => k.store(this.#replaced, 0, 0));
          this.#pass(results, own, (_, value) => value.mul(splat(keep, 4)));
        });
        this.#mix(results);
      },
      tile.keys,
    );
    this.#finish(results, own, running, block, store);
  }

  /** What the workgroup has to do: some queries of neighbouring heads. */
  #block(): Block {
    const { k, spec, arrays } = this;
    const { heads, queries } = this.#layout;
    const blocks = Math.ceil(spec.queries / queries);
    const bundles = (spec.batch * spec.heads) / heads;
    const workgroup = k.let('workgroup', k.builtin('workgroupX'));
    const row = k.let('row', workgroup.rem(bundles).mul(heads));
    // The last queries come first: they see the most keys.
    const block = literal('u32', blocks - 1).sub(workgroup.div(bundles));
    const query = k.let('firstQuery', block.mul(queries));
    const batch = k.let('batch', row.div(spec.heads));
    const start = k.let('start', arrays.start.at(batch));
    return {
      ...{ row, query, start, count: k.let('count', arrays.count.at(batch)) },
      kvRow: k.let('kvRow', row.div(spec.heads / spec.kvHeads)),
      position: k.let('first', start.add(query.bits('i32'))),
    };
  }

  /** Keys that some query of the block sees; a block of padding sees none. */
  #range({ query, start, count, position }: Block): Range {
    const { k, spec } = this;
    const past = query.add(this.#layout.queries).min(spec.queries).bits('i32').min(count);
    const isPadding = query.bits('i32').ge(count);
    const end = k.uniform('end', isPadding.select(literal('i32', 0), start.add(past)));
    const begin = spec.window === null ? literal('i32', 0) : position.add(1 - spec.window).max(0);
    return { begin: k.uniform('begin', begin), end };
  }

  /** Values from position `at` on, and the keys after those of the same positions: this thread's vectors. */
  #ahead(at: Expr, block: Block, range: Range): [Expr[], Expr[]] {
    return [
      this.#tileOf(this.arrays.values, at, block, range),
      this.#keysAt(at.add(this.tile.keys), block, range),
    ];
  }

  #keysAt(at: Expr, block: Block, range: Range): Expr[] {
    return this.#tileOf(this.arrays.keys, at, block, range);
  }

  #tileOf(array: ArrayRef, at: Expr, { kvRow }: Block, { end }: Range): Expr[] {
    const { capacity } = this.spec;
    return this.#read(this.tile.keys, (place) => {
      const position = at.add(place.bits('i32')).min(end.sub(1)).bits('u32');
      return this.#rowOf(array, kvRow.mul(capacity).add(position.rem(capacity)));
    });
  }

  #finish(results: Sums, own: OwnRow, { total }: Running, block: Block, store: Store): void {
    const { k, spec } = this;
    const { query } = own;
    const all = this.#overRow(own, total.value, 'add');
    const isReal = k.let('isReal', query.bits('i32').lt(block.count));
    const factor = k.let('factor', isReal.select(literal('f32', 1).div(all), 0));
    const row = k.let('outRow', block.row.add(own.row.div(this.#layout.queries)));
    this.#pass(results, own, ({ place, isInside }, value) => {
      const isAsked = query.lt(spec.queries);
      k.if(isInside ? isAsked.and(isInside) : isAsked, () => {
        const scaled = value.mul(splat(factor, 4));
        store(row, query, place, splat(isReal, 4).select(scaled, literal('f32x4', 0)));
      });
      return undefined;
    });
  }

  get #own(): OwnMatrices {
    const { k, tile } = this;
    const subgroup = k.builtin('matrixGroup');
    return {
      row: subgroup.div(tile.columnGroups).mul(tile.matrixRows * matrixSide),
      share: subgroup.rem(tile.columnGroups),
    };
  }

  #sums(name: string, columns: number): Sums {
    const { k, tile } = this;
    return Array.from({ length: tile.matrixRows }, () =>
      Array.from({ length: columns }, () => k.matrixSum(name, 'halves')),
    );
  }

  /** Queries, scaled, by rows of 16 and depth. */
  #queries(block: Block): Matrix[][] {
    const { k, spec, tile, arrays } = this;
    const { rows, queries, strides } = this.#layout;
    k.if(k.localIndex.eq(0), () => k.store(this.#replaced, 0, 0));
    const read = this.#read(rows, (place) => {
      const row = block.row.add(place.div(queries));
      const query = block.query.add(place.rem(queries)).min(spec.queries - 1);
      return this.#rowOf(arrays.q, row.mul(spec.queries).add(query), spec.scale * Math.LOG2E);
    });
    this.#store(0, read, rows);
    k.barrier();
    const first = k.let('leftAt', this.#own.row.mul(strides.tile));
    const lefts = Array.from({ length: tile.matrixRows }, (_, i) =>
      Array.from({ length: spec.headDim / matrixSide }, (_, at) =>
        k.matrixLoad(
          'left',
          'halves',
          this.#memory,
          first.add(i * matrixSide * strides.tile + 2 * at),
          strides.tile,
        ),
      ),
    );
    k.barrier();
    return lefts;
  }

  /** A row's vectors of eight halves. */
  #rowOf(array: ArrayRef, row: Expr, factor = 1): (part: Expr) => Expr {
    const { k, spec } = this;
    const first = k.let('at', row.mul(spec.headDim / (array.element === 'u32x4' ? 8 : 4)));
    return (part) => {
      if (array.element === 'u32x4') return array.at(first.add(part));
      const fours = [0, 1].map((i) => {
        const four = array.at(first.add(part.mul(2)).add(i));
        return k.let('four', factor === 1 ? four : four.mul(factor));
      });
      return packed(fours);
    };
  }

  /** Number of the thread's task `i` of a tile of rows: the row, and the vector in it. */
  #task(i: number): { readonly place: Expr; readonly part: Expr } {
    const { k } = this;
    const along = this.spec.headDim / 8;
    if (k.threads % along !== 0) {
      const index = k.localIndex.add(i * k.threads);
      return { place: index.div(along), part: index.rem(along) };
    }
    return { place: k.localIndex.div(along).add((i * k.threads) / along), part: k.localIndex.rem(along) };
  }

  /** Reads this thread's vectors of some rows; of those past the last one, some others. */
  #read(rows: number, rowAt: (place: Expr) => (part: Expr) => Expr): Expr[] {
    const { k, spec } = this;
    return Array.from({ length: Math.ceil((rows * spec.headDim) / 8 / k.threads) }, (_, i) => {
      const { place, part } = this.#task(i);
      return k.let('ahead', rowAt(place)(part));
    });
  }

  /** Puts into shared memory what `#read` gave. */
  #store(first: number, vectors: readonly Expr[], rows = this.tile.keys): void {
    const { k, spec } = this;
    const all = (rows * spec.headDim) / 8;
    for (const [i, value] of vectors.entries()) {
      const { place, part } = this.#task(i);
      const store = (): void =>
        k.store(this.#memory, place.mul(this.#layout.strides.tile).add(part).add(first), value);
      if ((i + 1) * k.threads <= all) store();
      else k.if(k.localIndex.lt(all - i * k.threads), store);
    }
  }

  /** Queries times keys, to the stage. */
  #scores(lefts: readonly (readonly Matrix[])[]): void {
    const { k, tile } = this;
    const { strides, begins } = this.#layout;
    const width = tile.keys / tile.columnGroups;
    const sums = this.#sums('score', width / matrixSide);
    const first = k.let('keysAt', this.#own.share.mul(width * strides.tile).add(begins.keys));
    for (let at = 0; at < lefts[0]!.length; at++) {
      for (let column = 0; column < width / matrixSide; column++) {
        const offset = first.add(column * matrixSide * strides.tile + 2 * at);
        const right = k.matrixLoad('right', 'halves', this.#memory, offset, strides.tile);
        for (const [i, row] of sums.entries()) k.matrixMultiplyAdd(row[column]!, lefts[i]![at]!, right);
      }
    }
    this.#eachStaged(sums, (sum, offset) => k.matrixStore(sum, this.#memory, offset, strides.stage));
  }

  /** Runs for sums that lie in the stage side by side. */
  #eachStaged(sums: Sums, run: (sum: Matrix, offset: Expr) => void): void {
    const { k, tile } = this;
    const { strides, begins } = this.#layout;
    const { row, share } = this.#own;
    const width = tile.keys / tile.columnGroups / 4;
    const first = k.let('stageAt', row.mul(strides.stage).add(share.mul(width)).add(begins.stage));
    for (const [i, columns] of sums.entries())
      for (const [j, sum] of columns.entries()) run(sum, first.add((i * strides.stage + j / 4) * matrixSide));
  }

  #ownRow(block: Block): OwnRow {
    const { k, tile } = this;
    const threads = k.threads / this.#layout.rows;
    const share = k.localIndex.rem(threads);
    const each = tile.keys / 4 / threads;
    const row = k.let('ownRow', k.localIndex.div(threads));
    // Eight neighbouring threads read from different banks.
    const isEven = this.#layout.strides.stage % 2 === 0;
    const odd = each * threads <= 8 ? k.localIndex.div(4).rem(2) : share.rem(2);
    const turn = isEven ? odd : share.div(Math.max(1, 8 / each)).mul(8 / threads);
    return {
      ...{ row, threads, isSwapped: isEven ? k.let('isSwapped', odd.ne(0)) : null },
      query: k.let('query', block.query.add(row.rem(this.#layout.queries))),
      places: Array.from({ length: each }, (_, i) => {
        const own = !isEven && each * threads <= 8 ? literal('u32', i) : turn.xor(i);
        return share.mul(each).add(own);
      }),
    };
  }

  /** The sum or the largest over a row's threads. */
  #overRow({ threads }: OwnRow, value: Expr, op: 'add' | 'max'): Expr {
    const { k } = this;
    let held = value;
    for (let mask = 1; mask < threads; mask *= 2) {
      const one = k.let('one', held);
      const other = one.subgroup('subgroupShuffleXor', mask);
      held = op === 'add' ? one.add(other) : one.max(other);
    }
    return k.let('all', held);
  }

  #stageAt({ row }: OwnRow): Expr {
    const { strides, begins } = this.#layout;
    return this.k.let('ownAt', row.mul(strides.stage).add(begins.stage));
  }

  /**
   * Scores -> weights.
   * @param at position of the round's first key
   * @returns what the query's older results are multiplied by
   */
  #weigh(own: OwnRow, { held, total }: Running, at: Expr, block: Block): Expr {
    const { k } = this;
    const { strides, begins } = this.#layout;
    const from = this.#stageAt(own);
    const scores = own.places.map((place) =>
      k.variable('score', this.#memory.at(from.add(place)).bits('f32x4')),
    );
    this.#hide(own, scores, at, block);
    const four = k.let(
      'four',
      scores.map(({ value }) => value).reduce((a, b) => a.max(b)),
    );
    const most = this.#overRow(own, largestLane(four), 'max');
    const isAbove = k.let('isAbove', most.gt(held.value.add(slack)));
    k.if(isAbove.and(held.value.gt(nothing / 2)), () => k.store(this.#replaced, 0, 1));
    const next = k.let('next', isAbove.select(most, held.value));
    const keep = k.let('keep', held.value.sub(next).unary('exp2'));
    k.set(held, next);
    const weights = scores.map(({ value }) => k.let('weight', value.sub(splat(next, 4)).unary('exp2')));
    const sum = k.let('sum', weights.reduce((a, b) => a.add(b))); // biome-ignore format: short
    const lanes = sum
      .lane(0)
      .add(sum.lane(1))
      .add(sum.lane(2).add(sum.lane(3)));
    k.set(total, total.value.mul(keep).add(lanes));
    const to = k.let('weightsAt', own.row.mul(strides.weights).add(begins.weights));
    for (let i = 0; i < weights.length; i += 2)
      k.store(this.#memory, to.add(own.places[i]!.div(2)), packed(weights.slice(i, i + 2), own.isSwapped));
    return keep;
  }

  /** Hides what the query does not see, where some query of the block does not see all keys of the round. */
  #hide(own: OwnRow, scores: readonly Variable[], at: Expr, { start, position }: Block): void {
    const { k, spec, tile } = this;
    const { window } = spec;
    const isNew = at.add(tile.keys - 1).gt(position);
    const isOld = window === null ? null : at.lt(position.add(this.#layout.queries - window));
    const lanes = vector(...[0, 1, 2, 3].map((lane) => literal('i32', lane)));
    k.if(isOld ? isNew.or(isOld) : isNew, () => {
      const newest = k.let('newest', start.add(own.query.bits('i32')));
      for (const [i, score] of scores.entries()) {
        const first = at.add(own.places[i]!.mul(4).bits('i32'));
        const positions = k.let('positions', splat(first, 4).add(lanes));
        const isPast = positions.le(splat(newest, 4));
        const isSeen = window === null ? isPast : isPast.and(positions.gt(splat(newest.sub(window), 4)));
        k.set(score, isSeen.select(score.value, literal('f32x4', hidden)));
      }
    });
  }

  /** Adds the weighed values to the results. */
  #mix(results: Sums): void {
    const { k, spec, tile } = this;
    const { strides, begins } = this.#layout;
    const { row, share } = this.#own;
    const weightsAt = k.let('weightsFrom', row.mul(strides.weights).add(begins.weights));
    const width = spec.headDim / tile.columnGroups / 8;
    const valuesAt = k.let('valuesAt', share.mul(width).add(begins.values));
    for (let key = 0; key < tile.keys; key += matrixSide) {
      const lefts = results.map((_, i) => {
        const offset = weightsAt.add(i * matrixSide * strides.weights + key / 8);
        return k.matrixLoad('left', 'halves', this.#memory, offset, strides.weights);
      });
      for (let column = 0; column < results[0]!.length; column++) {
        const offset = valuesAt.add(key * strides.tile + 2 * column);
        const right = k.matrixLoad('right', 'halves', this.#memory, offset, strides.tile, 'across');
        for (const [i, left] of lefts.entries()) k.matrixMultiplyAdd(results[i]![column]!, left, right);
      }
    }
  }

  /**
   * Sends the results through the stage, some columns at a time; all threads have to arrive.
   * @param visit one vector of the thread's row: its place in the result's row, and what it is. What it returns becomes
   *   the result.
   */
  #pass(results: Sums, own: OwnRow, visit: (column: StagedColumn, value: Expr) => Expr | undefined): void {
    const { k, spec, tile } = this;
    const { strides } = this.#layout;
    const width = tile.keys / tile.columnGroups; // of a subgroup's part of the stage
    const whole = spec.headDim / tile.columnGroups;
    for (let begin = 0; begin < whole; begin += width) {
      const end = Math.min(begin + width, whole);
      const sums = results.map((columns) => columns.slice(begin / matrixSide, end / matrixSide));
      this.#eachStaged(sums, (sum, offset) => k.matrixStore(sum, this.#memory, offset, strides.stage));
      k.barrier();
      const from = this.#stageAt(own);
      let isChanged = false;
      for (const staged of own.places) {
        const inShare = staged.rem(width / 4);
        const place = staged.div(width / 4).mul(whole / 4).add(inShare).add(begin / 4); // biome-ignore format: short
        const isInside = end - begin === width ? null : inShare.lt((end - begin) / 4);
        const value = k.let('passed', this.#memory.at(from.add(staged)).bits('f32x4'));
        const changed = visit({ place, isInside }, value);
        if (!changed) continue;
        k.store(this.#memory, from.add(staged), changed.bits('u32x4'));
        isChanged = true;
      }
      k.barrier();
      if (!isChanged) continue;
      this.#eachStaged(sums, (sum, offset) => k.matrixReload(sum, this.#memory, offset, strides.stage));
      k.barrier();
    }
  }
}

interface StagedColumn {
  readonly place: Expr; // vector of the result's row
  /** Whether the result has it; null: it does. */
  readonly isInside: Expr | null;
}

/** Two f32x4 as eight halves. @param isSwapped whether the second comes first */
function packed(fours: readonly Expr[], isSwapped: Expr | null = null): Expr {
  const pair = (four: Expr, lane: number): Expr => vector(four.lane(lane), four.lane(lane + 1)).packHalves();
  const words = fours.flatMap((four) => [pair(four, 0), pair(four, 2)]);
  return vector(...words.map((word, i) => isSwapped?.select(words[(i + 2) % 4]!, word) ?? word));
}

function largestLane(four: Expr): Expr {
  return four
    .lane(0)
    .max(four.lane(1))
    .max(four.lane(2).max(four.lane(3)));
}
