// bench/bandwidth.ts: a contender that only reads: the speed at which threads of this machine read a WebAssembly memory,
// which has pages of 4 KiB. What no kernel that streams its weights can beat.
// Each thread sums its own part of 512 MiB, written before. A run is the fastest of three readings.

import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { serve, type Timing, type Work } from './protocol.js';

const PAGE_BYTES = 65536;
const MEMORY_BYTES = 2 ** 29; // many times any cache
const LOADS = 8;
const READINGS = 3;

/** sum(begin, end): adds up all int32 in the bytes between, 128 a round; both multiples of 128. */
export function probeModule(memoryBytes: number): Uint8Array<ArrayBuffer> {
  const pages = leb(memoryBytes / PAGE_BYTES);
  const simd = (code: number): number[] => [0xfd, ...leb(code)];
  const [get, set, tee] = [0x20, 0x21, 0x22];
  const sumOf = (i: number): number => 2 + (i % 4); // locals: begin, end, four sums
  const load = (i: number): number[] => [get, 0, ...simd(0), 4, ...leb(16 * i)];
  const round = Array.from({ length: LOADS }, (_, i) => [
    ...[get, sumOf(i), ...load(i)],
    ...[...simd(174), set, sumOf(i)], // i32x4.add
  ]).flat();
  const next = [get, 0, 0x41, ...signedLeb(16 * LOADS), 0x6a, tee, 0, get, 1, 0x49, 0x0d, 0];
  const total = [get, 2, get, 3, ...simd(174), get, 4, ...simd(174), get, 5, ...simd(174), ...simd(27), 0];
  const body = [1, 4, 0x7b, 0x03, 0x40, ...round, ...next, 0x0b, ...total, 0x0b];
  const bytes = (text: string): number[] => [text.length, ...Buffer.from(text)];
  const section = (id: number, content: readonly number[]): number[] => [
    id,
    ...leb(content.length),
    ...content,
  ];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 2, 0x7f, 0x7f, 1, 0x7f]),
    ...section(2, [1, ...bytes('env'), ...bytes('memory'), 2, 3, ...pages, ...pages]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...bytes('sum'), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ]);
}

function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)];
}

function signedLeb(value: number): number[] {
  return value < 64 ? [value] : [(value & 127) | 128, ...signedLeb(value >>> 7)];
}

interface Part {
  readonly memory: WebAssembly.Memory;
  readonly begin: number;
  readonly end: number;
}

type Sum = (begin: number, end: number) => number;

export function compileProbe(memory: WebAssembly.Memory): Sum {
  const module = new WebAssembly.Module(probeModule(memory.buffer.byteLength));
  return new WebAssembly.Instance(module, { env: { memory } }).exports.sum as Sum;
}

function read({ memory, begin, end }: Part): void {
  const sum = compileProbe(memory);
  parentPort!.on('message', () => {
    sum(begin, end);
    parentPort!.postMessage('done');
  });
}

async function main(): Promise<void> {
  const pages = MEMORY_BYTES / PAGE_BYTES;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  new Uint8Array(memory.buffer).fill(1); // untouched pages are all one page of zeros
  const teams = new Map<number, Worker[]>();
  await serve({ name: 'read bandwidth, WebAssembly memory' }, async (work: Work): Promise<Timing> => {
    const threads = work.kind === 'bandwidth' ? work.threads : availableParallelism();
    const team = teams.get(threads) ?? teamOf(memory, threads);
    teams.set(threads, team);
    const times: number[] = [];
    for (let i = 0; i <= READINGS; i++) times.push(await readOnce(team));
    const totalMs = Math.min(...times.slice(1)); // the first one compiled
    const gigabytesPerSecond = MEMORY_BYTES / 1e6 / totalMs;
    return { totalMs, firstTokenMs: 0, newTokens: 0, threads, gigabytesPerSecond };
  });
  for (const worker of [...teams.values()].flat()) await worker.terminate();
}

function teamOf(memory: WebAssembly.Memory, threads: number): Worker[] {
  const share = Math.floor(MEMORY_BYTES / threads / 128) * 128;
  return Array.from({ length: threads }, (_, i) => {
    const workerData: Part = { memory, begin: i * share, end: (i + 1) * share };
    return new Worker(fileURLToPath(import.meta.url), { workerData });
  });
}

async function readOnce(team: readonly Worker[]): Promise<number> {
  const begun = performance.now();
  await Promise.all(
    team.map((worker) => {
      const done = new Promise((resolve) => worker.once('message', resolve));
      worker.postMessage('read');
      return done;
    }),
  );
  return performance.now() - begun;
}

if (!isMainThread) read(workerData as Part);
else if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
