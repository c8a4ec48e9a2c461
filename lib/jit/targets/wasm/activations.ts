// lib/jit/targets/wasm/activations.ts: rows of float32 inputs -> what the product kernels of packed Weights read.
// Integer kinds get 16-bit integers with a scale a block (an error of 2^-16 of the block's largest value); int4 also
// the sum of each block, since its weights are stored plus 8; float16 gets the inputs times 2^60 (see pack.ts).
// Every thread prepares all inputs for itself: that costs less than waiting for one that does it for all.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { loads, storeLow64, stores } from './memory.js';
import type { Expr } from './nodes.js';
import { HALF_PRESCALE_LOG2, type MultipliedLayout } from './pack.js';
import type { InputLayout } from './products.js';
import { f32, i32, select } from './scalars.js';
import { f32x4, i16x8, i32x4 } from './vectors.js';

const LARGEST = 32767;

/** How inputs are prepared for a layout; undefined where the kernel reads them as they are. */
export interface Preparation {
  readonly kind: 'scaled' | 'integers';
  readonly inDim: number;
  readonly groupSize: number;
  readonly paddedGroup: number;
  readonly groups: number;
  readonly block: number;
  readonly inputs: InputLayout;
}

/** @returns undefined for f32 and bf16 weights */
export function preparationOf(layout: MultipliedLayout): Preparation | undefined {
  const { kind, inDim, groupSize, paddedGroup, groups, block } = layout;
  const shape = { inDim, groupSize, paddedGroup, groups, block };
  if (kind === 'f16') {
    const rowBytes = Math.ceil(inDim / 4) * 16;
    return { kind: 'scaled', ...shape, inputs: { rowBytes, scalesAt: 0, sumsAt: 0 } };
  }
  if (block === 0) return undefined;
  const blocks = (groups * paddedGroup) / block;
  const scalesAt = Math.ceil((groups * paddedGroup * 2) / 16) * 16;
  const sumsAt = scalesAt + Math.ceil(blocks / 4) * 16;
  const rowBytes = sumsAt + Math.ceil(blocks / 4) * 16;
  return { kind: 'integers', ...shape, inputs: { rowBytes, scalesAt, sumsAt } };
}

/** Code of prepare(from, to): one row. */
export function prepareFunction(name: string, preparation: Preparation): FunctionCode {
  const f = new FunctionBuilder(name);
  const from = f.param('i32', 'from');
  const to = f.param('i32', 'to');
  if (preparation.kind === 'scaled') scaleRow(f, from, to, preparation.inDim);
  else quantizeRow(f, from, to, preparation);
  return f.finish();
}

function scaleRow(f: FunctionBuilder, from: Local, to: Local, inDim: number): void {
  const offset = f.local('i32', 'offset');
  // The last vector may read and write up to three values past the row: rowBytes has room for them.
  f.loop(offset, 0, inDim * 4, 16, () => {
    f.do(
      stores.v128(i32.add(to, offset), f32x4.mul(loads.v128(i32.add(from, offset)), 2 ** HALF_PRESCALE_LOG2)),
    );
  });
}

function quantizeRow(f: FunctionBuilder, from: Local, to: Local, preparation: Preparation): void {
  const { inDim, groupSize, paddedGroup, groups, block, inputs } = preparation;
  const scales = f.let('scales', i32.add(to, inputs.scalesAt));
  const row = f.let('row', from);
  const end = f.let('end', i32.add(from, inDim * 4));
  const groupEnd = f.local('i32', 'groupEnd');
  const group = f.local('i32', 'group');
  const blockIndex = f.local('i32', 'block');
  const quantize = blockQuantizer(f, block);
  const sumsAt = inputs.sumsAt - inputs.scalesAt;
  f.loop(group, 0, groups, 1, () => {
    // A group ends at its own end or, the last one, at the row's.
    f.set(groupEnd, i32.add(row, groupSize * 4));
    f.set(groupEnd, select(end, groupEnd, i32.gt_u(groupEnd, end), 'i32'));
    f.loop(blockIndex, 0, paddedGroup / block, 1, () => {
      quantize({ row, groupEnd, to, scales, sumsAt });
      f.increase(row, block * 4);
      f.increase(to, block * 2);
      f.increase(scales, 4);
    });
    f.set(row, groupEnd);
  });
}

interface BlockPlaces {
  readonly row: Local;
  readonly groupEnd: Local;
  readonly to: Local;
  readonly scales: Local;
  readonly sumsAt: number;
}

/** Emits the quantization of one block: a fast path for a whole one, else value by value with zeros after the end. */
function blockQuantizer(f: FunctionBuilder, block: number): (places: BlockPlaces) => void {
  const largest = f.local('v128', 'largest');
  const top = f.local('f32', 'top');
  const inverse = f.local('f32', 'inverse');
  const total = f.local('i32', 'total');
  const totals = f.local('v128', 'totals');
  const at = f.local('i32', 'at');
  const value = f.local('f32', 'value');
  const quantized = f.local('i32', 'quantized');
  const lanes = f.local('v128', 'lanes');
  const horizontal = (
    vector: Local,
    combine: (a: Expr, b: Expr) => Expr,
    lane: (v: Expr, i: number) => Expr,
  ) => combine(combine(lane(vector, 0), lane(vector, 1)), combine(lane(vector, 2), lane(vector, 3)));
  const setInverse = () => f.set(inverse, select(f32.div(LARGEST, top), 0, f32.gt(top, 0), 'f32'));

  const whole = ({ row, to }: BlockPlaces) => {
    f.set(largest, f32x4.splat(0));
    f.loop(at, 0, block * 4, 16, () => {
      f.set(largest, f32x4.max(largest, f32x4.abs(loads.v128(i32.add(row, at)))));
    });
    f.set(top, horizontal(largest, f32.max, f32x4.extractLane));
    setInverse();
    f.set(totals, i32x4.splat(0));
    f.loop(at, 0, block * 4, 16, () => {
      const scaled = f32x4.mul(loads.v128(i32.add(row, at)), f32x4.splat(inverse));
      f.set(lanes, i32x4.trunc_sat_f32x4_s(f32x4.nearest(scaled)));
      f.set(totals, i32x4.add(totals, lanes));
      f.do(storeLow64(i32.add(to, i32.shr_u(at, 1)), i16x8.narrow_i32x4_s(lanes, lanes)));
    });
    f.set(total, horizontal(totals, i32.add, i32x4.extractLane));
  };
  const partial = ({ row, groupEnd, to }: BlockPlaces) => {
    f.set(top, 0);
    f.loop(at, 0, block * 4, 4, () => {
      f.when(i32.lt_u(i32.add(row, at), groupEnd), () => {
        f.set(top, f32.max(top, f32.abs(loads.f32(i32.add(row, at)))));
      });
    });
    setInverse();
    f.set(total, 0);
    f.loop(at, 0, block * 4, 4, () => {
      f.set(value, 0);
      f.when(i32.lt_u(i32.add(row, at), groupEnd), () => f.set(value, loads.f32(i32.add(row, at))));
      f.set(quantized, i32.trunc_sat_f32_s(f32.nearest(f32.mul(value, inverse))));
      f.set(total, i32.add(total, quantized));
      f.do(stores.u16(i32.add(to, i32.shr_u(at, 1)), quantized));
    });
  };
  return (places) => {
    const isWhole = i32.le_u(i32.add(places.row, block * 4), places.groupEnd);
    if (block % 4 === 0)
      f.when(
        isWhole,
        () => whole(places),
        () => partial(places),
      );
    else partial(places);
    const scale = f32.div(top, LARGEST);
    f.do(stores.f32(places.scales, scale));
    f.do(stores.i32(places.scales, i32.mul(total, 8), places.sumsAt));
  };
}
