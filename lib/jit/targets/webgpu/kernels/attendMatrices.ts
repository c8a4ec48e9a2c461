// lib/jit/targets/webgpu/kernels/attendMatrices.ts: many queries over the cache on the adapter's matrix units: a prompt's
// attention. A workgroup has some queries of neighbouring heads (attendBlock.ts; how it is cut: attendTile.ts); keys and
// values pass through shared memory (attendRows.ts), and each query keeps a running softmax (attendSoftmax.ts). What
// units cannot do (a row's own factor) threads do (attendStage.ts).
// Source: Dao 2023, "FlashAttention-2", arXiv:2307.08691.
//
// A round has two phases with a barrier after each: scores of its keys; then weights, while its values and the next keys
// are stored. What the weights make of the values is added before the next scores, without a barrier in between. Results
// stay in the units, except where a query's held score was replaced.

import type { ArrayRef, KernelBuilder, Matrix } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal, splat } from '../../../kernels/expression.js';
import { matrixSide } from '../../../kernels/kernel.js';
import { reduceNeighbours } from '../../../kernels/reduce.js';
import type { AttendArrays } from './attend.js';
import type { Block, KeyRange } from './attendBlock.js';
import { blockOf, keysSeen } from './attendBlock.js';
import { readRows, rowOf, storeRows } from './attendRows.js';
import type { Running } from './attendSoftmax.js';
import { beginSoftmax, weigh } from './attendSoftmax.js';
import type { OwnRow, Sums } from './attendStage.js';
import { ownMatrices, ownRow, passResults, stageSums } from './attendStage.js';
import type { AttendKernel, AttendMatricesSpec, AttendTile } from './attendTile.js';
import { attendKernel } from './attendTile.js';

/** Writes four neighbouring elements of a query's result: vector `place` of its row. */
type Store = (row: Expr, query: Expr, place: Expr, value: Expr) => void;

/**
 * Writes the kernel; the builder has as many threads as attendLayout says.
 * @param arrays q has all queries: [batch, heads, queries, headDim]; keys and values are f32x4, or halves in u32x4
 */
export function writeAttendMatrices(
  k: KernelBuilder,
  spec: AttendMatricesSpec,
  tile: AttendTile,
  arrays: AttendArrays,
  store: Store,
): void {
  const kernel = attendKernel(k, spec, tile);
  const { begins } = kernel.layout;
  const block = blockOf(kernel, arrays);
  const lefts = loadQueries(kernel, arrays.q, block);
  const own = ownRow(kernel, block);
  const results = newSums(kernel, 'result', spec.headDim / matrixSide / tile.columnGroups);
  const running = beginSoftmax(kernel);
  const range = keysSeen(kernel, block);
  const read = (array: ArrayRef, at: Expr): Expr[] => readCache(kernel, array, at, block, range);
  // Values from position `at` on, and the keys after those of the same positions: this thread's vectors.
  const readAhead = (at: Expr): [Expr[], Expr[]] => [
    read(arrays.values, at),
    read(arrays.keys, at.add(tile.keys)),
  ];
  storeRows(kernel, begins.keys, tile.keys, read(arrays.keys, range.begin));
  const ahead = tile.ahead
    ? readAhead(range.begin).map((each) => each.map((value) => k.variable('ahead', value)))
    : null;
  k.barrier();
  const round = (at: Expr): void => {
    writeScores(kernel, lefts);
    k.barrier();
    const [values, keys] = ahead?.map((each) => each.map(({ value }) => value)) ?? readAhead(at);
    const keep = weigh(kernel, own, running, at, block);
    storeRows(kernel, begins.values, tile.keys, values!);
    storeRows(kernel, begins.keys, tile.keys, keys!);
    if (ahead) {
      const next = readAhead(at.add(tile.keys));
      for (const [i, each] of ahead.entries())
        for (const [j, room] of each.entries()) k.set(room, next[i]![j]!);
    }
    k.if(k.uniformLoad('isReplaced', kernel.replaced).ne(0), () => {
      k.if(k.localIndex.eq(0), () => k.store(kernel.replaced, 0, 0));
      passResults(kernel, results, own, (_, value) => value.mul(splat(keep, 4)));
    });
    addValues(kernel, results);
  };
  k.for('key', range.begin, range.end, round, tile.keys);
  finish(kernel, results, own, running, block, store);
}

function newSums({ k, tile }: AttendKernel, name: string, columns: number): Sums {
  return Array.from({ length: tile.matrixRows }, () =>
    Array.from({ length: columns }, () => k.matrixSum(name, 'halves')),
  );
}

/** Queries, scaled, by rows of 16 and depth. */
function loadQueries(kernel: AttendKernel, q: ArrayRef, block: Block): Matrix[][] {
  const { k, spec, tile, layout, memory, replaced } = kernel;
  const { rows, queries, strides } = layout;
  k.if(k.localIndex.eq(0), () => k.store(replaced, 0, 0));
  const read = readRows(kernel, rows, (place) => {
    const row = block.row.add(place.div(queries));
    const query = block.query.add(place.rem(queries)).min(spec.queries - 1);
    return rowOf(kernel, q, row.mul(spec.queries).add(query), spec.scale * Math.LOG2E);
  });
  storeRows(kernel, 0, rows, read);
  k.barrier();
  const first = k.let('leftAt', ownMatrices(kernel).row.mul(strides.tile));
  const lefts = Array.from({ length: tile.matrixRows }, (_, i) =>
    Array.from({ length: spec.headDim / matrixSide }, (_, at) => {
      const offset = first.add(i * matrixSide * strides.tile + 2 * at);
      return k.matrixLoad('left', 'halves', memory, offset, strides.tile);
    }),
  );
  k.barrier();
  return lefts;
}

/** Reads this thread's vectors of a round's keys or values, from position `at` on. */
function readCache(
  kernel: AttendKernel,
  array: ArrayRef,
  at: Expr,
  { kvRow }: Block,
  { end }: KeyRange,
): Expr[] {
  const { capacity } = kernel.spec;
  return readRows(kernel, kernel.tile.keys, (place) => {
    const position = at.add(place.bits('i32')).min(end.sub(1)).bits('u32');
    return rowOf(kernel, array, kvRow.mul(capacity).add(position.rem(capacity)));
  });
}

/** Queries times keys, to the stage. */
function writeScores(kernel: AttendKernel, lefts: readonly (readonly Matrix[])[]): void {
  const { k, tile, layout, memory } = kernel;
  const { strides, begins } = layout;
  const width = tile.keys / tile.columnGroups;
  const sums = newSums(kernel, 'score', width / matrixSide);
  const { share } = ownMatrices(kernel);
  const first = k.let('keysAt', share.mul(width * strides.tile).add(begins.keys));
  for (let at = 0; at < lefts[0]!.length; at++) {
    for (let column = 0; column < width / matrixSide; column++) {
      const offset = first.add(column * matrixSide * strides.tile + 2 * at);
      const right = k.matrixLoad('right', 'halves', memory, offset, strides.tile);
      for (const [i, row] of sums.entries()) k.matrixMultiplyAdd(row[column]!, lefts[i]![at]!, right);
    }
  }
  stageSums(kernel, sums);
}

/** Adds the weighed values to the results. */
function addValues(kernel: AttendKernel, results: Sums): void {
  const { k, spec, tile, layout, memory } = kernel;
  const { strides, begins } = layout;
  const { row, share } = ownMatrices(kernel);
  const weightsAt = k.let('weightsFrom', row.mul(strides.weights).add(begins.weights));
  const width = spec.headDim / tile.columnGroups / 8;
  const valuesAt = k.let('valuesAt', share.mul(width).add(begins.values));
  for (let key = 0; key < tile.keys; key += matrixSide) {
    const lefts = results.map((_, i) => {
      const offset = weightsAt.add(i * matrixSide * strides.weights + key / 8);
      return k.matrixLoad('left', 'halves', memory, offset, strides.weights);
    });
    for (let column = 0; column < results[0]!.length; column++) {
      const offset = valuesAt.add(key * strides.tile + 2 * column);
      const right = k.matrixLoad('right', 'halves', memory, offset, strides.tile, 'across');
      for (const [i, left] of lefts.entries()) k.matrixMultiplyAdd(results[i]![column]!, left, right);
    }
  }
}

/** Divides the results by the sums of their weights and stores them; a query that is padding gets zeros. */
function finish(
  kernel: AttendKernel,
  results: Sums,
  own: OwnRow,
  { total }: Running,
  block: Block,
  store: Store,
): void {
  const { k, spec, layout } = kernel;
  const { query } = own;
  const all = reduceNeighbours(k, 'add', own.threads, total.value);
  const isReal = k.let('isReal', query.bits('i32').lt(block.count));
  const factor = k.let('factor', isReal.select(literal('f32', 1).div(all), 0));
  const row = k.let('outRow', block.row.add(own.row.div(layout.queries)));
  passResults(kernel, results, own, ({ place, isInside }, value) => {
    const isAsked = query.lt(spec.queries);
    k.if(isInside ? isAsked.and(isInside) : isAsked, () => {
      const scaled = value.mul(splat(factor, 4));
      store(row, query, place, splat(isReal, 4).select(scaled, literal('f32x4', 0)));
    });
    return undefined;
  });
}
