// lib/jit/targets/webgpu/kernels/sides.ts: a value's signed bytes beside its float32: made by the kernel that makes the
// value, for the product that will read it, with that product's norm already in mind.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import type { KernelStep, Place, Step } from '../../../steps.js';
import type { LastingUse, LowerContext, Operand } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { DispatchWriter } from '../writer.js';
import type { ByteForm } from './activations.js';
import {
  blockSize,
  quantizedBytes,
  storeQuantized,
  storeQuantizedTogether,
  threadsOfBlock,
} from './activations.js';
import type { LinearGroup } from './group.js';
import { readLinearGroup, samePlace } from './group.js';
import { hasKnownSubgroups, threadInOrder } from './lanes.js';
import type { Problem } from './problem.js';
import { problemOf } from './problem.js';

/** Where a value's bytes and blocks lie. */
export interface Side<Use extends BufferUse = BufferUse> {
  readonly bytes: Use;
  readonly blocks: Use;
}

/** What a product asks of whoever makes its input. */
export interface SideRequest {
  readonly consumer: KernelStep;
  readonly form: ByteForm;
  /** What each element is multiplied by before it is rounded; null: nothing. */
  readonly gain: Operand | null;
  readonly elements: number;
  readonly width: number;
}

const made = new WeakMap<LowerContext, Map<KernelStep, Side<LastingUse>>>();

/** What a group asks of its input. */
export function requestOf(group: LinearGroup, problem: Problem, context: LowerContext): SideRequest {
  const consumer: KernelStep = group.norm ?? group.linear;
  return {
    consumer,
    form: { order: problem.layout.packing === 'int4' ? 'nibbles' : 'plain', limbs: problem.limbs },
    gain: group.norm?.node.attrs.scaled ? context.input(group.norm, 1) : null,
    elements: problem.rows * problem.inDim,
    width: problem.inDim,
  };
}

/**
 * Looks for a product that reads a value in signed bytes.
 * @param from the first step after the one that writes the value
 */
export function sideWanted(
  steps: readonly Step[],
  from: number,
  value: Operand & { readonly place: Place },
  context: LowerContext,
): SideRequest | undefined {
  for (let at = from; at < steps.length; at++) {
    const step = steps[at]!;
    if (step.kind === 'scan') return undefined;
    if (step.kind === 'copy') {
      if (context.overlaps(value, { ...value, use: context.place(step.to, step.bytes) })) return undefined;
      continue;
    }
    const group = readLinearGroup(steps, at);
    const input = group && (group.norm ?? group.linear).inputs[0]!;
    if (group && input && samePlace(input, value.place)) {
      const problem = problemOf(group, context);
      if (problem?.takesBytes) return requestOf(group, problem, context);
    }
    if (step.outputs.some((_, i) => context.overlaps(value, context.output(step, i)))) return undefined;
  }
  return undefined;
}

/** Buffers that beginSide binds at most: bytes, blocks, gains. */
export const sideBuffers = 3;

/**
 * Memory for a side; `keep` it when its dispatch is sure to be written, else give it back.
 * @param input the side that its dispatch reads, which should lie in another buffer
 */
export function newSide(
  { elements, form }: SideRequest,
  context: LowerContext,
  input?: Side,
): Side<LastingUse> {
  const { bytes, blocks } = quantizedBytes(elements, form.limbs);
  const bank = input?.bytes.kind === 'lasting' && input.bytes.bank === 0 ? 1 : 0;
  return { bytes: context.lasting(bytes, bank), blocks: context.lasting(blocks, bank) };
}

export function keepSide({ consumer }: SideRequest, side: Side<LastingUse>, context: LowerContext): void {
  const sides = made.get(context) ?? new Map<KernelStep, Side<LastingUse>>();
  made.set(context, sides.set(consumer, side));
}

export function releaseSide({ bytes, blocks }: Side<LastingUse>, context: LowerContext): void {
  context.release(bytes);
  context.release(blocks);
}

/** The side that was made for a product, which is now its to release. */
export function takeSide(consumer: KernelStep, context: LowerContext): Side<LastingUse> | undefined {
  const side = made.get(context)?.get(consumer);
  made.get(context)?.delete(consumer);
  return side;
}

/**
 * Binds what a side needs, and reads what its values are multiplied by while they are not there yet.
 * @param own values [rows, columns] of the workgroup in shared memory, columns a multiple of 16
 * @param place element of the whole value that a row's first one is
 * @returns what writes the bytes and blocks of `own` once it is stored; every thread has to arrive
 */
export function beginSide(
  writer: DispatchWriter,
  { form, gain, width }: SideRequest,
  side: Side,
  own: ArrayRef,
  rows: number,
  columns: number,
  place: (row: Expr) => Expr,
): () => void {
  const { k } = writer;
  const arrays = {
    bytes: writer.bind('bytes', side.bytes, 'u32'),
    blocks: writer.bind('blocks', side.blocks, 'f32x2'),
  };
  const gains = gain && writer.bind('gains', gain.use, 'f32');
  const words = (rows * columns) / 4;
  const isTogether = hasKnownSubgroups(writer.features) && writer.features.minSubgroupSize >= threadsOfBlock;
  const thread = isTogether ? k.let('thread', threadInOrder(k)) : k.localIndex;
  /** Runs for each word: its row, and the first of the numbers that its thread takes. */
  const eachWord = (body: (word: Expr, row: Expr, first: Expr, inValue: Expr) => void): void =>
    eachThread(k, thread, words, (index) => {
      const row = k.let('sideRow', index.div(columns / 4));
      const inRow = k.let('inRow', index.rem(columns / 4));
      const begin = k.let('sideBegin', place(row));
      const first = k.let('first', isTogether ? inRow.mul(4) : inRow.div(blockSize / 4).mul(blockSize));
      const inValue = k.let('inValue', begin.rem(width).add(first));
      // A tile may stick out of the value at its end, by whole blocks.
      k.if(inValue.lt(width), () => body(begin.div(4).add(inRow), row, first, inValue));
    });
  const four = [0, 1, 2, 3];
  const early = gains && isTogether && words <= k.threads ? four.map(() => k.variable('gain', literal('f32', 0))) : null; // biome-ignore format: short
  if (early)
    eachWord((_word, _row, _first, inValue) => {
      for (const i of four) k.set(early[i]!, gains!.at(inValue.add(i)));
    });
  return () => {
    k.barrier();
    eachWord((word, row, first, inValue) => {
      const from = k.let('from', row.mul(columns).add(first));
      const value = (i: Expr | number): Expr => own.at(from.add(i));
      const gainOf = gains ? (i: Expr | number): Expr => gains.at(inValue.add(i)) : null;
      if (!isTogether) storeQuantized(k, arrays, form, word, value, gainOf);
      else {
        const values = four.map((i) => k.let('value', value(i)));
        const ready = early?.map((gain) => gain.value) ?? (gainOf && four.map(gainOf));
        storeQuantizedTogether(k, arrays, form, word, values, ready);
      }
    });
  };
}

/** Numbers of a value that a workgroup makes, an element a thread: parts of a row, or whole ones. */
export interface HeldElements {
  /** This thread's element of the value. */
  readonly index: Expr;
  /** Holds what the thread made of it. */
  readonly hold: (result: Expr) => void;
  /** Leaves the bytes; every thread has to arrive. */
  readonly leave: () => void;
}

/**
 * For a kernel of an element a thread whose result a later product reads as bytes, in place of threadIndex.
 * @param name of the shared memory
 * @returns undefined where workgroups would have other parts of rows than whole blocks
 */
export function holdElements(
  writer: DispatchWriter,
  name: string,
  request: SideRequest,
  context: LowerContext,
): HeldElements | undefined {
  const { k } = writer;
  const { elements, width } = request;
  const columns = Math.min(width, k.threads);
  const isWhole = elements % k.threads === 0 && k.threads % columns === 0 && width % columns === 0;
  if (!isWhole || columns % blockSize !== 0) return undefined;
  const own = k.shared(name, 'f32', k.threads);
  // No thread may have left: neighbours make bytes together.
  const first = k.let('first', writer.workgroupIndex(elements / k.threads).mul(k.threads));
  return {
    index: k.let('index', first.add(k.localIndex)),
    hold: (result) => k.store(own, k.localIndex, result),
    leave: () => {
      const side = newSide(request, context);
      const place = (row: Expr): Expr => first.add(row.mul(columns));
      beginSide(writer, request, side, own, k.threads / columns, columns, place)();
      keepSide(request, side, context);
    },
  };
}

/** Runs `body` for 0 to count - 1 over the workgroup's threads. */
function eachThread(k: KernelBuilder, thread: Expr, count: number, body: (index: Expr) => void): void {
  if (count <= k.threads) k.if(thread.lt(count), () => body(thread));
  else k.for('index', thread, count, body, k.threads);
}

/** Makes bytes of a value that nobody left any of. */
export function quantizeDispatch(
  x: Operand,
  request: SideRequest,
  context: LowerContext,
): { readonly dispatch: Dispatch; readonly side: Side } {
  const { bytes, blocks } = quantizedBytes(request.elements, request.form.limbs);
  const side = { bytes: context.scratch(bytes), blocks: context.scratch(blocks) };
  const writer = context.writer('quantize', 64);
  const { k } = writer;
  const count = request.elements / 4;
  const word = writer.threadIndex(count);
  const array = writer.bind('x', x.use, 'f32');
  const gains = request.gain && writer.bind('gains', request.gain.use, 'f32');
  const arrays = {
    bytes: writer.bind('bytes', side.bytes, 'u32'),
    blocks: writer.bind('blocks', side.blocks, 'f32x2'),
  };
  const begin = k.let('begin', word.div(blockSize / 4).mul(blockSize));
  const gainAt = k.let('gainAt', begin.rem(request.width));
  const gain = gains ? (i: Expr) => gains.at(gainAt.add(i)) : null;
  storeQuantized(k, arrays, request.form, word, (i) => array.at(begin.add(i)), gain);
  return { dispatch: writer.forThreads(count, context.step), side };
}
