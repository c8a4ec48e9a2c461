// lib/jit/targets/wasm/decode.ts: one panel of a packed Weight -> the same panel in the type that it is multiplied in,
// in scratch memory: float32 of 16-bit floats, int16 of int8 and int4. For many rows of inputs, where unpacking
// anew for every four of them would cost more than the larger panel.

import { FunctionBuilder, type FunctionCode, type Local } from './builder.js';
import { loads, stores } from './memory.js';
import type { Expr, Operand } from './nodes.js';
import { HALF_PRESCALE_LOG2, PANEL, type PackedLayout } from './pack.js';
import { i32 } from './scalars.js';
import { f32x4, i16x8, i32x4, v128 } from './vectors.js';

const VECTORS = PANEL / 4;
const vectors = Array.from({ length: VECTORS }, (_, i) => i);

export type FloatKind = 'f32' | 'bf16' | 'f16';

/** Four weights at address + offset as float32; of f16 the codes, still to be scaled. */
export const decoders: Readonly<Record<FloatKind, (address: Operand, offset: number) => Expr>> = {
  f32: (address, offset) => loads.v128(address, offset),
  bf16: (address, offset) => i32x4.shl(loads.u16ToI32x4(address, offset), 16),
  // Sign to bit 31, code to the exponent's lowest five bits; the copies of the sign between them are masked out.
  f16: (address, offset) =>
    v128.and(i32x4.shl(loads.i16ToI32x4(address, offset), 13), i32x4.splat(0x8fffe000 | 0)),
};

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
  const decode = decoders[layout.kind as FloatKind];
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

/** Group by group: the scales, then pairs of inputs of all channels as int16. */
function decodeIntegers(f: FunctionBuilder, layout: PackedLayout, from: Local, to: Local): void {
  const { kind, groups, groupBytes, scaleBytes } = layout;
  const [group, at] = [f.local('i32', 'group'), f.local('i32', 'at')];
  const step = kind === 'int4' ? nibbleStep(f, from, to) : byteStep(f, from, to);
  f.loop(group, 0, groups, 1, () => {
    for (const vector of vectors) f.do(stores.v128(to, loads.v128(from, vector * 16), vector * 16));
    f.increase(from, scaleBytes);
    f.increase(to, scaleBytes);
    f.loop(at, 0, groupBytes - scaleBytes, step.bytes, () => {
      step.decode();
      f.increase(from, step.bytes);
      f.increase(to, step.decodedBytes);
    });
  });
}

/** Bytes of a pair of inputs of all channels. */
const PAIR_BYTES = PANEL * 4;

/** A pair of inputs of each channel. */
function byteStep(f: FunctionBuilder, from: Local, to: Local) {
  const decode = () => {
    for (const vector of vectors) f.do(stores.v128(to, loads.i8ToI16x8(from, vector * 8), vector * 16));
  };
  return { bytes: PANEL * 2, decodedBytes: PAIR_BYTES, decode };
}

/** Eight inputs a word: nibble n of its halves is the pair of inputs 2 n and 2 n + 1. */
function nibbleStep(f: FunctionBuilder, from: Local, to: Local) {
  const words = f.vectors('words', VECTORS);
  const decode = () => {
    for (const vector of vectors) f.set(words[vector]!, loads.v128(from, vector * 16));
    for (const place of [0, 1, 2, 3]) {
      for (const vector of vectors) {
        const nibble = v128.and(i16x8.shr_u(words[vector]!, place * 4), i16x8.splat(15));
        const pairs = i16x8.sub(nibble, i16x8.splat(8));
        f.do(stores.v128(to, pairs, place * PAIR_BYTES + vector * 16));
      }
    }
  };
  return { bytes: PANEL * 4, decodedBytes: 4 * PAIR_BYTES, decode };
}
