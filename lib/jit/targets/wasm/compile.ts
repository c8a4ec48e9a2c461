// lib/jit/targets/wasm/compile.ts: plan -> the bytes of a WebAssembly module and what a run must prepare for it.
// Pure: no memory, no threads; run.ts has those.

import type { ElementValues } from '../../graph.js';
import type { Plan } from '../../steps.js';
import { GLOBALS, KernelContext, type TableEntry } from './context.js';
import { DriverBuilder } from './driver.js';
import { ModuleBuilder } from './encoder.js';
import { MEMORY_LIMIT_BYTES } from './heap.js';
import { type MultiplyAdd, plainMultiplyAdd } from './multiplyAdd.js';
import { totalWork } from './work.js';

/** A compiled plan. */
export interface CompiledProgram {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly listing: () => string;
  /** Addresses that each run writes to the table. */
  readonly table: readonly TableEntry[];
  readonly constants: readonly { readonly values: ElementValues; readonly offset: number }[];
  readonly dataBytes: number;
  readonly arenaBytes: number;
  readonly scratchBytes: number;
  /** Steps of the plan, a Scan's own after it. */
  readonly steps: number;
  /** Floating-point operations and half bytes of a run, all rounds. */
  readonly work: number;
}

export function compilePlan(plan: Plan, multiplyAdd: MultiplyAdd = plainMultiplyAdd): CompiledProgram {
  const module = new ModuleBuilder({ minBytes: 0, maxBytes: MEMORY_LIMIT_BYTES, shared: true });
  const clock = module.importFunction('clock', [], ['f64']);
  for (const _ of GLOBALS) module.addGlobal(0);
  const context = new KernelContext(module, plan.constants, multiplyAdd);
  const driver = new DriverBuilder(context, plan, clock);
  driver.add('run', false);
  driver.add('profile', true);
  return {
    bytes: module.encode(),
    listing: () => module.listing(),
    table: context.table,
    constants: context.constants,
    dataBytes: context.dataBytes,
    arenaBytes: plan.arenaBytes,
    scratchBytes: context.scratchBytes,
    steps: driver.steps,
    work: totalWork(plan.steps, plan.graph),
  };
}
