// lib/jit/targets/wasm/bandwidth.ts: how fast this machine reads memory from WebAssembly, with all threads or one: what
// every share of the limit is taken of. Memory of WebAssembly lies in pages of 4 KiB, which costs it some.

import type { Plan } from '../../steps.js';
import { FunctionBuilder } from './builder.js';
import type { CompiledProgram } from './compile.js';
import { GLOBALS, globalValue } from './context.js';
import { ModuleBuilder } from './encoder.js';
import { WasmProgram } from './executable.js';
import { Machine } from './machine.js';
import { loads, stores } from './memory.js';
import { i32 } from './scalars.js';
import { v128 } from './vectors.js';

/** More than a second-level cache; what a third-level cache holds of it, it holds of Weights too. */
const READ_BYTES = 1 << 28;
const STEP_BYTES = 128;

const NOTHING: Plan = {
  graph: { inputs: [], nodes: [], outputs: [], weights: [] },
  ...{ steps: [], constants: [], weights: [], inputBytes: [], outputs: [], arenaBytes: READ_BYTES },
};

/** Each thread reads its part of the arena. */
function readingProgram(): CompiledProgram {
  const module = new ModuleBuilder({ minBytes: 0, maxBytes: 2 ** 32, shared: true });
  module.importFunction('clock', [], ['f64']);
  for (const _ of GLOBALS) module.addGlobal(0);
  const f = new FunctionBuilder('run');
  const part = f.let('part', i32.div_u(READ_BYTES / STEP_BYTES, globalValue('threads')));
  f.set(part, i32.mul(part, STEP_BYTES));
  const start = f.let('start', i32.add(globalValue('arena'), i32.mul(part, globalValue('thread'))));
  const at = f.local('i32', 'at');
  const seen = f.vectors('seen', STEP_BYTES / 16);
  f.loop(at, start, f.let('end', i32.add(start, part)), STEP_BYTES, () => {
    seen.forEach((each, i) => {
      f.set(each, v128.xor(each, loads.v128(at, i * 16)));
    });
  });
  seen.forEach((each, i) => {
    f.do(stores.v128(globalValue('scratch'), each, i * 16));
  });
  module.add(f.finish(), true);
  return {
    bytes: module.encode(),
    listing: () => module.listing(),
    ...{ table: [], constants: [], dataBytes: 0, arenaBytes: READ_BYTES, scratchBytes: STEP_BYTES },
    ...{ steps: 0, work: Number.POSITIVE_INFINITY },
  };
}

/**
 * Reads 256 MiB several times, in memory of its own.
 * @returns the best of the rounds, in 10^9 bytes a second
 */
export async function measureReadGBps(threads?: number, rounds = 7): Promise<number> {
  const machine = new Machine(threads === undefined ? {} : { threads });
  try {
    const compiled = readingProgram();
    const module = await WebAssembly.compile(compiled.bytes);
    const program = new WasmProgram(machine, NOTHING, compiled, module, () => undefined);
    // Pages that were never written are all the same page of zeros, in the first-level cache.
    machine.heap.bytes.fill(1, 65536);
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < rounds; round++) best = Math.min(best, (await program.run([], [], [])).runMs);
    return READ_BYTES / best / 1e6;
  } finally {
    await machine.dispose();
  }
}
