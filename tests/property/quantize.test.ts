// Rounding loses at most half a step, at every shape, group size and stored type.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { quantizationError, quantizeMatrix } from '../../lib/quantize/integers.js';
import { floatBits } from '../../lib/randomModel/normal.js';
import { type FloatWeight, float32Values, type Granularity, unpackInt4 } from '../../lib/tensor.js';

const shape = fc.tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 40 }));
const granularity: fc.Arbitrary<Granularity> = fc.oneof(
  fc.constant({ per: 'tensor' } as const),
  fc.record({ per: fc.constant('channel' as const), axis: fc.constantFrom(0 as const, 1 as const) }),
  fc.record({
    per: fc.constant('group' as const),
    axis: fc.constantFrom(0 as const, 1 as const),
    size: fc.constantFrom(1, 3, 32, 64, 128),
  }),
);

function matrix([rows, columns]: [number, number], seed: number, dtype: 'f32' | 'f16' | 'bf16'): FloatWeight {
  const scale = 10 ** ((seed % 9) - 4);
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 7.3 + seed) * scale);
  const bytes = new Uint8Array(floatBits(values, dtype).buffer);
  return { kind: 'float', dtype, shape: [rows, columns], bytes };
}

test('400 matrices', () => {
  fc.assert(
    fc.property(
      shape,
      granularity,
      fc.constantFrom('int8' as const, 'int4' as const),
      fc.nat(1000),
      fc.constantFrom('f32' as const, 'f16' as const, 'bf16' as const),
      (size, per, kind, seed, dtype) => {
        if (kind === 'int4' && per.per !== 'group') return;
        const original = matrix(size, seed, dtype);
        const quantized = quantizeMatrix(original, kind, per);
        const values = float32Values(original);
        const back = float32Values(quantized);
        const integers = quantized.kind === 'int8' ? quantized.bytes : unpackInt4(quantized);
        const largest = kind === 'int8' ? 127 : 7;
        let [worst, worstInScales, highest] = [0, 0, 0];
        for (let i = 0; i < values.length; i++) {
          const scale = integers[i] ? back[i]! / integers[i]! : Math.max(...quantized.scales);
          const error = Math.abs(values[i]! - back[i]!);
          worst = Math.max(worst, error);
          worstInScales = Math.max(worstInScales, error === 0 ? 0 : error / scale);
          highest = Math.max(highest, Math.abs(integers[i]!));
        }
        expect(worstInScales).toBeLessThanOrEqual(0.50001);
        expect(highest).toBeLessThanOrEqual(largest);
        expect(quantizationError(original, quantized).maxError).toBeCloseTo(worst, 10);
      },
    ),
    { numRuns: 400 },
  );
});
