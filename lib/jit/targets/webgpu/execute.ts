// lib/jit/targets/webgpu/execute.ts: one run of a program: what comes before its first loop, loops (loopRun.ts), the rest;
// its small results are fetched with it. Nothing waits but for results.

import type { Plan } from '../../steps.js';
import type { LoopReport, RunOptions, RunReport } from '../../target.js';
import type { WrittenAhead } from './ahead.js';
import { Commands } from './commands.js';
import { isReported, LoopRun } from './loopRun.js';
import { type GpuTensor, paddedBytes } from './memory.js';
import type { Host, PreparedItem, RunBuffers, RunMemory } from './prepared.js';
import { isLoop } from './prepared.js';
import { StepTimer } from './timer.js';

/**
 * So many bytes of a run's results, the smallest ones, are fetched with it: they can be read without waiting. Of what is
 * handed on to the next call (a cache) only what costs nothing.
 */
const fetchedBytes = 2e6;
const fetchedStateBytes = 4096;

export class ProgramRun {
  #loop: LoopReport | undefined;
  #mayReport: boolean;
  readonly #commands: Commands;

  constructor(
    readonly host: Host,
    readonly buffers: RunBuffers,
    readonly options: RunOptions,
    steps: number,
    readonly memory: RunMemory,
  ) {
    const timer = options.profile ? new StepTimer(host.gpu, steps) : undefined;
    this.#commands = new Commands(host, memory.bind, timer);
    this.#mayReport = options.onRound !== undefined;
  }

  /** @param ahead the first of the items, or none */
  async items(items: readonly PreparedItem[], ahead: WrittenAhead, plan: Plan): Promise<void> {
    const sent = this.options.profile ? 0 : this.#sendAhead(ahead);
    for (const item of items.slice(sent)) {
      const work = isLoop(item) ? this.#runLoop(item, plan) : this.#commands.write(item);
      if (work) await work;
    }
  }

  /** @returns how many items that were */
  #sendAhead(ahead: WrittenAhead): number {
    for (const { dispatches, commands } of ahead.take(this.memory.bind)) {
      if (commands) this.#commands.submitAhead(commands);
      else for (const prepared of dispatches) this.#commands.write(prepared);
    }
    return ahead.count;
  }

  async #runLoop(loop: Extract<PreparedItem, { item: unknown }>, plan: Plan): Promise<void> {
    const reports = this.#mayReport && isReported(loop.item, plan.steps);
    this.#mayReport &&= !reports;
    const report = await new LoopRun(this.#commands, loop, this.memory, this.options, reports).run();
    this.#loop ??= report;
  }

  /** Sends the rest and fetches small results. */
  async finish(plan: Plan): Promise<Pick<RunReport, 'loop' | 'stepMs'>> {
    const { memory } = this.host;
    const commands = this.#commands;
    if (commands.timer) await commands.flushTimer();
    const isRead = (_: GpuTensor, i: number): boolean =>
      !plan.outputs[i]!.isState || plan.outputs[i]!.bytes <= fetchedStateBytes;
    const small = smallest(this.buffers.outputs.filter(isRead));
    const sizes = small.map(({ bytes }) => paddedBytes(bytes));
    const all = sizes.reduce((sum, size) => sum + size, 0);
    const staging = memory.takeStaging(Math.max(16, all));
    commands.endPass();
    const { encoder } = commands;
    encoder.copyBufferToBuffer(this.memory.control, 0, staging, 0, 16); // at least something, to know when all is done
    let at = 0;
    for (const [i, { buffer }] of small.entries()) {
      encoder.copyBufferToBuffer(buffer, 0, staging, at, sizes[i]!);
      at += sizes[i]!;
    }
    commands.submit();
    const bytes = await memory.fetch(staging, Math.max(16, all));
    at = 0;
    for (const [i, tensor] of small.entries()) {
      tensor.values = bytes.slice(at, at + tensor.bytes);
      at += sizes[i]!;
    }
    const stepMs = commands.timer?.stepMs;
    commands.timer?.dispose();
    return { ...(this.#loop && { loop: this.#loop }), ...(stepMs && { stepMs }) };
  }
}

/** The smallest results, up to fetchedBytes in all. */
function smallest(outputs: readonly GpuTensor[]): GpuTensor[] {
  let left = fetchedBytes;
  const ordered = [...new Set(outputs)].sort((a, b) => a.bytes - b.bytes);
  return ordered.filter(({ bytes }) => {
    left -= paddedBytes(bytes);
    return left >= 0;
  });
}
