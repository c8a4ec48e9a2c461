// lib/jit/targets/wasm/touch.ts: reading ahead. WebAssembly has no prefetch, but a load whose value is dropped is kept.

import type { FunctionBuilder, Local } from './builder.js';
import { loads } from './memory.js';
import { drop } from './scalars.js';

const LINE_BYTES = 64;

/** Reads one number of each cache line of `bytes`, from an address and a constant offset on. */
export function touch(f: FunctionBuilder, from: Local, bytes: number, offset = 0): void {
  for (let at = 0; at < bytes; at += LINE_BYTES) f.do(drop(loads.i32(from, offset + at)));
}
