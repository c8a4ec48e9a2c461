// lib/jit/targets/webgpu/context.ts: what the code that writes dispatches knows of the plan and of the adapter.

import { sizeOf } from '../../../tensor.js';
import { Arena } from '../../arena.js';
import type { ElementType, Value, WeightFormat } from '../../graph.js';
import type { Features } from '../../kernels/kernel.js';
import type { CopyStep, KernelStep, Place, Plan, Step } from '../../steps.js';
import { elementBytes } from '../../steps.js';
import type { Mode } from '../../target.js';
import type { Bank, BufferUse, Dispatch } from './dispatch.js';
import { bindingAlignment } from './dispatch.js';
import type { MatvecShape } from './kernels/matvec.js';
import type { TunableProblem } from './kernels/tune.js';
import { leastMatrixWeights } from './kernels/tuning.js';
import type { MatrixLayout, WeightForm } from './layout.js';
import { matrixLayout } from './layout.js';
import { DispatchWriter } from './writer.js';

/** A value that a kernel reads or writes. */
export interface Operand {
  readonly use: BufferUse;
  readonly dtype: ElementType;
  readonly shape: readonly number[];
  /** Elements of the memory before the value's own; default none. */
  readonly base?: number;
}

export type LastingUse = Extract<BufferUse, { kind: 'lasting' }>;

export interface ContextOptions {
  readonly features: Features;
  /** The most that a kernel can be given of one buffer. */
  readonly bindingBytes: number;
  /** How matrix-vector kernels were found to be cut best on this adapter, by problemKey. */
  readonly shapes?: ReadonlyMap<string, MatvecShape> | undefined;
  /** `fast`: products of integer Weights may round what they multiply to one signed byte, not three. Default exact. */
  readonly mode?: Mode | undefined;
  /** `plain`: only the generic kernels, which compile fast; for emulated GPUs and for comparison. Default all. */
  readonly kernels?: KernelChoice | undefined;
  /** Prompts may be computed with float16; default what planTakesHalves says. */
  readonly takesHalves?: boolean | undefined;
  /** Weights of a Linear from which on matrix units do few rows too (kernels/problem.ts). Less is for tests. */
  readonly matrixWeights?: number | undefined;
}

export type KernelChoice = 'all' | 'plain';

export class LowerContext {
  readonly features: Features;
  readonly bindingBytes: number;
  readonly mode: Mode;
  readonly kernels: KernelChoice;
  readonly shapes: ReadonlyMap<string, MatvecShape>;
  /** Matrix-vector problems of the plan, by problemKey. */
  readonly problems = new Map<string, TunableProblem>();
  readonly takesHalves: boolean;
  readonly matrixWeights: number;
  /** Bytes of scratch that the program needs. */
  scratchBytes = 0;
  /** Number of the step that is being lowered, as RunReport.stepMs counts. */
  step = 0;
  #scratchNext = 0;
  readonly #lasting = [new Arena(bindingAlignment), new Arena(bindingAlignment)] as const; // by bank
  /** Constants after the plan's own. */
  readonly tables: Float32Array[] = [];
  readonly #tables = new Map<readonly number[], number>();
  readonly #written: ReadonlySet<number>;

  constructor(
    readonly plan: Plan,
    {
      features,
      bindingBytes,
      mode = 'exact',
      kernels = 'all',
      shapes = new Map(),
      takesHalves = planTakesHalves(plan, mode),
      matrixWeights = leastMatrixWeights,
    }: ContextOptions,
  ) {
    this.mode = mode;
    this.shapes = shapes;
    this.kernels = kernels;
    this.features = features;
    this.bindingBytes = bindingBytes;
    this.takesHalves = takesHalves;
    this.matrixWeights = matrixWeights;
    this.#written = writtenInputs(plan.steps);
  }

  /** Another one for the same plan, for kernels that are only to be timed. */
  apart(shapes: ReadonlyMap<string, MatvecShape>): LowerContext {
    const { features, bindingBytes, mode, kernels, takesHalves, matrixWeights } = this;
    return new LowerContext(this.plan, {
      ...{ features, bindingBytes, mode, kernels, takesHalves, matrixWeights },
      shapes,
    });
  }

  /** Starts a dispatch. */
  writer(name: string, threads: number): DispatchWriter {
    return new DispatchWriter(name, Math.min(threads, this.features.maxThreads), this.features, (use) =>
      this.isWritten(use),
    );
  }

  /** Input `index` of a step. */
  input(step: KernelStep, index: number): Operand {
    return this.#operand(step.inputs[index]!, step.node.inputs[index]!);
  }

  output(step: KernelStep, index = 0): Operand {
    return this.#operand(step.outputs[index]!, step.node.outputs[index]!);
  }

  #operand(place: Place, { dtype, shape }: Value): Operand {
    return { use: this.place(place, elementBytes * sizeOf(shape)), dtype, shape };
  }

  /** Memory at a place of the plan. */
  place(place: Place, bytes: number): BufferUse {
    return place.space === 'weight'
      ? { kind: 'weight', weight: place.index, form: 'whole', part: 0, of: 'words' }
      : { kind: 'place', place, bytes };
  }

  /** Memory for this step alone, until its last dispatch. */
  scratch(bytes: number): BufferUse {
    const offset = this.#scratchNext;
    this.#scratchNext += Math.ceil(Math.max(1, bytes) / bindingAlignment) * bindingAlignment;
    this.scratchBytes = Math.max(this.scratchBytes, this.#scratchNext);
    return { kind: 'scratch', offset, bytes };
  }

  /** Memory from this step on, until `release`. */
  lasting(bytes: number, bank: Bank = 0): LastingUse {
    return { kind: 'lasting', bank, offset: this.#lasting[bank].allocate(bytes), bytes };
  }

  release({ bank, offset, bytes }: LastingUse): void {
    this.#lasting[bank].release(offset, bytes);
  }

  get lastingBytes(): readonly [number, number] {
    return [this.#lasting[0].bytes, this.#lasting[1].bytes];
  }

  /** Numbers that kernels read, beside the plan's constants; the same list is uploaded once. */
  table(values: readonly number[]): BufferUse {
    const found = this.#tables.get(values) ?? this.tables.push(Float32Array.from(values)) - 1;
    this.#tables.set(values, found);
    const index = this.plan.constants.length + found;
    return { kind: 'place', place: { space: 'constant', index }, bytes: elementBytes * values.length };
  }

  /** The next step may use all scratch memory. */
  nextStep(steps: number): void {
    this.step += steps;
    this.#scratchNext = 0;
  }

  /** How a product's Weight lies in memory: `transposed` as in LinearProduct. */
  layout(weight: number, form: Exclude<WeightForm, 'whole'>): MatrixLayout {
    return matrixLayout(this.plan.weights[weight]!.format, form, this.bindingBytes);
  }

  /** What a kernel is given of memory, apart from the plan's arena as a whole. */
  bytesOf(use: Exclude<BufferUse, { kind: 'arena' | 'control' }>): number {
    if (use.kind !== 'weight') return use.bytes;
    const { format } = this.plan.weights[use.weight]!;
    if (use.form === 'whole') return elementBytes * sizeOf(format.shape);
    const { parts, rowWords, scales } = this.layout(use.weight, use.form);
    return 4 * parts[use.part]!.rows * (use.of === 'words' ? rowWords : (scales?.groups ?? 0));
  }

  /** True if two places share memory. */
  overlaps(a: Operand, b: Operand): boolean {
    if (a.use.kind !== 'place' || b.use.kind !== 'place') return false;
    const [first, second] = [a.use.place, b.use.place];
    if (first.space === 'arena' && second.space === 'arena')
      return (
        first.offset < second.offset + Math.max(1, b.use.bytes) &&
        second.offset < first.offset + Math.max(1, a.use.bytes)
      );
    return (
      first.space === second.space && 'index' in first && 'index' in second && first.index === second.index
    );
  }

  isWritten(use: BufferUse): boolean {
    if (use.kind === 'weight' || use.kind === 'control') return false;
    if (use.kind !== 'place') return true;
    const { place } = use;
    if (place.space === 'constant') return false;
    return place.space !== 'input' || this.#written.has(place.index);
  }
}

/**
 * True if prompts may be computed with float16: in the mode `fast`, or where no product's Weights have more precision
 * than that. Vectors do not count: they are added or multiplied in float32.
 */
export function planTakesHalves(plan: Plan, mode: Mode): boolean {
  if (mode === 'fast') return true;
  const formats = new Set<WeightFormat>();
  const visit = (step: Step): void => {
    if (step.kind === 'scan') step.steps.forEach(visit);
    if (step.kind !== 'kernel' || step.node.op !== 'Linear') return;
    for (const { weight } of step.node.attrs.products) formats.add(plan.weights[weight]!.format);
  };
  plan.steps.forEach(visit);
  return (
    formats.size > 0 && [...formats].every((format) => format.kind !== 'float' || format.dtype === 'f16')
  );
}

/** Inputs of the plan that some step writes: they were donated. */
function writtenInputs(steps: readonly Step[]): ReadonlySet<number> {
  const found = new Set<number>();
  const note = (place: Place): void => {
    if (place.space === 'input') found.add(place.index);
  };
  const visit = (step: Step): void => {
    if (step.kind === 'kernel') step.outputs.forEach(note);
    else if (step.kind === 'copy') note(step.to);
    else {
      step.steps.forEach(visit);
      for (const { to } of [...step.outputs, ...step.carries] as Pick<CopyStep, 'to'>[]) note(to);
      note(step.taken);
    }
  };
  steps.forEach(visit);
  return found;
}

/** What a selector or a generic kernel gives. */
export type Lowered = readonly Dispatch[];
