import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatOf } from '../../../lib/jit/graph.js';
import { preparationOf, prepareFunction } from '../../../lib/jit/targets/wasm/activations.js';
import { ModuleBuilder } from '../../../lib/jit/targets/wasm/encoder.js';
import { bestMultiplyAdd, plainMultiplyAdd } from '../../../lib/jit/targets/wasm/multiplyAdd.js';
import { layoutOf, PANEL, pack } from '../../../lib/jit/targets/wasm/pack.js';
import { productFunction, WIDE } from '../../../lib/jit/targets/wasm/products.js';
import { float32Values, floatWeight, type Weight } from '../../../lib/tensor.js';
import { makeWeight, weightKinds } from './anyWeight.js';

const INPUTS = 1 << 16;
const PREPARED = 2 << 16;
const SUMS = 3 << 16;
const WEIGHTS = 4 << 16;
const MEMORY = 64 << 16;

/** x [rows, in] times the packed Weight, by the code under test. */
function multiply(
  weight: Weight,
  transposed: boolean,
  x: Float32Array,
  rows: number,
  { panels = 1, multiplyAdd = bestMultiplyAdd() } = {},
): Float32Array {
  const layout = layoutOf(formatOf(weight), transposed);
  const preparation = preparationOf(layout);
  const inputs = preparation?.inputs ?? { rowBytes: layout.inDim * 4, scalesAt: 0, sumsAt: 0 };
  const module = new ModuleBuilder({ minBytes: MEMORY, maxBytes: MEMORY, shared: true });
  const size = { rows, panels, sumsBytes: rows * PANEL * 4 };
  module.add(productFunction('product', layout, size, inputs, multiplyAdd), true);
  if (preparation) module.add(prepareFunction('prepare', preparation), true);
  const memory = new WebAssembly.Memory({ initial: MEMORY / 65536, maximum: MEMORY / 65536, shared: true });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.encode()), { env: { memory } });
  const exported = instance.exports as Record<'product' | 'prepare', (...args: number[]) => void>;
  // Memory is used again and again: what lay there must not matter, of padding neither.
  const packed = new Uint8Array(memory.buffer, WEIGHTS, layout.bytes).fill(0x55);
  pack(weight, transposed, layout, packed);
  new Float32Array(memory.buffer, INPUTS, x.length).set(x);
  for (let row = 0; preparation && row < rows; row++)
    exported.prepare(INPUTS + row * layout.inDim * 4, PREPARED + row * inputs.rowBytes);
  const out = new Float32Array(rows * layout.outDim);
  for (let panel = 0; panel < layout.panels; panel++) {
    if (panel % panels === 0)
      exported.product(WEIGHTS + panel * layout.panelBytes, preparation ? PREPARED : INPUTS, SUMS);
    const sums = new Float32Array(memory.buffer, SUMS + (panel % panels) * size.sumsBytes, rows * PANEL);
    for (let row = 0; row < rows; row++) {
      for (let lane = 0; lane < PANEL && panel * PANEL + lane < layout.outDim; lane++)
        out[row * layout.outDim + panel * PANEL + lane] = sums[row * PANEL + lane]!;
    }
  }
  return out;
}

/** The Weight of absolute values. */
function absolute(weight: Weight): Weight {
  return floatWeight(float32Values(weight).map(Math.abs), weight.shape);
}

/** The same in double precision. */
function expected(weight: Weight, transposed: boolean, x: Float32Array, rows: number): Float64Array {
  const values = float32Values(weight);
  const [first, second] = weight.shape as [number, number];
  const [inDim, outDim] = transposed ? [second, first] : [first, second];
  const out = new Float64Array(rows * outDim);
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < inDim; k++) {
      for (let n = 0; n < outDim; n++) {
        const value = values[transposed ? n * inDim + k : k * outDim + n]!;
        out[row * outDim + n]! += x[row * inDim + k]! * value;
      }
    }
  }
  return out;
}

const tolerances: Record<string, number> = { int8: 2e-4, int4: 2e-4 };

test.each(weightKinds)('%s: any shape, either orientation, one to four rows', (kind) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 150 }),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 4 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 1e9 }),
      (inDim, outDim, rows, transposed, seed) => {
        let state = seed;
        const random = () => {
          state = (Math.imul(state, 1664525) + 1013904223) | 0;
          return state / 2 ** 31;
        };
        const weight = makeWeight(
          kind,
          transposed ? [outDim, inDim] : [inDim, outDim],
          transposed ? 0 : 1,
          random,
        );
        const x = Float32Array.from({ length: rows * inDim }, () => random() * 4);
        const actual = multiply(weight, transposed, x, rows);
        const wanted = expected(weight, transposed, x, rows);
        // Against the size of the terms: few terms may cancel.
        const sizes = expected(absolute(weight), transposed, x.map(Math.abs), rows);
        const largest = Math.max(1e-6, ...sizes);
        const difference = actual.reduce((top, value, i) => Math.max(top, Math.abs(value - wanted[i]!)), 0);
        expect(difference / largest).toBeLessThan(tolerances[kind.split(' ')[0]!] ?? 2e-6);
      },
    ),
    { numRuns: 40 },
  );
});

test.each([
  ['fused', bestMultiplyAdd()],
  ['plain', plainMultiplyAdd],
])('three panels at once give the bits of one at a time: %s', (_, multiplyAdd) => {
  const [inDim, outDim] = [70, 2 * WIDE.panels * PANEL];
  const random = (seed: number) => (_: unknown, i: number) => Math.sin(seed + i * 1.7);
  const weight = floatWeight(Float32Array.from({ length: inDim * outDim }, random(1)), [inDim, outDim]);
  const x = Float32Array.from({ length: WIDE.rows * inDim }, random(2));
  const wide = multiply(weight, false, x, WIDE.rows, { panels: WIDE.panels, multiplyAdd });
  expect(wide).toEqual(multiply(weight, false, x, WIDE.rows, { multiplyAdd }));
  expect(new Set(wide).size).toBeGreaterThan(WIDE.rows * (outDim - 4));
});

test('integers scaled along their inputs are kept as float32', () => {
  const weight = makeWeight('int8', [20, 18], 0, () => 0.5);
  expect(layoutOf(formatOf(weight), false).kind).toBe('f32');
});
