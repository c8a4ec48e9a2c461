// lib/jit/targets/wasm/decode.ts: one panel of a packed Weight -> the same panel in the type that it is multiplied in,
// in scratch memory: float32 of 16-bit floats, int8 of int4. For many rows of inputs, where unpacking
// anew for every four of them would cost more than the larger panel.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { loads, stores } from './memory.js';
import { HALF_PRESCALE_LOG2, PANEL, type PackedLayout } from './pack.js';
import { decoders } from './products.js';
import { i32 } from './scalars.js';
import { f32x4, i8x16, i16x8, v128 } from './vectors.js';

const VECTORS = PANEL / 4;
const vectors = Array.from({ length: VECTORS }, (_, i) => i);

/** Code of decode(panel, to). */
export function decodeFunction(name: string, layout: PackedLayout): FunctionCode {
  const f = new FunctionBuilder(name);
  const from = f.param('i32', 'panel');
  const to = f.param('i32', 'to');
  if (layout.block === 0) decodeFloats(f, layout, from, to);
  else decodeIntegers(f, layout, from, to);
  return f.finish();
}

function decodeFloats(f: FunctionBuilder, layout: PackedLayout, panel: Local, to: Local): void {
  const decode = decoders[layout.kind as 'bf16' | 'f16'];
  const from = f.let('from', i32.add(panel, layout.scaleBytes));
  const k = f.local('i32', 'k');
  f.loop(k, 0, layout.inDim, 1, () => {
    for (const vector of vectors) {
      const code = decode(from, vector * 8);
      const scaled = () =>
        f32x4.mul(f32x4.mul(code, 2 ** HALF_PRESCALE_LOG2), loads.v128(panel, vector * 16));
      f.do(stores.v128(to, layout.kind === 'f16' ? scaled() : code, vector * 16));
    }
    f.increase(from, PANEL * 2);
    f.increase(to, PANEL * 4);
  });
}

/** Eight inputs a word: nibble n of its halves is the pair of inputs 2 n and 2 n + 1. */
function decodeIntegers(f: FunctionBuilder, layout: PackedLayout, from: Local, to: Local): void {
  const { groups, groupBytes, scaleBytes } = layout;
  const [group, at] = [f.local('i32', 'group'), f.local('i32', 'at')];
  const words = f.vectors('words', VECTORS);
  const pairBytes = PANEL * 2;
  /** Pairs of four channels as int16. */
  const pairs = (vector: number, place: number) => {
    const nibble = v128.and(i16x8.shr_u(words[vector]!, place * 4), i16x8.splat(15));
    return i16x8.sub(nibble, i16x8.splat(8));
  };
  f.loop(group, 0, groups, 1, () => {
    for (const vector of vectors) f.do(stores.v128(to, loads.v128(from, vector * 16), vector * 16));
    f.increase(from, scaleBytes);
    f.increase(to, scaleBytes);
    f.loop(at, 0, groupBytes - scaleBytes, PANEL * 4, () => {
      for (const vector of vectors) f.set(words[vector]!, loads.v128(from, vector * 16));
      for (const place of [0, 1, 2, 3]) {
        for (const vector of [0, 2]) {
          const bytes = i8x16.narrow_i16x8_s(pairs(vector, place), pairs(vector + 1, place));
          f.do(stores.v128(to, bytes, place * pairBytes + vector * 8));
        }
      }
      f.increase(from, PANEL * 4);
      f.increase(to, PANEL * 8);
    });
  });
}
