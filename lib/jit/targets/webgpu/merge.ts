// lib/jit/targets/webgpu/merge.ts: dispatches in order -> fewer: small ones that do not need each other become one, side by
// side (kernels/side.ts). Between two dispatches the GPU runs empty, 4 to 5 microseconds on an H200: longer than most of
// them take.

import type { Kernel } from '../../kernels/kernel.js';
import { canStandAside, functionsAgree, sideBySide, writtenArrays } from '../../kernels/side.js';
import type { BufferUse, Dispatch } from './dispatch.js';
import { memoryOf, useKey } from './dispatch.js';
import { paddedBytes } from './memory.js';

/** A dispatch may be done earlier by as many places, to join another. */
const mostPlaces = 16;
/** Of one merged dispatch: what is compiled grows with them. */
const mostParts = 8;
/** WebGPU's most in one dimension. */
const mostWorkgroups = 65535;

/**
 * Merges the dispatches of one level.
 * @param maxBuffers of one kernel
 */
export function mergeDispatches(dispatches: readonly Dispatch[], maxBuffers: number): Dispatch[] {
  const sets: MergedSet[] = [];
  for (const dispatch of dispatches) {
    const own = new MergedSet(dispatch);
    const home = own.isSmall ? homeOf(own, sets, maxBuffers) : undefined;
    if (home) home.join(own);
    else sets.push(own);
  }
  return sets.map((set) => set.dispatch());
}

/** The nearest earlier dispatch that this one can join: nothing between may need to come before it. */
function homeOf(own: MergedSet, sets: readonly MergedSet[], maxBuffers: number): MergedSet | undefined {
  for (let at = sets.length - 1; at >= Math.max(0, sets.length - mostPlaces); at--) {
    const other = sets[at]!;
    if (own.dependsOn(other)) return undefined;
    if (other.canTake(own, maxBuffers)) return other;
  }
  return undefined;
}

/** Memory as a range of a space: those of different spaces share nothing. */
interface Range {
  readonly space: string;
  readonly begin: number;
  readonly end: number;
}

/** A buffer as a dispatch uses it. */
interface Use {
  readonly use: BufferUse;
  readonly range: Range;
  readonly element: string;
  /** Bound so that it could be written. */
  readonly isWritable: boolean;
  readonly isWritten: boolean;
}

/** Dispatches that run as one. */
class MergedSet {
  readonly #members: Dispatch[];
  readonly #uses: Use[];
  readonly isSmall: boolean;

  constructor(dispatch: Dispatch) {
    this.#members = [dispatch];
    this.#uses = usesOf(dispatch);
    const [, y, z] = dispatch.workgroups;
    this.isSmall = y === 1 && z === 1 && canStandAside(dispatch.kernel);
  }

  get #first(): Dispatch {
    return this.#members[0]!;
  }

  /** True if this one has to come after the other. */
  dependsOn(other: MergedSet): boolean {
    return this.#uses.some((a) =>
      other.#uses.some((b) => (a.isWritten || b.isWritten) && overlap(a.range, b.range)),
    );
  }

  /** True if one dispatch can be bound to what both use. */
  canTake(other: MergedSet, maxBuffers: number): boolean {
    if (!this.isSmall || this.#members.length >= mostParts) return false;
    if (this.#first.kernel.threads !== other.#first.kernel.threads) return false;
    const all = [...this.#members, ...other.#members];
    if (all.reduce((sum, { workgroups }) => sum + workgroups[0], 0) > mostWorkgroups) return false;
    const fit = other.#uses.every((a) => this.#uses.every((b) => canShareKernel(a, b)));
    if (!fit || bindingsOf([...this.#uses, ...other.#uses]).uses.length > maxBuffers) return false;
    return functionsAgree(all.map(({ kernel }) => kernel));
  }

  join(other: MergedSet): void {
    this.#members.push(...other.#members);
    this.#uses.push(...other.#uses);
  }

  dispatch(): Dispatch {
    if (this.#members.length === 1) return this.#first;
    const { uses, numbers } = bindingsOf(this.#uses);
    let first = 0;
    const parts = this.#members.map(({ kernel, workgroups }) => {
      const bindings = numbers.slice(first, first + kernel.buffers.length);
      first += kernel.buffers.length;
      return { kernel, workgroups: workgroups[0], bindings };
    });
    const count = parts.reduce((sum, { workgroups }) => sum + workgroups, 0);
    return {
      kernel: sideBySide(parts),
      buffers: uses.map(({ use }) => use),
      workgroups: [count, 1, 1],
      step: this.#first.step,
    };
  }
}

const written = new WeakMap<Kernel, ReadonlySet<string>>();

function usesOf({ kernel, buffers }: Dispatch): Use[] {
  const names = written.get(kernel) ?? writtenArrays(kernel);
  written.set(kernel, names);
  return kernel.buffers.map(({ name, element, access }, i) => {
    const use = buffers[i]!;
    const isWritable = access !== 'read' && access !== 'uniform';
    return { use, range: rangeOf(use), element, isWritable, isWritten: names.has(name) };
  });
}

function rangeOf(use: BufferUse): Range {
  const whole = (space: string): Range => ({ space, begin: 0, end: Number.POSITIVE_INFINITY });
  const part = (space: string, begin: number, bytes: number): Range => {
    return { space, begin, end: begin + paddedBytes(bytes) };
  };
  if (use.kind === 'arena') return whole('arena');
  if (use.kind === 'scratch' || use.kind === 'lasting') return part(memoryOf(use), use.offset, use.bytes);
  if (use.kind === 'place' && use.place.space === 'arena') return part('arena', use.place.offset, use.bytes);
  return whole(useKey(use));
}

function overlap(a: Range, b: Range): boolean {
  return a.space === b.space && a.begin < b.end && b.begin < a.end;
}

/** True for the same memory seen as the same elements: one binding does for both. */
function isSame(a: Use, b: Use): boolean {
  const { range, element, isWritable } = a;
  const isSameRange =
    range.space === b.range.space && range.begin === b.range.begin && range.end === b.range.end;
  return isSameRange && element === b.element && isWritable === b.isWritable;
}

/** WebGPU refuses memory that is bound twice in a dispatch where it could be written, if not written. */
function canShareKernel(a: Use, b: Use): boolean {
  if (isSame(a, b)) return !a.isWritten && !b.isWritten;
  const isOneBuffer = a.range.space === b.range.space;
  if (isOneBuffer && a.isWritable !== b.isWritable) return false;
  return !overlap(a.range, b.range) || !(a.isWritable || b.isWritable);
}

/** Each use once, and for each of the list its number. */
function bindingsOf(all: readonly Use[]): { uses: readonly Use[]; numbers: readonly number[] } {
  const uses: Use[] = [];
  const numbers = all.map((each) => {
    const known = uses.findIndex((use) => isSame(use, each));
    return known >= 0 ? known : uses.push(each) - 1;
  });
  return { uses, numbers };
}
