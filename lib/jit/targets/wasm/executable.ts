// lib/jit/targets/wasm/executable.ts: a compiled program with its memory: constants, arena, scratch. Runs it in the worker
// threads, or in the calling thread where starting a worker would cost more.

import type { Plan } from '../../steps.js';
import type { BoundWeight, Executable, RunOptions, RunReport, TargetBuffer } from '../../target.js';
import type { CompiledProgram } from './compile.js';
import type { TableEntry } from './context.js';
import { CONTROL, type ProfileColumn, profileOf, resetControl } from './control.js';
import { type Machine, readValues, type WasmBuffer } from './machine.js';
import { type WasmWeight, weightAddress } from './weights.js';
import { expectedMs } from './work.js';

/** A program with less work than this (flops and half bytes of all rounds) runs in the calling thread: about 1 ms. */
const INLINE_WORK = 3_000_000;

/** Where a program's own blocks lie. */
interface Blocks {
  readonly table: number;
  readonly data: number;
  readonly arena: number;
  readonly scratch: number; // one after another, a thread each
}

export class WasmProgram implements Executable {
  readonly codeBytes: number;
  readonly #id: number;
  readonly #blocks: Blocks;
  readonly #threads: number;
  #instance: WebAssembly.Instance | undefined;
  #isLoaded = false;
  #hostCalls = 0;
  readonly #ownBytes: number;
  readonly #expectedMs: number;

  constructor(
    private readonly machine: Machine,
    private readonly plan: Plan,
    private readonly program: CompiledProgram,
    private readonly module: WebAssembly.Module,
    private readonly count: (bytes: number) => void,
  ) {
    this.codeBytes = program.bytes.byteLength;
    this.#id = machine.nextId();
    this.#expectedMs = expectedMs(plan.steps, plan.graph);
    this.#threads = this.#isInline() ? 1 : machine.pool.threads;
    this.#blocks = this.#allocate();
    this.#ownBytes = program.arenaBytes + program.dataBytes + program.scratchBytes * this.#threads;
    count(this.#ownBytes);
    const { heap } = machine;
    for (const { values, offset } of program.constants) {
      const at = this.#blocks.data + offset;
      if (values instanceof Float32Array) heap.float32(at, values.length).set(values);
      else heap.int32(at, values.length).set(values);
    }
  }

  #isInline(): boolean {
    return this.machine.inline && this.program.work < INLINE_WORK;
  }

  #allocate(): Blocks {
    const { heap } = this.machine;
    const { arenaBytes, dataBytes, scratchBytes, table } = this.program;
    const sizes = [table.length * 4, dataBytes, arenaBytes, scratchBytes * this.#threads];
    const addresses: number[] = [];
    try {
      for (const size of sizes) addresses.push(heap.allocate(size, 'program (arena, constants, scratch)'));
    } catch (error) {
      for (const address of addresses) heap.release(address);
      throw error;
    }
    const [first, data, arena, scratch] = addresses as [number, number, number, number];
    return { table: first, data, arena, scratch };
  }

  run(
    inputs: readonly TargetBuffer[],
    weights: readonly BoundWeight[],
    outputs: readonly TargetBuffer[],
    options: RunOptions = {},
  ): Promise<RunReport> {
    return this.machine.inTurn(async () => {
      options.signal?.throwIfAborted();
      this.#writeTable(inputs, weights, outputs);
      resetControl(this.machine.heap, this.program.steps);
      const started = performance.now();
      this.#hostCalls = 0;
      const report = this.#isInline()
        ? this.#runHere(outputs, options)
        : await this.#runInWorkers(outputs, options);
      options.signal?.throwIfAborted();
      const { steps } = this.program;
      const runMs = performance.now() - started;
      if (!options.profile) return { runMs, ...report };
      const column = (name: ProfileColumn) => profileOf(this.machine.heap, steps, name).slice();
      return { runMs, ...report, stepMs: column('ms'), stepPositions: column('positions') };
    });
  }

  #writeTable(
    inputs: readonly TargetBuffer[],
    weights: readonly BoundWeight[],
    outputs: readonly TargetBuffer[],
  ): void {
    const { heap } = this.machine;
    const addressOf = (entry: TableEntry): number => {
      if (entry.kind === 'weight') return weightAddress(weights[entry.index] as WasmWeight, entry.form);
      const buffers = entry.kind === 'input' ? inputs : outputs;
      return (buffers[entry.index] as WasmBuffer).address;
    };
    const addresses = this.program.table.map(addressOf);
    heap.int32(this.#blocks.table, addresses.length).set(addresses);
  }

  #globals(thread: number, threads: number): number[] {
    const { scratch, arena, data, table } = this.#blocks;
    return [scratch + thread * this.program.scratchBytes, arena, data, table, 0, thread, threads];
  }

  // ---------------------------------------------------------------- in this thread

  #runHere(outputs: readonly TargetBuffer[], options: RunOptions): Omit<RunReport, 'runMs'> {
    const clock = () => {
      this.#hostCalls++;
      return performance.now();
    };
    this.#instance ??= new WebAssembly.Instance(this.module, {
      env: { memory: this.machine.heap.memory, clock },
    });
    const { exports } = this.#instance;
    this.#globals(0, 1).forEach((value, i) => {
      (exports[`global${i}`] as WebAssembly.Global).value = value;
    });
    (exports[options.profile ? 'profile' : 'run'] as () => void)();
    this.#reporter(outputs, options)();
    return { hostCalls: this.#hostCalls, threads: 1 };
  }

  // ---------------------------------------------------------------- in the workers

  async #runInWorkers(
    outputs: readonly TargetBuffer[],
    options: RunOptions,
  ): Promise<Omit<RunReport, 'runMs'>> {
    const { pool, heap } = this.machine;
    if (!this.#isLoaded) pool.send(() => ({ kind: 'load', id: this.#id, module: this.module }));
    this.#isLoaded = true;
    const threads = this.machine.threadsNow();
    const word = (offset: number) => heap.int32(offset, 1);
    const report = this.#reporter(outputs, options);
    Atomics.store(word(CONTROL.listens), 0, options.onRound ? 1 : 0);
    const abort = () => void Atomics.store(word(CONTROL.abort), 0, 1);
    options.signal?.addEventListener('abort', abort);
    try {
      const failures = await pool.run(
        { id: this.#id, entry: options.profile ? 'profile' : 'run', threads },
        (thread) => this.#globals(thread, threads),
        report,
      );
      if (failures.length > 0) throw new Error(`wasm: the program failed: ${failures.join('; ')}`);
    } finally {
      options.signal?.removeEventListener('abort', abort);
    }
    report();
    // A loop looks after itself, round by round.
    if (!this.plan.steps.some(({ kind }) => kind === 'scan'))
      this.machine.noteNaps(Atomics.load(word(CONTROL.naps), 0), this.#expectedMs);
    const clockCalls = options.profile ? this.program.steps : 0;
    return { hostCalls: clockCalls, threads };
  }

  /** Hands on the rounds that are complete and have not been handed on yet. */
  #reporter(outputs: readonly TargetBuffer[], { onRound }: RunOptions): () => void {
    const scan = this.plan.steps.find((step) => step.kind === 'scan');
    if (!onRound || !scan) return () => {};
    const { heap } = this.machine;
    const rounds = heap.int32(CONTROL.rounds, 1);
    const stacked = scan.node.outputs.slice(scan.node.attrs.carry, -1);
    let next = 0;
    return () => {
      for (const complete = Atomics.load(rounds, 0); next < complete; next++) {
        const values = scan.outputs.map(({ to, bytes }, i) => {
          const base =
            to.space === 'arena' ? this.#blocks.arena + to.offset : (outputs[to.index] as WasmBuffer).address;
          return readValues(heap, base + next * bytes, bytes, stacked[i]!.dtype);
        });
        onRound(next, values);
      }
    };
  }

  listing(): string {
    return this.program.listing();
  }

  dispose(): void {
    const { heap, startedPool } = this.machine;
    if (this.#isLoaded) startedPool?.send(() => ({ kind: 'unload', id: this.#id }));
    for (const address of Object.values(this.#blocks) as number[]) heap.release(address);
    this.count(-this.#ownBytes);
  }
}
