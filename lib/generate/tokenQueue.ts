// lib/generate/tokenQueue.ts: tokens told by a callback -> an async loop over them.

/** Tokens that arrive by callback, read by an async loop. */
export class TokenQueue implements AsyncIterable<number> {
  readonly #waiting: number[] = [];
  #wake: () => void = () => {};
  #ended: { readonly error: unknown } | undefined;

  push(id: number): void {
    this.#waiting.push(id);
    this.#wake();
  }

  end(error?: unknown): void {
    this.#ended = { error };
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<number> {
    for (;;) {
      while (this.#waiting.length > 0) yield this.#waiting.shift()!;
      if (this.#ended?.error !== undefined) throw this.#ended.error;
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
