// lib/jit/targets/wasm/heap.ts: the one shared memory of the target, and who has which part of it. All programs, Weights
// and tensors lie in it, so that a result of one program is another's argument without a copy.

/** Most bytes that a WebAssembly memory of 32-bit addresses holds. */
export const MEMORY_LIMIT_BYTES = 2 ** 32;

const PAGE_BYTES = 65536;
const ALIGNMENT = 64;
/** The first page stays empty: no address is 0. The last bytes too: vectors are read past the end of a tensor. */
const FIRST = PAGE_BYTES;
const SLACK_BYTES = 4096;

interface Block {
  readonly address: number;
  readonly bytes: number;
}

export class Heap {
  readonly memory: WebAssembly.Memory;
  private free: Block[] = [];
  private end = FIRST;
  private readonly sizes = new Map<number, number>();

  /** @param limitBytes most that the memory may grow to, at most 4 GiB; reserved in address space only */
  constructor(readonly limitBytes = MEMORY_LIMIT_BYTES) {
    this.memory = new WebAssembly.Memory({ initial: 16, maximum: limitBytes / PAGE_BYTES, shared: true });
  }

  /** Bytes that can still be had in one piece. */
  get freeBytes(): number {
    const gaps = this.free.map(({ bytes }) => bytes);
    return Math.max(this.limitBytes - SLACK_BYTES - this.end, ...gaps);
  }

  /** All bytes; a new view after each growth. */
  get bytes(): Uint8Array<SharedArrayBuffer> {
    // A shared memory's buffer is a SharedArrayBuffer; TypeScript's type of it leaves that open.
    return new Uint8Array(this.memory.buffer as unknown as SharedArrayBuffer);
  }

  float32(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length);
  }

  int32(address: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, length);
  }

  uint8(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length);
  }

  /**
   * Reserves memory; what was there before is not erased.
   * @throws RangeError if it does not fit (gives bytes and limit)
   */
  allocate(bytes: number, what: string): number {
    const needed = Math.max(1, Math.ceil(bytes / ALIGNMENT)) * ALIGNMENT;
    const address = this.takeFree(needed) ?? this.extend(needed, what);
    this.sizes.set(address, needed);
    return address;
  }

  release(address: number): void {
    const bytes = this.sizes.get(address);
    if (bytes === undefined) throw new Error(`wasm: address ${address} is not allocated`);
    this.sizes.delete(address);
    const blocks = [...this.free, { address, bytes }].sort((a, b) => a.address - b.address);
    this.free = [];
    for (const block of blocks) {
      const last = this.free.at(-1);
      if (last && last.address + last.bytes === block.address)
        this.free[this.free.length - 1] = { address: last.address, bytes: last.bytes + block.bytes };
      else this.free.push(block);
    }
    const last = this.free.at(-1);
    if (last && last.address + last.bytes === this.end) {
      this.end = last.address;
      this.free.pop();
    }
  }

  private takeFree(bytes: number): number | undefined {
    const fitting = this.free.filter((block) => block.bytes >= bytes);
    const best = fitting.reduce<Block | undefined>((a, b) => (a && a.bytes <= b.bytes ? a : b), undefined);
    if (!best) return undefined;
    this.free = this.free.flatMap((block) => {
      if (block !== best) return [block];
      return block.bytes > bytes ? [{ address: block.address + bytes, bytes: block.bytes - bytes }] : [];
    });
    return best.address;
  }

  private extend(bytes: number, what: string): number {
    const address = this.end;
    const top = address + bytes + SLACK_BYTES;
    if (top > this.limitBytes) {
      throw new RangeError(
        `${what}: expected at most ${this.freeBytes} bytes, all that is left of the ${this.limitBytes} bytes of a ` +
          `WebAssembly memory, received ${bytes}; release tensors or Weights, or quantize`,
      );
    }
    const missing = Math.ceil((top - this.memory.buffer.byteLength) / PAGE_BYTES);
    if (missing > 0) this.memory.grow(missing);
    this.end = address + bytes;
    return address;
  }
}
