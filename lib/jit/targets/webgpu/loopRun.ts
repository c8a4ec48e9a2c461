// lib/jit/targets/webgpu/loopRun.ts: a loop of a running program: rounds are sent some at a time, several submissions
// ahead of what is known to be done; their outputs come back while the loop goes on.

import type { ElementValues } from '../../graph.js';
import type { LoopReport, RunOptions } from '../../target.js';
import type { Commands } from './commands.js';
import { firstSubmission, laterSubmissions } from './commands.js';
import { bindingAlignment } from './dispatch.js';
import { valuesOf } from './memory.js';
import type { LoopFacts, PreparedItem, PreparedLoop, RunMemory } from './prepared.js';
import { isLoop } from './prepared.js';

/** Rounds that were sent and are not known to be done. */
interface Sent {
  readonly first: number;
  readonly rounds: number;
  readonly arrived: Promise<ArrayBuffer>;
}

/**
 * What so many rounds consist of is sent piece by piece: at first the GPU has nothing else to do while the host writes.
 * After them the host is ahead by as much as a large submission takes to write.
 */
const earlyRounds = 6;

/** What comes back of a submission before its outputs: four control words, two times. */
const headerBytes = 32;

export class LoopRun {
  readonly #sent: Sent[] = [];
  #next = 0; // rounds that are known to be done
  #ended = false;
  // Dispatches that were written and not sent, and how many are sent.
  #written = 0;
  #enough = firstSubmission;
  // By the GPU's clock: how long passes ran, and from when to when.
  #busyNs = 0;
  #beginNs = Number.NaN;
  #endNs = 0;

  /** @param reports whether the rounds' outputs are told to options.onRound */
  constructor(
    readonly commands: Commands,
    readonly loop: PreparedLoop,
    readonly memory: RunMemory,
    readonly options: RunOptions,
    readonly reports: boolean,
  ) {}

  /** Runs the loop to its end. @throws what the signal was aborted with, between submissions */
  async run(): Promise<LoopReport> {
    const { commands, loop, options } = this;
    const { submissionsAhead } = commands.host.tuning;
    const { length } = loop.item.step.node.attrs;
    const { signal, expectedRounds = length } = options;
    for (const prepared of loop.begin) await commands.dispatch(prepared);
    let [hostMs, submissions, round] = [0, 0, 0];
    try {
      // The first submissions are small, so that the first round's outputs come soon.
      for (let size = 1; round < length && !this.#ended; size = Math.min(2 * size, this.#most)) {
        const expected = round < expectedRounds ? expectedRounds - round : length;
        const rounds = Math.min(size, length - round, expected);
        const started = performance.now();
        commands.openTimedPass();
        for (let i = 0; i < rounds; i++) await this.#round(loop.body, round + i < earlyRounds);
        this.#sent.push(this.#send(round, rounds));
        hostMs += performance.now() - started;
        submissions += 1;
        round += rounds;
        // Where the loop should have ended, the next rounds wait for it.
        const most = round === expectedRounds ? 1 : submissionsAhead;
        while (this.#sent.length >= most) await this.#receive(this.#sent.shift()!);
        if (!this.#ended) signal?.throwIfAborted();
      }
    } finally {
      for (const each of this.#sent) await this.#receive(each);
    }
    // Who has heard the last round may abort at once: the loop is done all the same.
    if (!this.#ended && this.#next < length) signal?.throwIfAborted();
    for (const prepared of loop.end) await commands.dispatch(prepared);
    return {
      rounds: this.#next,
      submissions,
      roundsPerSubmission: round / Math.max(1, submissions),
      hostMicrosecondsPerRound: (1000 * hostMs) / Math.max(1, round),
      gpuIdleShare: this.#busyNs > 0 ? 1 - this.#busyNs / (this.#endNs - this.#beginNs) : null,
    };
  }

  /** Rounds of a submission at most. */
  get #most(): number {
    return Math.max(1, this.commands.host.tuning.roundsPerSubmission);
  }

  async #round(body: readonly PreparedItem[], isEarly: boolean): Promise<void> {
    const { commands } = this;
    for (const each of body) {
      if (isEarly && this.#written >= this.#enough) {
        commands.submit();
        commands.openTimedPass(true);
        this.#written = 0;
        this.#enough = Math.min(2 * this.#enough, laterSubmissions);
      }
      this.#written += 1;
      const work = isLoop(each) ? unroll(commands, each) : commands.dispatch(each);
      if (work) await work;
    }
  }

  /** Sends what was written, with a copy of the control words and of the rounds' outputs. */
  #send(first: number, rounds: number): Sent {
    const { commands, memory } = this;
    const { step, number } = this.loop.item;
    const { memory: buffers, clock } = commands.host;
    commands.endPass();
    const { encoder } = commands;
    const outputs = this.reports ? step.outputs : [];
    const bytes = outputs.reduce((sum, output) => sum + output.bytes * rounds, headerBytes);
    const staging = buffers.takeStaging(bytes);
    encoder.copyBufferToBuffer(memory.control, bindingAlignment * number, staging, 0, 16);
    if (clock && !commands.timer) {
      encoder.resolveQuerySet(clock.queries, 0, 2, clock.resolved, 0);
      encoder.copyBufferToBuffer(clock.resolved, 0, staging, 16, 16);
    }
    let at = headerBytes;
    for (const { to, bytes: each } of outputs) {
      if (to.space === 'weight') continue;
      const { buffer, offset } = memory.resource({ kind: 'place', place: to, bytes: each });
      if (each > 0) encoder.copyBufferToBuffer(buffer, offset + first * each, staging, at, each * rounds);
      at += each * rounds;
    }
    commands.submit();
    this.#written = 0;
    const arrived = buffers.fetch(staging, bytes);
    arrived.catch(() => {}); // whoever awaits it is told; another may have failed before
    return { first, rounds, arrived };
  }

  async #receive({ first, rounds, arrived }: Sent): Promise<void> {
    const { commands, reports, options } = this;
    const { step } = this.loop.item;
    const bytes = await arrived;
    const [count, ended] = new Uint32Array(bytes, 0, 2) as unknown as [number, number]; // two elements
    if (ended !== 0) this.#ended = true;
    if (commands.host.clock && !commands.timer) this.#noteTimes(bytes);
    const complete = Math.min(count, first + rounds);
    const types = step.node.outputs.slice(step.node.attrs.carry, -1);
    for (; this.#next < complete; this.#next++) {
      if (!reports) continue;
      let at = headerBytes;
      const values = step.outputs.map(({ bytes: each }, i): ElementValues => {
        const begin = at + (this.#next - first) * each;
        at += each * rounds;
        return valuesOf(bytes.slice(begin, begin + each), types[i]!.dtype);
      });
      options.onRound?.(this.#next, values);
    }
  }

  #noteTimes(bytes: ArrayBuffer): void {
    const [begin, end] = Array.from(new BigUint64Array(bytes, 16, 2), Number) as [number, number];
    if (Number.isNaN(this.#beginNs)) this.#beginNs = begin;
    this.#busyNs += Math.max(0, end - begin);
    this.#endNs = Math.max(this.#endNs, end);
  }
}

/** A loop inside another: all of its rounds are written; those after its end do nothing. */
async function unroll(commands: Commands, { item, begin, body, end }: PreparedLoop): Promise<void> {
  for (const prepared of begin) await commands.dispatch(prepared);
  for (let round = 0; round < item.step.node.attrs.length; round++)
    for (const each of body) await (isLoop(each) ? unroll(commands, each) : commands.dispatch(each));
  for (const prepared of end) await commands.dispatch(prepared);
}

/** True if this loop's rounds are what RunOptions.onRound is told. */
export function isReported({ step }: LoopFacts, steps: readonly { readonly kind: string }[]): boolean {
  return step === steps.find(({ kind }) => kind === 'scan');
}
