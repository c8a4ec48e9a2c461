// lib/jit/targets/wasm/pool.ts: the worker threads of a target, and waiting for them without blocking this thread.

import { availableParallelism } from 'node:os';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { CONTROL } from './control.js';
import type { Heap } from './heap.js';
import { type Command, type WorkerStart, workerMain } from './worker.js';

/** Since ES2024; all supported versions of Node have it. */
type WaitAsync = (
  view: Int32Array,
  index: number,
  value: number,
  timeoutMs: number,
) => { readonly async: boolean; readonly value: Promise<string> | string };
const waitAsync = (Atomics as unknown as { readonly waitAsync: WaitAsync }).waitAsync;

/** Waits end by themselves, in case a wake is lost. */
const WAIT_MS = 500;

interface Member {
  readonly worker: Worker;
  readonly port: MessagePort;
}

export class WorkerPool {
  readonly #heap: Heap;
  readonly #members: Member[];
  /** The first page: it never moves, so that one view is enough. */
  readonly #control: Int32Array;

  constructor(heap: Heap, threads: number) {
    this.#heap = heap;
    this.#control = new Int32Array(heap.memory.buffer, 0, 16384);
    this.#members = Array.from({ length: threads }, (_, thread) => this.#start(thread));
  }

  /** Threads of a pool unless the caller says otherwise: RT_THREADS, or one a core. */
  static defaultThreads(): number {
    const wanted = Number(process.env.RT_THREADS);
    return Number.isInteger(wanted) && wanted > 0 ? wanted : Math.min(8, availableParallelism());
  }

  #word(offset: number): number {
    return offset / 4;
  }

  #start(thread: number): Member {
    const { port1, port2 } = new MessageChannel();
    const start: WorkerStart = {
      memory: this.#heap.memory,
      port: port2,
      thread,
      words: {
        commands: this.#word(CONTROL.commands),
        finished: this.#word(CONTROL.finished),
        failed: this.#word(CONTROL.failed),
        events: this.#word(CONTROL.events),
      },
    };
    const source = `(${workerMain})(require('node:worker_threads'))`;
    const worker = new Worker(source, { eval: true, workerData: start, transferList: [port2] });
    worker.unref();
    port1.unref();
    return { worker, port: port1 };
  }

  get threads(): number {
    return this.#members.length;
  }

  /** Sends a command to every worker; globals differ by thread. */
  send(commandOf: (thread: number) => Command): void {
    this.#members.forEach(({ port }, thread) => {
      port.postMessage(commandOf(thread));
    });
    Atomics.add(this.#control, this.#word(CONTROL.commands), 1);
    Atomics.notify(this.#control, this.#word(CONTROL.commands));
  }

  /**
   * Runs a loaded program and waits for it, without blocking this thread.
   * @param globalsOf values of the module's globals in a thread
   * @param onEvent called whenever a thread has reported something
   * @returns what went wrong, by thread; nothing if all went well
   */
  async run(
    command: { readonly id: number; readonly entry: 'run' | 'profile'; readonly threads: number },
    globalsOf: (thread: number) => readonly number[],
    onEvent: () => void,
  ): Promise<string[]> {
    Atomics.store(this.#control, this.#word(CONTROL.finished), 0);
    this.send((thread) => ({ kind: 'run', ...command, globals: globalsOf(thread) }));
    await this.#wait(() => {
      onEvent();
      return Atomics.load(this.#control, this.#word(CONTROL.finished)) === command.threads;
    });
    return this.#failures();
  }

  /** The event loop stays alive meanwhile: waitAsync alone would not keep it so. */
  async #wait(isDone: () => boolean): Promise<void> {
    const events = this.#word(CONTROL.events);
    for (const { worker } of this.#members) worker.ref();
    try {
      for (;;) {
        const seen = Atomics.load(this.#control, events);
        if (isDone()) return;
        const result = waitAsync(this.#control, events, seen, WAIT_MS);
        if (result.async) await result.value;
      }
    } finally {
      for (const { worker } of this.#members) worker.unref();
    }
  }

  #failures(): string[] {
    return this.#members.flatMap(({ port }) => {
      const received = receiveMessageOnPort(port) as { message: string } | undefined;
      return received ? [received.message] : [];
    });
  }

  async dispose(): Promise<void> {
    for (const { port } of this.#members) port.close();
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
  }
}
