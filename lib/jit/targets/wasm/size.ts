// lib/jit/targets/wasm/size.ts: do Weights fit into the memory, and if not, in which scheme they would. From their
// formats alone: asked before anything is allocated.

import { sizeOf } from '../../../tensor.js';
import type { WeightFormat } from '../../graph.js';
import type { WeightUse } from '../../target.js';
import { layoutOf } from './pack.js';

export interface SizedWeight {
  readonly format: WeightFormat;
  readonly use: WeightUse;
}

/** Bytes that a Weight takes when it is bound. */
export function boundBytes({ format, use }: SizedWeight): number {
  return format.shape.length === 2 ? layoutOf(format, use.outputAxis === 0).bytes : sizeOf(format.shape) * 4;
}

const alternatives: Readonly<Record<string, (format: WeightFormat, axis: 0 | 1) => WeightFormat>> = {
  f16: ({ shape }) => ({ kind: 'float', dtype: 'f16', shape }),
  int8: ({ shape }, axis) => ({ kind: 'int8', granularity: { per: 'channel', axis }, shape }),
  int4: ({ shape }, axis) => ({ kind: 'int4', granularity: { per: 'group', axis, size: 64 }, shape }),
};

/**
 * @param freeBytes what is left of the memory
 * @throws RangeError if the Weights do not fit (gives bytes, limit, and the schemes that would fit with theirs)
 */
export function checkFit(weights: readonly SizedWeight[], freeBytes: number, limitBytes: number): void {
  const total = (convert: (weight: SizedWeight) => WeightFormat) =>
    weights.reduce((sum, weight) => sum + boundBytes({ ...weight, format: convert(weight) }), 0);
  const needed = total(({ format }) => format);
  if (needed <= freeBytes) return;
  const schemes = Object.entries(alternatives)
    .map(([name, convert]) => ({
      name,
      bytes: total(({ format, use }) =>
        format.shape.length === 2 ? convert(format, use.outputAxis) : format,
      ),
    }))
    .filter(({ bytes }) => bytes < needed);
  const fitting = schemes
    .filter(({ bytes }) => bytes <= freeBytes)
    .map(({ name, bytes }) => `${name} (${bytes} bytes)`);
  const smallest = schemes.at(-1);
  const advice =
    fitting.length > 0
      ? `these would fit: ${fitting.join(', ')}`
      : `not even ${smallest ? `${smallest.name} (${smallest.bytes} bytes)` : 'fewer bits'} would fit`;
  const name = weights.length === 1 ? weights[0]!.use.path : `${weights.length} weights`;
  throw new RangeError(
    `${name}: expected at most ${freeBytes} bytes, what is left of the ${limitBytes} bytes of a WebAssembly memory, ` +
      `received ${needed}; ${advice}`,
  );
}
