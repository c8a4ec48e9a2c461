// lib/jit/targets/wasm/machine.ts: what all programs of the target share: memory, worker threads, one run at a time.

import type { ElementType, ElementValues } from '../../graph.js';
import { elementBytes } from '../../steps.js';
import type { TargetBuffer } from '../../target.js';
import { Heap } from './heap.js';
import { WorkerPool } from './pool.js';
import { tooManyNaps } from './work.js';

/** Runs by one thread after one in which the other cores were busy. */
const ALONE_RUNS = 8;

export interface WasmOptions {
  /** Worker threads; by default one a core, at most 8. */
  readonly threads?: number;
  /** Most bytes of memory, for tests; by default 4 GiB. */
  readonly limitBytes?: number;
  /** False: even the smallest program goes to the workers. */
  readonly inline?: boolean;
}

/** A tensor's memory. */
export interface WasmBuffer extends TargetBuffer {
  readonly heap: Heap;
  readonly address: number;
}

/** What programs share: memory, threads, and one run at a time. */
export class Machine {
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

  /** @param naps of all threads in a run that should have taken expectedMs */
  noteNaps(naps: number, expectedMs: number): void {
    if (naps >= tooManyNaps(expectedMs)) this.#aloneRuns = ALONE_RUNS;
  }

  async dispose(): Promise<void> {
    await this.#last;
    await this.#pool?.dispose();
    this.#pool = undefined;
  }
}

/** A copy of values in shared memory. */
export function readValues(heap: Heap, address: number, bytes: number, dtype: ElementType): ElementValues {
  const length = bytes / elementBytes;
  return dtype === 'f32'
    ? Float32Array.from(heap.float32(address, length))
    : Int32Array.from(heap.int32(address, length));
}
