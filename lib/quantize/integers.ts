// lib/quantize/integers.ts: one float matrix -> integers and scales, by blocks of rows, without a float32 copy of it.

import {
  type FloatWeight,
  float32Values,
  type Granularity,
  type Int4Weight,
  type Int8Weight,
  matrixShape,
} from '../tensor.js';

/** Which scale a value has: scales[floor(row / blockRows) * scaleColumns + floor(column / blockColumns)]. */
interface ScaleGrid {
  readonly blockRows: number;
  readonly blockColumns: number;
  readonly scaleRows: number;
  readonly scaleColumns: number;
}

/** What rounding cost: the largest and the mean absolute error, and signal to noise; Infinity where nothing moved. */
export interface QuantizationError {
  readonly maxError: number;
  readonly meanError: number;
  readonly snrDb: number;
}

/**
 * Rounds a matrix to integers of 8 or 4 bits.
 * @param weight [rows, columns] float, finite
 * @param granularity int4 needs groups; a last group may be shorter than the others
 * @returns integers in -127..127 or -7..7 and float32 scales as in tensor.ts; error <= scale / 2
 * @throws RangeError if the weight is not two-dimensional or not finite (gives row and column)
 */
export function quantizeMatrix(
  weight: FloatWeight,
  kind: 'int8' | 'int4',
  granularity: Granularity,
): Int8Weight | Int4Weight {
  const [rows, columns] = matrixShape(weight);
  const grid = scaleGrid(rows, columns, granularity);
  const largest = kind === 'int8' ? 127 : 7;
  const maxima = maxAbsolutes(weight, grid);
  const scales = maxima.map((max) => max / largest);
  const roundRow = rowRounder(scales, maxima, largest);
  const scalesOf = columnScales(grid, scales, columns);
  const shape = [rows, columns];
  if (kind === 'int8') {
    const bytes = new Int8Array(rows * columns);
    for (const [row, values] of rowsOf(weight)) {
      roundRow(values, scalesOf(row), bytes.subarray(row * columns, (row + 1) * columns));
    }
    return { kind, shape, bytes, scales, granularity };
  }
  if (granularity.per !== 'group') {
    throw new RangeError(`granularity: expected groups for int4, received per ${granularity.per}`);
  }
  const bytes = new Uint8Array(Math.ceil((rows * columns) / 2));
  const integers = new Int8Array(columns);
  for (const [row, values] of rowsOf(weight)) {
    roundRow(values, scalesOf(row), integers);
    packInto(bytes, integers, row * columns);
  }
  return { kind, shape, bytes, scales, granularity };
}

/**
 * Compares integers with the values that they stand for.
 * @throws RangeError if the shapes differ
 */
export function quantizationError(
  original: FloatWeight,
  quantized: Int8Weight | Int4Weight,
): QuantizationError {
  const [rows, columns] = matrixShape(original);
  if (String(original.shape) !== String(quantized.shape)) {
    throw new RangeError(`quantized: expected [${original.shape}], received [${quantized.shape}]`);
  }
  const grid = scaleGrid(rows, columns, quantized.granularity);
  const scalesOf = columnScales(grid, quantized.scales, columns);
  const integersOf = rowIntegers(quantized, columns);
  let [largest, sum, noise, signal] = [0, 0, 0, 0];
  for (const [row, values] of rowsOf(original)) {
    const [integers, scales] = [integersOf(row), scalesOf(row)];
    for (let column = 0; column < columns; column++) {
      const value = values[column]!;
      const error = Math.abs(value - Math.fround(integers[column]! * scales[column]!));
      if (error > largest) largest = error;
      sum += error;
      noise += error * error;
      signal += value * value;
    }
  }
  const snrDb = noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(signal / noise);
  return { maxError: largest, meanError: sum / Math.max(rows * columns, 1), snrDb };
}

function scaleGrid(rows: number, columns: number, granularity: Granularity): ScaleGrid {
  if (granularity.per === 'tensor') {
    return { blockRows: rows, blockColumns: columns, scaleRows: 1, scaleColumns: 1 };
  }
  const along = granularity.per === 'group' ? granularity.size : Number.POSITIVE_INFINITY;
  const [blockRows, blockColumns] =
    granularity.axis === 1 ? [Math.min(along, rows), 1] : [1, Math.min(along, columns)];
  return {
    blockRows,
    blockColumns,
    scaleRows: Math.ceil(rows / blockRows),
    scaleColumns: Math.ceil(columns / blockColumns),
  };
}

/** @returns [scaleRows * scaleColumns] */
function maxAbsolutes(weight: FloatWeight, grid: ScaleGrid): Float32Array {
  const { blockRows, blockColumns, scaleRows, scaleColumns } = grid;
  const largest = new Float32Array(scaleRows * scaleColumns);
  for (const [row, values] of rowsOf(weight)) {
    const base = Math.floor(row / blockRows) * scaleColumns;
    if (blockColumns === 1) raiseEach(largest, base, values, row);
    else raiseBlocks(largest.subarray(base, base + scaleColumns), blockColumns, values, row);
  }
  return largest;
}

/** A scale for each column: largest[base + column] grows to what the row has there. */
function raiseEach(largest: Float32Array, base: number, values: Float32Array, row: number): void {
  for (let column = 0; column < values.length; column++) {
    const size = Math.abs(values[column]!);
    if (size <= largest[base + column]!) continue;
    if (!(size < Number.POSITIVE_INFINITY)) throw notFinite(values[column]!, row, column);
    largest[base + column] = size;
  }
}

/** A scale for each `width` columns of the row. */
function raiseBlocks(largest: Float32Array, width: number, values: Float32Array, row: number): void {
  for (let block = 0, column = 0; block < largest.length; block++) {
    const end = Math.min(column + width, values.length);
    let max = largest[block]!;
    for (; column < end; column++) {
      const size = Math.abs(values[column]!);
      if (size <= max) continue;
      if (!(size < Number.POSITIVE_INFINITY)) throw notFinite(values[column]!, row, column);
      max = size;
    }
    largest[block] = max;
  }
}

function notFinite(value: number, row: number, column: number): RangeError {
  const place = `received ${value} in row ${row}, column ${column}`;
  return new RangeError(`weight: expected finite values, ${place}; the checkpoint is damaged`);
}

type RoundRow = (values: Float32Array, scales: Float32Array, integers: Int8Array) => void;

/** Below this a float32 has fewer digits. */
const SMALLEST_NORMAL = 2 ** -126;

/** What rounds the columns of a row; the quicker one where no quotient can lie beyond the largest integer. */
function rowRounder(scales: Float32Array, maxima: Float32Array, largest: number): RoundRow {
  const areExact = scales.every((scale, i) => scale >= SMALLEST_NORMAL || maxima[i] === 0);
  if (areExact) return roundInside;
  return (values, scalesOfRow, integers) => roundAndCut(values, scalesOfRow, largest, integers);
}

function roundInside(values: Float32Array, scales: Float32Array, integers: Int8Array): void {
  // Among zeros a scale is 0, and 0 / 0 is NaN, which is stored as 0.
  for (let column = 0; column < values.length; column++) {
    integers[column] = Math.floor(values[column]! / scales[column]! + 0.5);
  }
}

/** For numbers so small that their scale is 0 or has lost digits: infinity and what is too large are cut. */
function roundAndCut(
  values: Float32Array,
  scales: Float32Array,
  largest: number,
  integers: Int8Array, // [columns], written
): void {
  for (let column = 0; column < values.length; column++) {
    const rounded = Math.round(values[column]! / scales[column]!);
    integers[column] = Math.max(-largest, Math.min(largest, rounded));
  }
}

/** The scale of each column in a row; the array is good until the next call. */
function columnScales(grid: ScaleGrid, scales: Float32Array, columns: number): (row: number) => Float32Array {
  const { blockRows, blockColumns, scaleColumns } = grid;
  if (blockColumns === 1) {
    return (row) => {
      const base = Math.floor(row / blockRows) * scaleColumns;
      return scales.subarray(base, base + columns);
    };
  }
  const spread = new Float32Array(columns);
  let lastBase = -1;
  return (row) => {
    const base = Math.floor(row / blockRows) * scaleColumns;
    for (let group = 0; base !== lastBase && group < scaleColumns; group++) {
      spread.fill(scales[base + group]!, group * blockColumns, (group + 1) * blockColumns);
    }
    lastBase = base;
    return spread;
  };
}

/** Packs 4-bit integers, the first of them being value `start` of the tensor, which may lie in a high half. */
function packInto(bytes: Uint8Array, integers: Int8Array, start: number): void {
  const { length } = integers;
  let column = start & 1;
  if (column === 1) bytes[start >>> 1]! |= (integers[0]! + 8) << 4;
  for (; column + 1 < length; column += 2) {
    bytes[(start + column) >>> 1] = (integers[column]! + 8) | ((integers[column + 1]! + 8) << 4);
  }
  if (column < length) bytes[(start + column) >>> 1] = integers[column]! + 8;
}

/** The integers of a row; the array is good until the next call. */
function rowIntegers(weight: Int8Weight | Int4Weight, columns: number): (row: number) => Int8Array {
  const { bytes } = weight;
  if (weight.kind === 'int8') return (row) => weight.bytes.subarray(row * columns, (row + 1) * columns);
  const integers = new Int8Array(columns);
  return (row) => {
    for (let column = 0, i = row * columns; column < columns; column++, i++) {
      integers[column] = ((bytes[i >>> 1]! >> ((i & 1) * 4)) & 15) - 8;
    }
    return integers;
  };
}

/** Float32 values of each row, decoded some rows at a time; a row is good until the next one is asked for. */
function* rowsOf(weight: FloatWeight): Generator<[row: number, values: Float32Array]> {
  const [rows, columns] = matrixShape(weight);
  if (columns === 0) return;
  const rowBytes = weight.bytes.length / rows;
  const blockRows = Math.max(1, Math.floor(65536 / columns));
  for (let first = 0; first < rows; first += blockRows) {
    const count = Math.min(blockRows, rows - first);
    const bytes = weight.bytes.subarray(first * rowBytes, (first + count) * rowBytes);
    const values = float32Values({ ...weight, shape: [count, columns], bytes }); // [count, columns]
    for (let row = 0; row < count; row++) {
      yield [first + row, values.subarray(row * columns, (row + 1) * columns)];
    }
  }
}
