// lib/results/statistics.ts: raw samples -> the few numbers that a table shows.
// Source: numpy.percentile's default method ('linear'; Hyndman and Fan 1996, type 7), sample standard deviation.

export interface Statistics {
  readonly mean: number;
  /** Sample standard deviation (divided by n - 1); 0 for a single value. */
  readonly std: number;
  readonly min: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/**
 * Value below which `percent` of the values lie, interpolated between the two nearest, as numpy.percentile does.
 * @param percent 0 to 100
 * @throws RangeError if there is no value or the percentage is out of range
 */
export function percentile(values: ArrayLike<number>, percent: number): number {
  if (!(percent >= 0 && percent <= 100)) {
    throw new RangeError(`percent: expected 0 to 100, received ${percent}`);
  }
  return percentileOfSorted(sorted(values), percent);
}

/**
 * Mean, spread and percentiles of one measured quantity.
 * @throws RangeError if there is no value, or one is not finite (gives its index)
 */
export function statistics(values: ArrayLike<number>): Statistics {
  const ascending = sorted(values);
  const n = ascending.length;
  const mean = ascending.reduce((sum, value) => sum + value, 0) / n;
  const squares = ascending.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    mean,
    std: n === 1 ? 0 : Math.sqrt(squares / (n - 1)),
    min: ascending[0]!,
    p50: percentileOfSorted(ascending, 50),
    p95: percentileOfSorted(ascending, 95),
    p99: percentileOfSorted(ascending, 99),
    max: ascending[n - 1]!,
  };
}

function sorted(values: ArrayLike<number>): Float64Array {
  if (values.length === 0) throw new RangeError('values: expected at least one, received none');
  const ascending = Float64Array.from(values).sort();
  const bad = Array.from(values).findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`values: expected finite numbers, received ${values[bad]} at ${bad}`);
  return ascending;
}

function percentileOfSorted(ascending: Float64Array, percent: number): number {
  const position = ((ascending.length - 1) * percent) / 100;
  const below = Math.floor(position);
  const low = ascending[below]!;
  const high = ascending[Math.min(below + 1, ascending.length - 1)]!;
  return low + (high - low) * (position - below);
}
