// lib/jit/targets/wasm/run.ts: the target `wasm`: one shared memory, worker threads that run whole programs in it, and a
// main thread that only waits. Small programs run in the calling thread, where starting a worker would cost more.

import type { Weight } from '../../../tensor.js';
import { type ElementType, type ElementValues, formatOf } from '../../graph.js';
import type { Plan } from '../../plan.js';
import { elementBytes } from '../../plan.js';
import type {
  BoundWeight,
  Executable,
  RunOptions,
  RunReport,
  Target,
  TargetBuffer,
  WeightUse,
} from '../../target.js';
import { type CompiledProgram, compilePlan } from './compile.js';
import type { TableEntry } from './context.js';
import { CONTROL, profileOf, resetControl } from './control.js';
import { Heap } from './heap.js';
import { WorkerPool } from './pool.js';
import { checkFit } from './size.js';
import { bindWeight, unbindWeight, type WasmWeight, weightAddress } from './weights.js';

/** A program with less work than this (flops and half bytes of all rounds) runs in the calling thread: about 1 ms. */
const INLINE_WORK = 3_000_000;
/** Runs by one thread after one in which the other cores were busy. */
const ALONE_RUNS = 8;
const BAD_STALLS = 3;

export interface WasmOptions {
  /** Worker threads; by default one a core, at most 8. */
  readonly threads?: number;
  /** Most bytes of memory, for tests; by default 4 GiB. */
  readonly limitBytes?: number;
  /** False: even the smallest program goes to the workers. */
  readonly inline?: boolean;
}

interface WasmBuffer extends TargetBuffer {
  readonly heap: Heap;
  readonly address: number;
}

/** What programs share: memory, threads, and one run at a time. */
class Machine {
  readonly heap: Heap;
  readonly inline: boolean;
  #pool: WorkerPool | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #programs = 0;
  #aloneRuns = 0;

  constructor(readonly options: WasmOptions) {
    this.heap = new Heap(options.limitBytes);
    this.inline = options.inline ?? true;
  }

  nextId(): number {
    return this.#programs++;
  }

  get pool(): WorkerPool {
    this.#pool ??= new WorkerPool(this.heap, this.options.threads ?? WorkerPool.defaultThreads());
    return this.#pool;
  }

  get startedPool(): WorkerPool | undefined {
    return this.#pool;
  }

  /** Runs one after another: programs share the threads. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work, work);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Threads of the next run: one for a while after a run whose threads had to wait for a busy core. */
  threadsNow(): number {
    if (this.#aloneRuns === 0) return this.pool.threads;
    this.#aloneRuns--;
    return 1;
  }

  noteStalls(stalls: number): void {
    if (stalls >= BAD_STALLS) this.#aloneRuns = ALONE_RUNS;
  }

  async dispose(): Promise<void> {
    await this.#last;
    await this.#pool?.dispose();
    this.#pool = undefined;
  }
}

class WasmTarget implements Target {
  readonly name = 'wasm';
  readonly #options: WasmOptions;
  #machine: Machine;
  #weightBytes = 0;
  #bufferBytes = 0;
  #arenaBytes = 0;

  constructor(options: WasmOptions) {
    this.#options = options;
    this.#machine = new Machine(options);
  }

  async compile(plan: Plan): Promise<Executable> {
    const program = compilePlan(plan);
    const machine = this.#machine;
    const module = await WebAssembly.compile(program.bytes);
    const executable = new WasmProgram(machine, plan, program, module, (bytes) => {
      this.#arenaBytes += bytes;
    });
    return executable;
  }

  checkFit(weights: readonly { readonly weight: Weight; readonly use: WeightUse }[]): void {
    const { heap } = this.#machine;
    const sized = weights.map(({ weight, use }) => ({ format: formatOf(weight), use }));
    checkFit(sized, heap.freeBytes, heap.limitBytes);
  }

  bind(weight: Weight, use: WeightUse): BoundWeight {
    this.checkFit([{ weight, use }]);
    const bound = bindWeight(this.#machine.heap, weight, use);
    this.#weightBytes += bound.bytes;
    return bound;
  }

  unbind(weight: BoundWeight): void {
    const bound = weight as WasmWeight;
    unbindWeight(bound);
    if (bound.heap === this.#machine.heap) this.#weightBytes -= bound.bytes;
  }

  allocate(bytes: number): TargetBuffer {
    const { heap } = this.#machine;
    const address = heap.allocate(bytes, 'tensor');
    this.#bufferBytes += bytes;
    const buffer: WasmBuffer = { bytes, heap, address };
    return buffer;
  }

  release(buffer: TargetBuffer): void {
    const { heap, address, bytes } = buffer as WasmBuffer;
    heap.release(address);
    if (heap === this.#machine.heap) this.#bufferBytes -= bytes; // else it outlived a dispose
  }

  write(buffer: TargetBuffer, values: ElementValues): void {
    const { heap } = this.#machine;
    const { address } = buffer as WasmBuffer;
    if (values instanceof Float32Array) heap.float32(address, values.length).set(values);
    else heap.int32(address, values.length).set(values);
  }

  read(buffer: TargetBuffer, dtype: ElementType): ElementValues {
    return readValues(this.#machine.heap, (buffer as WasmBuffer).address, buffer.bytes, dtype);
  }

  memory(): { readonly weightBytes: number; readonly bufferBytes: number; readonly arenaBytes: number } {
    return { weightBytes: this.#weightBytes, bufferBytes: this.#bufferBytes, arenaBytes: this.#arenaBytes };
  }

  async dispose(): Promise<void> {
    await this.#machine.dispose();
    this.#machine = new Machine(this.#options);
    this.#weightBytes = 0;
    this.#bufferBytes = 0;
    this.#arenaBytes = 0;
  }
}

/** A copy of values in shared memory. */
function readValues(heap: Heap, address: number, bytes: number, dtype: ElementType): ElementValues {
  const length = bytes / elementBytes;
  return dtype === 'f32'
    ? Float32Array.from(heap.float32(address, length))
    : Int32Array.from(heap.int32(address, length));
}

// ------------------------------------------------------------------ programs

/** Where a program's own blocks lie. */
interface Blocks {
  readonly table: number;
  readonly data: number;
  readonly arena: number;
  readonly scratch: number; // one after another, a thread each
}

class WasmProgram implements Executable {
  readonly codeBytes: number;
  readonly #id: number;
  readonly #blocks: Blocks;
  readonly #threads: number;
  #instance: WebAssembly.Instance | undefined;
  #isLoaded = false;
  #hostCalls = 0;
  readonly #ownBytes: number;

  constructor(
    private readonly machine: Machine,
    private readonly plan: Plan,
    private readonly program: CompiledProgram,
    private readonly module: WebAssembly.Module,
    private readonly count: (bytes: number) => void,
  ) {
    this.codeBytes = program.bytes.byteLength;
    this.#id = machine.nextId();
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
      const stepMs = options.profile ? profileOf(this.machine.heap, steps).slice() : undefined;
      return { runMs: performance.now() - started, ...report, ...(stepMs && { stepMs }) };
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
    this.machine.noteStalls(Atomics.load(word(CONTROL.stalls), 0));
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

/** A new wasm target. Its worker threads start with the first program that needs them. */
export function createWasmTarget(options: WasmOptions = {}): Target {
  return new WasmTarget(options);
}
