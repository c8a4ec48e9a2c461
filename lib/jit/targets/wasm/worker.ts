// lib/jit/targets/wasm/worker.ts: what runs in each worker thread: wait for a command, run a program, say so.
// The function is handed to the worker as text (run.ts): so it works alike from dist, from sources under a test runner,
// and in a notebook kernel, with no file to find. It must not use anything from outside itself.

import type { MessagePort } from 'node:worker_threads';

/** What a worker is told; in the order of the commands. */
export type Command =
  | { readonly kind: 'load'; readonly id: number; readonly module: WebAssembly.Module }
  | { readonly kind: 'unload'; readonly id: number }
  | {
      readonly kind: 'run';
      readonly id: number;
      readonly entry: 'run' | 'profile';
      /** Values of the module's globals. */
      readonly globals: readonly number[];
      readonly threads: number;
    };

export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly port: MessagePort;
  readonly thread: number;
  /** Places of the words in the first 64 KiB, in int32. */
  readonly words: {
    readonly commands: number;
    readonly finished: number;
    readonly failed: number;
    readonly events: number;
  };
}

/** Runs until the process ends or the worker is terminated. */
export function workerMain(threads: typeof import('node:worker_threads')): void {
  const { memory, port, thread, words } = threads.workerData as WorkerStart;
  const control = new Int32Array(memory.buffer, 0, 16384);
  const instances = new Map<number, WebAssembly.Instance>();
  const env = { memory, clock: () => performance.now() };

  const run = (command: Extract<Command, { kind: 'run' }>) => {
    if (thread >= command.threads) return;
    try {
      const { exports } = instances.get(command.id)!;
      command.globals.forEach((value, i) => {
        (exports[`global${i}`] as WebAssembly.Global).value = value;
      });
      (exports[command.entry] as () => void)();
    } catch (error) {
      Atomics.store(control, words.failed, 1);
      port.postMessage(error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    if (Atomics.add(control, words.finished, 1) + 1 === command.threads) {
      Atomics.add(control, words.events, 1);
      Atomics.notify(control, words.events);
    }
  };

  const obey = (command: Command) => {
    if (command.kind === 'load') instances.set(command.id, new WebAssembly.Instance(command.module, { env }));
    else if (command.kind === 'unload') instances.delete(command.id);
    else run(command);
  };

  let seen = 0;
  for (;;) {
    // A short spin catches the next call of a loop in JavaScript; the wait ends by itself, in case a wake is lost.
    for (let i = 0; i < 2000 && Atomics.load(control, words.commands) === seen; i++);
    while (Atomics.load(control, words.commands) === seen) Atomics.wait(control, words.commands, seen, 1000);
    seen = Atomics.load(control, words.commands);
    for (let next = threads.receiveMessageOnPort(port); next; next = threads.receiveMessageOnPort(port))
      obey(next.message as Command);
  }
}
