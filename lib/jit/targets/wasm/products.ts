// lib/jit/targets/wasm/products.ts: the inner loops of every product with a Weight: a few rows of inputs times one panel
// of 16 channels. Out: functions product(panel, inputs, sums): sums [rows][16] float32.
//
// One row reads each weight once from memory: that is decoding, and memory is its limit. Two rows still fit beside
// 16 channels in the 15 vector registers that V8 hands out; three and four rows go over the panel twice, 8 channels at
// a time (the second time it lies in the cache). V8 loads all factors of a round first, so sums and factors together
// may be 15 vectors: else registers spill. Where an instruction multiplies and adds, the sums wait for each other, and
// 9 of them (3 rows by 12 channels, four times over three panels) are a tenth faster than 8.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { decoders, type FloatKind } from './decode.js';
import { loads, stores } from './memory.js';
import type { MultiplyAdd } from './multiplyAdd.js';
import type { Expr } from './nodes.js';
import { type MultipliedLayout, PANEL } from './pack.js';
import { i32 } from './scalars.js';
import { touch } from './touch.js';
import { f32x4, i16x8, i32x4, v128 } from './vectors.js';

/** Rows that one call handles at most. */
export const ROWS = 4;
/** Rows and panels of the widest float product: for float32 panels one after the other. */
export const WIDE = { rows: 3, panels: 3, vectors: 3 } as const;
const VECTOR_BYTES = 16;
const PANEL_VECTORS = PANEL / 4;

/** Where the rows of inputs lie. Float kinds: `values` are float32. Integer kinds: as activations.ts writes them. */
export interface InputLayout {
  readonly rowBytes: number;
  /** Integer kinds: from a row's start to its block scales [blocks] float32, and to 8 x its block sums [blocks] int32. */
  readonly scalesAt: number;
  readonly sumsAt: number;
}

/** What one call multiplies. */
export interface ProductSize {
  readonly rows: number;
  /** 1, or for float32 as many as WIDE says; the sums of each panel lie together, `sumsBytes` apart. */
  readonly panels: number;
  readonly sumsBytes: number;
}

/** Code of product(panel, inputs, sums) for a few rows. */
export function productFunction(
  name: string,
  layout: MultipliedLayout,
  size: ProductSize,
  inputs: InputLayout,
  multiplyAdd: MultiplyAdd,
): FunctionCode {
  const f = new FunctionBuilder(name);
  const panel = f.param('i32', 'panel');
  const x = f.param('i32', 'inputs');
  const sums = f.param('i32', 'sums');
  const narrow = size.rows <= 2 ? PANEL_VECTORS : PANEL_VECTORS / 2;
  const vectors = size.panels > 1 ? WIDE.vectors : narrow;
  for (let first = 0; first < size.panels * PANEL_VECTORS; first += vectors) {
    const tile: Tile = { layout, ...size, first, vectors, inputs, multiplyAdd };
    if (layout.block === 0) floatTile(f, tile, panel, x, sums);
    else integerTile(f, tile, panel, x, sums);
  }
  return f.finish();
}

/** Vectors first to first + vectors of the panels, for all rows. */
interface Tile extends ProductSize {
  readonly layout: MultipliedLayout;
  readonly first: number;
  readonly vectors: number;
  readonly inputs: InputLayout;
  readonly multiplyAdd: MultiplyAdd;
}

/**
 * Touches what will be wanted soon. Where many instructions are spent on a weight too few loads are under way at a time:
 * with it int8 ran at 8.5 instead of 7.5 GB/s and int4 at 6.6 instead of 5.5 (one thread of a Xeon with 480 MiB of L3
 * that reads at 11; 512 to 2,048 bytes ahead did alike).
 */
const touchAhead = (f: FunctionBuilder, from: Local, bytes: number): void =>
  touch(f, from, bytes, READ_AHEAD_BYTES);
/** A product reads, and does not use, so many bytes and a round's after the last panel: allocations leave 2 KiB. */
const READ_AHEAD_BYTES = 1024;

const range = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Calls body for each row and vector of a tile. */
function eachSum(tile: Tile, body: (row: number, vector: number, at: number) => void): void {
  for (const row of range(tile.rows)) {
    for (const vector of range(tile.vectors)) body(row, vector, row * tile.vectors + vector);
  }
}

const sumOffset = (tile: Tile, row: number, vector: number) => {
  const { panel, inPanel } = placeOf(tile, vector);
  return panel * tile.sumsBytes + row * PANEL * 4 + inPanel * VECTOR_BYTES;
};

/** The panel in which a vector of a tile lies, and which of its vectors it is. */
function placeOf({ first }: Tile, vector: number) {
  const at = first + vector;
  return { panel: Math.floor(at / PANEL_VECTORS), inPanel: at % PANEL_VECTORS };
}

// ------------------------------------------------------------------ float kinds

/** sums[row] += inputs[row][k] * panel[k], k by k; the input is one number in all lanes. */
function floatTile(f: FunctionBuilder, tile: Tile, panel: Local, x: Local, sums: Local): void {
  const { layout, rows, vectors, inputs, multiplyAdd } = tile;
  const stepBytes = layout.kind === 'f32' ? PANEL * 4 : PANEL * 2;
  const decode = decoders[layout.kind as FloatKind];
  const sum = f.vectors('sum', rows * vectors);
  const weight = f.vectors('weight', vectors);
  const value = f.local('v128', 'value');
  const from = f.let('from', i32.add(panel, layout.scaleBytes));
  const at = f.let('at', x);
  for (const each of sum) f.set(each, f32x4Zero);
  /** One input of every row times its weights. */
  const step = (k: number) => {
    if (k === 0 && rows === 1 && layout.kind !== 'f32') touchAhead(f, from, unrollOf(rows) * stepBytes);
    for (const vector of range(vectors)) {
      const { panel: at, inPanel } = placeOf(tile, vector);
      const offset = at * layout.panelBytes + k * stepBytes + inPanel * (stepBytes / PANEL_VECTORS);
      f.set(weight[vector]!, decode(from, offset));
    }
    for (const row of range(rows)) {
      f.set(value, loads.splat32(at, row * inputs.rowBytes + k * 4));
      for (const vector of range(vectors)) {
        const to = sum[row * vectors + vector]!;
        f.set(to, multiplyAdd(weight[vector]!, value, to));
      }
    }
  };
  unrolled(f, layout.inDim, unrollOf(rows), step, (steps) => {
    f.increase(from, steps * stepBytes);
    f.increase(at, steps * 4);
  });
  eachSum(tile, (row, vector, i) => {
    const scale = () => loads.v128(panel, (tile.first + vector) * VECTOR_BYTES);
    const result = layout.scaleBytes > 0 ? f32x4.mul(sum[i]!, scale()) : sum[i]!;
    f.do(stores.v128(sums, result, sumOffset(tile, row, vector)));
  });
}

const f32x4Zero = f32x4.splat(0);

/**
 * Inputs, or pairs of them, in a round of the loop. V8 moves all loads of a round to its start: with more than two of
 * one row, or one of several rows, they do not fit the registers (int8: 19 instead of 25 and 22 instead of 32 GMAC/s).
 */
const unrollOf = (rows: number) => (rows === 1 ? 2 : 1);

/** steps 0..count - 1 in a loop of `unroll` at a time, then the rest. */
function unrolled(
  f: FunctionBuilder,
  count: number,
  unroll: number,
  step: (k: number) => void,
  advance: (steps: number) => void,
): void {
  const rounds = Math.floor(count / unroll);
  if (rounds > 0) {
    const left = f.local('i32', 'left');
    f.set(left, rounds);
    f.repeat(() => {
      for (const k of range(unroll)) step(k);
      advance(unroll);
      f.set(left, i32.sub(left, 1));
      return left;
    });
  }
  for (const k of range(count - rounds * unroll)) step(k);
}

// ------------------------------------------------------------------ integer kinds

/**
 * For each block of inputs: exact sums of 16-bit activations times integer weights in int32, then
 * sums[row] += float(block sum) * activation scale (* weight scale, per group).
 */
function integerTile(f: FunctionBuilder, tile: Tile, panel: Local, x: Local, sums: Local): void {
  const { layout, rows, vectors, inputs } = tile;
  const sum = f.vectors('sum', rows * vectors);
  const part = f.vectors('part', rows * vectors);
  const from = f.let('from', panel);
  const at = f.let('at', x);
  const scales = f.let('scales', i32.add(x, inputs.scalesAt));
  const group = f.let('group', panel);
  for (const each of sum) f.set(each, f32x4Zero);
  const groupsLeft = f.local('i32', 'groupsLeft');
  const blocksLeft = f.local('i32', 'blocksLeft');
  const perGroup = layout.groups > 1;
  countDown(f, groupsLeft, layout.groups, () => {
    f.set(group, from);
    f.increase(from, layout.scaleBytes);
    countDown(f, blocksLeft, layout.paddedGroup / layout.block, () => {
      for (const each of part) f.set(each, i32x4.splat(0));
      (layout.kind === 'int4' ? int4Block : pairBlock)(f, tile, from, at, part);
      eachSum(tile, (row, vector, i) => {
        const correction = () =>
          loads.splat32(scales, row * inputs.rowBytes + inputs.sumsAt - inputs.scalesAt);
        const exact = layout.kind === 'int4' ? i32x4.sub(part[i]!, correction()) : part[i]!;
        const scale = loads.splat32(scales, row * inputs.rowBytes);
        let scaled: Expr = f32x4.mul(f32x4.convert_i32x4_s(exact), scale);
        if (perGroup) scaled = f32x4.mul(scaled, loads.v128(group, (tile.first + vector) * VECTOR_BYTES));
        f.set(sum[i]!, f32x4.add(sum[i]!, scaled));
      });
      f.increase(scales, 4);
    });
  });
  eachSum(tile, (row, vector, i) => {
    const scale = () => loads.v128(panel, (tile.first + vector) * VECTOR_BYTES);
    f.do(stores.v128(sums, perGroup ? sum[i]! : f32x4.mul(sum[i]!, scale()), sumOffset(tile, row, vector)));
  });
}

/** body, `count` times; without a loop for one. */
function countDown(f: FunctionBuilder, counter: Local, count: number, body: () => void): void {
  const round = () => {
    body();
    f.set(counter, i32.sub(counter, 1));
    return counter;
  };
  if (count === 1) body();
  else {
    f.set(counter, count);
    f.repeat(round);
  }
}

/** part += dot(eight int8 or int16, a pair of activations): 4 channels x 2 inputs an instruction. */
function pairBlock(f: FunctionBuilder, tile: Tile, from: Local, at: Local, part: readonly Local[]): void {
  const { layout, rows, vectors, inputs } = tile;
  const pair = f.local('v128', 'pair');
  const weight = f.vectors('weight', vectors);
  const isWide = layout.kind === 'int16';
  const pairBytes = PANEL * (isWide ? 4 : 2);
  const unroll = unrollOf(rows);
  const load = (k: number, vector: number) => {
    const offset = k * pairBytes + (tile.first + vector) * (pairBytes / PANEL_VECTORS);
    return isWide ? loads.v128(from, offset) : loads.i8ToI16x8(from, offset);
  };
  const step = (k: number) => {
    if (k === 0 && rows === 1) touchAhead(f, from, unroll * pairBytes);
    if (rows > 1) for (const vector of range(vectors)) f.set(weight[vector]!, load(k, vector));
    for (const row of range(rows)) {
      f.set(pair, loads.splat32(at, row * inputs.rowBytes + k * 4));
      for (const vector of range(vectors)) {
        const to = part[row * vectors + vector]!;
        const weights = rows > 1 ? weight[vector]! : load(k, vector);
        f.set(to, i32x4.add(to, i32x4.dot_i16x8_s(weights, pair)));
      }
    }
  };
  unrolled(f, layout.block / 2, unroll, step, (steps) => {
    f.increase(from, steps * pairBytes);
    f.increase(at, steps * 4);
  });
  const rest = (layout.block / 2) % unroll;
  f.increase(from, rest * pairBytes);
  f.increase(at, rest * 4);
}

/** As pairBlock; 16 bytes are 4 channels x 8 inputs, whose nibbles are taken out one after the other. */
function int4Block(f: FunctionBuilder, tile: Tile, from: Local, at: Local, part: readonly Local[]): void {
  const { layout, rows, vectors, inputs } = tile;
  const words = f.vectors('words', vectors);
  const pair = f.local('v128', 'pair');
  const wordBytes = PANEL * 4;
  const nibbles = (vector: number, place: number) => {
    const shifted = place === 0 ? words[vector]! : i16x8.shr_u(words[vector]!, place * 4);
    return place === 3 ? shifted : v128.and(shifted, i16x8.splat(15));
  };
  const accumulate = (row: number, vector: number, weights: Expr) => {
    const to = part[row * vectors + vector]!;
    f.set(to, i32x4.add(to, i32x4.dot_i16x8_s(weights, pair)));
  };
  const step = (k: number) => {
    if (rows === 1) touchAhead(f, from, wordBytes);
    for (const vector of range(vectors))
      f.set(words[vector]!, loads.v128(from, k * wordBytes + (tile.first + vector) * VECTOR_BYTES));
    for (const place of range(4)) {
      for (const row of range(rows)) {
        f.set(pair, loads.splat32(at, row * inputs.rowBytes + k * 16 + place * 4));
        for (const vector of range(vectors)) accumulate(row, vector, nibbles(vector, place));
      }
    }
  };
  unrolled(f, layout.block / 8, 1, step, (steps) => {
    f.increase(from, steps * wordBytes);
    f.increase(at, steps * 16);
  });
}
