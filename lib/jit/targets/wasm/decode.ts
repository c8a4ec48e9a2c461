// lib/jit/targets/wasm/decode.ts: one panel of a packed Weight -> the same panel in the type that it is multiplied in,
// in scratch memory: float32, or int16 with the scales before each group. For many rows of inputs, where unpacking
// anew for every four of them would cost more than the larger panel.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { loads, stores } from './memory.js';
import { decodedLayout, HALF_PRESCALE_LOG2, PANEL, type PackedLayout } from './pack.js';
import { decoders } from './products.js';
import { i32 } from './scalars.js';
import { f32x4, i16x8, v128 } from './vectors.js';

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

function decodeIntegers(f: FunctionBuilder, layout: PackedLayout, from: Local, to: Local): void {
  const { groups, groupBytes, scaleBytes } = layout;
  const [group, at] = [f.local('i32', 'group'), f.local('i32', 'at')];
  const words = f.local('v128', 'words');
  const wide = decodedLayout(layout);
  const int8Pair = () => {
    for (const vector of vectors) f.do(stores.v128(to, loads.i8ToI16x8(from, vector * 8), vector * 16));
  };
  /** Eight inputs: the four nibbles of each half word are four pairs. */
  const int4Word = () => {
    for (const vector of vectors) {
      f.set(words, loads.v128(from, vector * 16));
      for (const place of [0, 1, 2, 3]) {
        const nibble = v128.and(i16x8.shr_u(words, place * 4), i16x8.splat(15));
        f.do(stores.v128(to, i16x8.sub(nibble, i16x8.splat(8)), (place * VECTORS + vector) * 16));
      }
    }
  };
  const [decode, readBytes] = layout.kind === 'int8' ? [int8Pair, PANEL * 2] : [int4Word, PANEL * 4];
  const writtenBytes = layout.kind === 'int8' ? PANEL * 4 : PANEL * 16;
  f.loop(group, 0, groups, 1, () => {
    for (const vector of vectors) f.do(stores.v128(to, loads.v128(from, vector * 16), vector * 16));
    f.increase(from, scaleBytes);
    f.increase(to, wide.scaleBytes);
    f.loop(at, 0, groupBytes - scaleBytes, readBytes, () => {
      decode();
      f.increase(from, readBytes);
      f.increase(to, writtenBytes);
    });
  });
}
