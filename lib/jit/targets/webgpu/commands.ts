// lib/jit/targets/webgpu/commands.ts: dispatches in order -> commands, sent when there are enough of them; with a timer,
// each dispatch in a pass of its own that is timed.

import type { Host, Prepared } from './prepared.js';
import { encode } from './prepared.js';
import type { StepTimer } from './timer.js';

/**
 * Dispatches outside of loops are sent after these: few at first, so that the GPU begins while the rest is written, then
 * so many that sending costs little beside them.
 */
export const firstSubmission = 8;
export const laterSubmissions = 64;

/** What one run writes and has not sent yet. */
export class Commands {
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #written = 0; // dispatches that were not sent yet, as far as `write` wrote them
  #enough = firstSubmission;

  constructor(
    readonly host: Host,
    /** Gives a dispatch the bind group of this run. */
    readonly bind: (prepared: Prepared) => void,
    readonly timer: StepTimer | undefined,
  ) {}

  /** What else is written into the next submission. */
  get encoder(): GPUCommandEncoder {
    this.#encoder ??= this.host.gpu.device.createCommandEncoder();
    return this.#encoder;
  }

  /** Writes a dispatch, and sends what was written when it is enough. */
  write(prepared: Prepared): Promise<void> | undefined {
    const measured = this.dispatch(prepared);
    this.#written += 1;
    if (!this.timer && this.#written >= this.#enough) this.submit();
    return measured;
  }

  /** Sends commands that were written before, after what is written already. */
  submitAhead(commands: GPUCommandBuffer): void {
    this.submit();
    this.host.gpu.device.queue.submit([commands]);
    this.#enough = laterSubmissions;
  }

  /** Writes a dispatch: at once, but for a timer that may have to be read first. */
  dispatch(prepared: Prepared): Promise<void> | undefined {
    this.bind(prepared);
    if (this.timer) return this.#measure(prepared, this.timer);
    this.#pass ??= this.encoder.beginComputePass();
    encode(this.#pass, prepared);
    return undefined;
  }

  async #measure(prepared: Prepared, timer: StepTimer): Promise<void> {
    this.endPass();
    await timer.measure(this.encoder, prepared.dispatch.step, (pass) => encode(pass, prepared));
    if (timer.isFull) await this.flushTimer();
  }

  /**
   * A pass whose begin and end are noted, to know when the GPU idles between submissions.
   * @param goesOn that of what was sent last, whose begin is noted already
   */
  openTimedPass(goesOn = false): void {
    this.endPass();
    const { clock } = this.host;
    if (!clock || this.timer) return;
    const timestampWrites = {
      querySet: clock.queries,
      ...(goesOn ? {} : { beginningOfPassWriteIndex: 0 }),
      endOfPassWriteIndex: 1,
    };
    this.#pass = this.encoder.beginComputePass({ timestampWrites });
  }

  endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  async flushTimer(): Promise<void> {
    this.endPass();
    this.timer!.resolve(this.encoder);
    this.submit();
    await this.timer!.collect();
  }

  submit(): void {
    this.endPass();
    if (!this.#encoder) return;
    this.host.gpu.device.queue.submit([this.#encoder.finish()]);
    this.#encoder = undefined;
    this.#written = 0;
    this.#enough = laterSubmissions;
  }
}
