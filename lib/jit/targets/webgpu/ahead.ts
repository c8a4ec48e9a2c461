// lib/jit/targets/webgpu/ahead.ts: a program's dispatches before its first loop, written as commands before its next run
// asks for them. Writing a large model's prompt takes as long as the GPU needs for it; sending what is written does not.
// Commands can be sent once, and only with the buffers that they were written with.

import { firstSubmission, laterSubmissions } from './commands.js';
import type { Host, Prepared } from './prepared.js';
import { encode } from './prepared.js';

/** Fewer dispatches are written fast enough when they are needed. */
const fewestDispatches = 32;
/** Writing begins so long after a run, so that what comes right after it goes first. */
const restMs = 3;

/** Dispatches that are sent together. */
interface Chunk {
  readonly dispatches: readonly Prepared[];
  /** Undefined before they are written and after they are sent. */
  written: { readonly commands: GPUCommandBuffer; readonly groups: readonly GPUBindGroup[] } | undefined;
}

export class WrittenAhead {
  readonly #chunks: Chunk[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param dispatches in order; those that no run has bound yet are left for later */
  constructor(
    readonly host: Host,
    dispatches: readonly Prepared[],
  ) {
    if (dispatches.length < fewestDispatches) return;
    for (let at = 0; at < dispatches.length; ) {
      const size = at === 0 ? firstSubmission : laterSubmissions;
      this.#chunks.push({ dispatches: dispatches.slice(at, at + size), written: undefined });
      at += size;
    }
  }

  /** How many of the dispatches `take` gives: all, or none where they are few. */
  get count(): number {
    return this.#chunks.reduce((sum, { dispatches }) => sum + dispatches.length, 0);
  }

  /**
   * The dispatches in the order that they are sent in, with their commands where those still hold.
   * @param bind gives a dispatch the bind group of this run
   */
  *take(bind: (prepared: Prepared) => void): Generator<{
    readonly dispatches: readonly Prepared[];
    readonly commands: GPUCommandBuffer | undefined;
  }> {
    this.stop();
    for (const chunk of this.#chunks) {
      const { dispatches, written } = chunk;
      chunk.written = undefined;
      for (const prepared of dispatches) bind(prepared);
      const holds = written && dispatches.every(({ group }, i) => group === written.groups[i]);
      yield { dispatches, commands: holds ? written.commands : undefined };
    }
  }

  /** Writes what is not written, a chunk at a time, when there is nothing else to do. */
  writeLater(): void {
    if (this.#timer !== undefined) return;
    const next = this.#chunks.find(
      ({ dispatches, written }) => !written && dispatches.every(({ group }) => group),
    );
    if (!next) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      next.written = this.#write(next.dispatches);
      this.writeLater();
    }, restMs);
  }

  #write(dispatches: readonly Prepared[]): Chunk['written'] {
    const encoder = this.host.gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const prepared of dispatches) encode(pass, prepared);
    pass.end();
    return { commands: encoder.finish(), groups: dispatches.map(({ group }) => group!) };
  }

  /** Writes no more; what is written is kept. */
  stop(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Forgets what is written, and the buffers that it holds. */
  clear(): void {
    this.stop();
    for (const chunk of this.#chunks) chunk.written = undefined;
  }
}
