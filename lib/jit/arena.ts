// lib/jit/arena.ts: one block of memory, handed out and taken back: requests -> offsets, and the size that is needed.

/** A cache line, so that two threads never write to the same one. */
export const defaultAlignmentBytes = 64;

/**
 * The blocks given back last rest before they are handed out again, small ones only: a kernel that writes where an
 * earlier one has just read has to wait for all threads, and those of a single token are done in microseconds
 * (SmolLM2: 5 meetings of the threads a layer instead of 7).
 */
const RESTING_BLOCKS = 8;
const RESTING_BYTES = 32 * 1024;

/** Free blocks of the arena, sorted by offset; neighbours are merged. */
export class Arena {
  #free: { offset: number; bytes: number }[] = [];
  readonly #resting: { readonly offset: number; readonly bytes: number }[] = [];
  bytes = 0;
  readonly #alignmentBytes: number;

  /** @param alignmentBytes offsets and sizes are multiples of it */
  constructor(alignmentBytes = defaultAlignmentBytes) {
    this.#alignmentBytes = alignmentBytes;
  }

  /** Bytes that a request of this size takes. */
  #roundUp(bytes: number): number {
    return Math.max(1, Math.ceil(bytes / this.#alignmentBytes)) * this.#alignmentBytes;
  }

  allocate(bytes: number): number {
    const needed = this.#roundUp(bytes);
    let best: { offset: number; bytes: number } | undefined;
    for (const block of this.#free) {
      if (block.bytes >= needed && (!best || block.bytes < best.bytes)) best = block;
    }
    if (!best) return this.#grow(needed);
    const offset = best.offset;
    best.offset += needed;
    best.bytes -= needed;
    if (best.bytes === 0) this.#free.splice(this.#free.indexOf(best), 1);
    return offset;
  }

  /** Extends the arena; a free block at its end becomes part of the new one. */
  #grow(needed: number): number {
    const last = this.#free.at(-1);
    const touches = last !== undefined && last.offset + last.bytes === this.bytes;
    const offset = touches ? last.offset : this.bytes;
    if (touches) this.#free.pop();
    this.bytes = offset + needed;
    return offset;
  }

  release(offset: number, bytes: number): void {
    if (bytes > RESTING_BYTES) {
      this.#giveBack(offset, bytes);
      return;
    }
    this.#resting.push({ offset, bytes });
    if (this.#resting.length <= RESTING_BLOCKS) return;
    const oldest = this.#resting.shift()!;
    this.#giveBack(oldest.offset, oldest.bytes);
  }

  #giveBack(offset: number, bytes: number): void {
    const size = this.#roundUp(bytes);
    const at = this.#free.findIndex((block) => block.offset > offset);
    this.#free.splice(at < 0 ? this.#free.length : at, 0, { offset, bytes: size });
    this.#free = this.#free.reduce<{ offset: number; bytes: number }[]>((merged, block) => {
      const last = merged.at(-1);
      if (last && last.offset + last.bytes === block.offset) last.bytes += block.bytes;
      else merged.push(block);
      return merged;
    }, []);
  }
}
