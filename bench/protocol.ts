// bench/protocol.ts: what the bench and its contenders say to each other. Each contender is a process of its own, loads
// once, and runs one piece of work when asked, so that all can be measured in turns: A B A B.
// A request is a line of JSON on stdin; an answer is a line on stdout that starts with MARK; anything else is chatter.

import { createInterface } from 'node:readline';

export const MARK = '@bench ';

/** One piece of work. */
export type Work =
  | GenerateWork
  | { readonly kind: 'batch'; readonly batch: number; readonly depth: number; readonly steps: number }
  | { readonly kind: 'profile'; readonly depth: number; readonly steps: number }
  | { readonly kind: 'bandwidth'; readonly threads: number };

/** Greedy, the end of sequence ignored. */
export interface GenerateWork {
  readonly kind: 'generate';
  readonly promptTokens: number;
  readonly newTokens: number;
  /** false: the whole sequence again for each token. */
  readonly cache?: boolean;
  /** Of a contender that can change it while running. */
  readonly threads?: number;
  /** Of PyTorch. */
  readonly mode?: 'generate' | 'int8';
}

/** What a run gave; `totalMs` of all its tokens. */
export interface Timing {
  readonly totalMs: number;
  /** Until the first token was known; 0 where there was no prompt. */
  readonly firstTokenMs: number;
  readonly newTokens: number;
  /** Threads that really ran. */
  readonly threads?: number;
  /** Of a bandwidth probe alone. */
  readonly gigabytesPerSecond?: number;
  readonly kernels?: readonly KernelTime[];
}

/** Kernels of one kind and shape in one token. */
export interface KernelTime {
  readonly kernel: string;
  readonly count: number;
  readonly ms: number;
  readonly bytes: number;
}

/** What a contender says of itself when it is loaded. */
export interface Facts {
  readonly name: string;
  /** Bytes of weights that one token must read. */
  readonly weightBytes?: number;
  /** Bytes of keys and values of one token. */
  readonly cacheBytesPerToken?: number;
}

type Answer = { readonly facts: Facts } | { readonly timing: Timing } | { readonly error: string };

export function answer(value: Answer): void {
  process.stdout.write(`${MARK}${JSON.stringify(value)}\n`);
}

/** A contender's main loop: says that it is loaded, then answers until stdin closes. */
export async function serve(facts: Facts, run: (work: Work) => Promise<Timing>): Promise<void> {
  answer({ facts });
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      answer({ timing: await run(JSON.parse(line) as Work) });
    } catch (error) {
      answer({ error: messageOf(error) });
    }
  }
}

/** Times an async stream of tokens. */
export async function timeTokens(tokens: AsyncIterable<unknown>, newTokens: number): Promise<Timing> {
  const begun = performance.now();
  let count = 0;
  let firstTokenMs = 0;
  for await (const _ of tokens) {
    count++;
    if (count === 1) firstTokenMs = performance.now() - begun;
    if (count === newTokens) break;
  }
  if (count < newTokens) throw new Error(`expected ${newTokens} new tokens, received ${count}`);
  return { totalMs: performance.now() - begun, firstTokenMs, newTokens: count };
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Token ids that a prompt of a contender has: the same for all, spread over the vocabulary. */
export { syntheticPrompt } from 'response-time/dataset';
