// lib/jit/targets/webgpu/kernels/attendShape.ts: how attention of one query a row over the cache is cut for an adapter.

import type { Features } from '../../../kernels/kernel.js';
import { mixedAtOnce, type Together } from './mix.js';

/** What is computed. */
export interface AttendProblem {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number; // a multiple of 4
  readonly capacity: number;
  readonly window: number | null;
  readonly scale: number;
  /** e^x by the adapter's own function. */
  readonly roughExp: boolean;
}

/** And how. */
export interface AttendSpec extends AttendProblem {
  /** Query heads that a workgroup serves: they share what is read of the cache. */
  readonly together: Together;
  /** Positions of a workgroup, and how many such chunks the cache has. */
  readonly chunk: number;
  readonly chunks: number;
  /** Of a workgroup: a multiple of headDim / 4. */
  readonly threads: number;
}

/** A cache of so many slots is read by one workgroup a head: a second dispatch takes longer than it saves. */
const longestWhole = 512;
/**
 * Positions of a chunk: those that a workgroup has under way at once (attend.ts). An H200 has 132 multiprocessors: 8,000
 * positions of 8 heads are 504 chunks, so that each has 3 or 4, and 64 kB of each chunk under way; its memory needs
 * about 30 kB a multiprocessor.
 */
const shortestChunk = 128;
const longestChunk = 512;
/** More workgroups than this are not needed, and those past a row's end cost time as well. */
const mostWorkgroups = 1024;
/** Workgroups that one dispatch has at least before heads share them. */
const leastWorkgroups = 64;

/** @returns undefined if it does not fit the adapter */
export function attendSpec(features: Features, problem: AttendProblem): AttendSpec | undefined {
  const { batch, heads, kvHeads, headDim, capacity } = problem;
  const vectors = headDim / 4;
  if (!Number.isInteger(vectors) || vectors > features.maxThreads) return undefined;
  const isWhole = capacity <= longestWhole;
  const shared = ([4, 2, 1] as const).filter((n) => (heads / kvHeads) % n === 0);
  for (const together of shared) {
    if (isWhole && together > 1 && (batch * heads) / together < leastWorkgroups) continue;
    const chunk = isWhole ? capacity : chunkOf(capacity, (batch * heads) / together);
    for (const wanted of isWhole && capacity > shortestChunk ? [512, 256] : [256]) {
      const threads = Math.max(1, Math.floor(Math.min(wanted, features.maxThreads) / vectors)) * vectors;
      const spec = { ...problem, together, chunk, chunks: Math.ceil(capacity / chunk), threads };
      if (attendSharedBytes(spec) <= features.maxSharedBytes) return spec;
    }
  }
  return undefined;
}

function chunkOf(capacity: number, rows: number): number {
  let chunk = shortestChunk;
  while (chunk < longestChunk && rows * Math.ceil(capacity / chunk) > mostWorkgroups) chunk *= 2;
  return chunk;
}

/** Neighbouring threads that share a key: they have to be of one subgroup. */
export function sharingThreads(features: Features, vectors: number): number {
  let sharing = 1;
  const most = features.subgroups ? Math.min(8, features.minSubgroupSize) : 1;
  while (sharing * 2 <= most && vectors % (sharing * 2) === 0) sharing *= 2;
  return sharing;
}

/** Keys that a thread has under way, in part or whole: 16 vectors, as far as there are so many positions. */
export function keysPerThread(features: Features, { headDim, threads }: AttendSpec): number {
  const sharing = sharingThreads(features, headDim / 4);
  const most = Math.floor(16 / (headDim / 4 / sharing));
  return Math.max(1, Math.min(most, Math.round((shortestChunk * sharing) / threads)));
}

/** Keys that a workgroup has under way. */
export function keysAtOnce(features: Features, spec: AttendSpec): number {
  return (spec.threads / sharingThreads(features, spec.headDim / 4)) * keysPerThread(features, spec);
}

/** Vectors of values that a thread has under way, each of another position. */
export function valuesPerThread({ headDim, threads }: Pick<AttendSpec, 'headDim' | 'threads'>): number {
  const strands = threads / (headDim / 4);
  return Math.max(1, Math.min(16, Math.round(shortestChunk / strands)));
}

/** Vectors of keys and of values that a thread holds if it reads both at once. */
export function vectorsUnderWay(features: Features, spec: AttendSpec): number {
  const vectors = spec.headDim / 4;
  const ofKeys = (keysPerThread(features, spec) * vectors) / sharingThreads(features, vectors);
  return ofKeys + valuesPerThread(spec);
}

/** Positions of a chunk, rounded up to whole rounds of values. */
export function paddedChunk({
  headDim,
  threads,
  chunk,
}: Pick<AttendSpec, 'headDim' | 'threads' | 'chunk'>): number {
  const atOnce = mixedAtOnce(threads, headDim / 4, valuesPerThread({ headDim, threads }));
  return Math.ceil(chunk / atOnce) * atOnce;
}

/** Shared memory: weights, queries, where sums meet, and what reductions need. */
function attendSharedBytes(spec: AttendSpec): number {
  const { headDim, together, threads } = spec;
  const reductions = 2 * together * (threads + 1);
  return 4 * (together * (paddedChunk(spec) + headDim + 4 * threads) + reductions);
}
