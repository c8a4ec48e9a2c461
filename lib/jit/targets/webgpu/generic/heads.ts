// lib/jit/targets/webgpu/generic/heads.ts: queries, keys and values on their way from a product to attention: read through
// a view, turned by their positions, written to a cache. Any of the three in one dispatch, a thread an element or a pair.

import { sizeOf } from '../../../../tensor.js';
import type { StructuredNode, View } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import { type Expr, literal, splat, type Type } from '../../../kernels/expression.js';
import { storedType } from '../../../kernels/scalars.js';
import { plainView } from '../../../passes/views.js';
import type { KernelStep } from '../../../steps.js';
import type { LowerContext, Operand } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import { turnedBy } from '../kernels/rotate.js';
import type { DispatchWriter } from '../writer.js';
import type { ViewedOperand } from './elementwise.js';
import { bindOperand, coordinates } from './indexing.js';

const threads = 64;

type RotaryStep = KernelStep & { readonly node: StructuredNode<'Rotary'> };

/** What is done to a value of heads. */
export interface HeadsMove {
  /** [batch, heads, query, headDim], of what is read through the view. */
  readonly shape: readonly number[];
  readonly input: ViewedOperand;
  readonly rotary: RotaryStep | null;
  readonly append: KernelStep | null;
  readonly output: Operand;
}

export function rotary(step: RotaryStep, context: LowerContext): Dispatch[] {
  const input = plainly(context.input(step, 0));
  return moveHeads({ ...input, rotary: step, append: null, output: context.output(step) }, context);
}

export function cacheAppend(step: KernelStep, context: LowerContext): Dispatch[] {
  const update = plainly(context.input(step, 1));
  return moveHeads({ ...update, rotary: null, append: step, output: context.output(step) }, context);
}

function plainly(operand: Operand): Pick<HeadsMove, 'input' | 'shape'> {
  const { shape } = operand;
  return { shape, input: { operand, view: plainView(shape) } };
}

/** What a thread moves of each of some neighbouring heads: `lanes` elements, or as many pairs. */
interface HeadsCut {
  readonly lanes: 1 | 4;
  readonly heads: number;
}

/** Heads of a thread at most: they share a position's sine and cosine. */
const mostHeads = 8;
/** Threads that a large GPU wants. */
const wantedThreads = 2 ** 15;

function cutOf({ shape, input, rotary: turned, append, output }: HeadsMove): HeadsCut {
  const [batch, heads, query, headDim] = shape as [number, number, number, number];
  const { strides, offset } = input.view;
  const width = turned ? headDim / 2 : headDim;
  const isWhole = [width, offset, ...strides.slice(0, 3)].every((count) => count % 4 === 0);
  const isFloat = [input.operand, output].every(({ dtype }) => storedType(dtype) === 'f32');
  const isPlain = !turned || turned.node.attrs.layout === 'halves';
  if (strides[3] !== 1 || !isWhole || !isFloat || !isPlain || (append && output.shape[3] !== headDim))
    return { lanes: 1, heads: 1 };
  const vectors = (batch * heads * query * width) / 4;
  const divisors = Array.from({ length: mostHeads }, (_, i) => i + 1).filter((n) => heads % n === 0);
  return { lanes: 4, heads: divisors.findLast((n) => vectors / n >= wantedThreads) ?? 1 };
}

/** Writes the dispatch of a move. */
export function moveHeads(move: HeadsMove, context: LowerContext): Dispatch[] {
  const { shape, input, output } = move;
  const [batch, heads, query, headDim] = shape as [number, number, number, number];
  const cut = cutOf(move);
  const width = (move.rotary ? headDim / 2 : headDim) / cut.lanes;
  const count = (batch * heads * query * width) / cut.heads;
  if (count === 0 || sizeOf(output.shape) === 0) return [];
  const w = context.writer(nameOf(move), threads);
  const { k } = w;
  const element = cut.lanes === 4 ? 'f32x4' : storedType(input.operand.dtype);
  const index = w.threadIndex(count);
  const x = w.bind('x', input.operand.use, element);
  const turn = move.rotary && bindTurn(w, move.rotary, cut.lanes, context);
  const target = move.append
    ? cacheTarget(w, move.append, query, output, element, context)
    : plainTarget(w, shape, output, element);
  const sizes = [batch, heads / cut.heads, query, width];
  const [b, group, i, place] = coordinates(k, index, sizes) as [Expr, Expr, Expr, Expr];
  const own = Array.from({ length: cut.heads }, (_, n) => (cut.heads === 1 ? group : k.let('head', group.mul(cut.heads).add(n)))); // biome-ignore format: short
  const d = cut.lanes === 1 ? place : place.mul(cut.lanes);
  const at = (row: Expr, inRow: Expr, stride: number): Expr => {
    const sum = row.add(stride === 1 ? inRow : inRow.mul(stride));
    return cut.lanes === 1 ? sum : sum.div(cut.lanes);
  };
  target.if(b, i, (rowOf) => {
    const places = turn?.places(d) ?? [d];
    // All is read before anything is stored: the compiler takes no read past a store that might be to the same place.
    const read = own.map((head) => {
      const row = k.let('row', through(input.view, [b, head, i]));
      return places.map((each) => k.let('read', x.at(at(row, each, input.view.strides[3]!))));
    });
    const turned = turn?.by(b.mul(query).add(i), place);
    for (const [n, values] of read.entries()) {
      const to = k.let('to', rowOf(own[n]!));
      const moved = turned ? turned(values as [Expr, Expr]) : values;
      for (const [j, value] of moved.entries()) k.store(target.array, at(to, places[j]!, 1), value);
    }
  });
  return [w.forThreads(count, context.step)];
}

function nameOf({ rotary: turned, append }: HeadsMove): string {
  return [...(turned ? ['rotary'] : []), ...(append ? ['cacheAppend'] : [])].join(' ');
}

/** The element at places along the first axes of a view. */
function through({ offset, strides }: View, places: readonly Expr[]): Expr {
  const terms = places.flatMap((place, axis) => (strides[axis] === 0 ? [] : [place.mul(strides[axis]!)]));
  return [...terms, literal('i32', offset)].reduce((sum, term) => sum.add(term));
}

/** How pairs are turned: one, or four neighbouring ones. */
interface Turn {
  /** Places of a pair's features in the head. */
  readonly places: (pair: Expr) => [Expr, Expr];
  /** Turns pairs by their position's angle, `at` its place among the positions; `place` as a thread counts them. */
  readonly by: (at: Expr, place: Expr) => ReturnType<typeof turnedBy>;
}

function bindTurn(w: DispatchWriter, step: RotaryStep, lanes: 1 | 4, context: LowerContext): Turn {
  const { k } = w;
  const { inverseFrequencies, scale, layout } = step.node.attrs;
  const half = inverseFrequencies.length;
  const positions = bindOperand(w, 'positions', context.input(step, 1));
  const table = w.bind('frequencies', context.table(inverseFrequencies), lanes === 4 ? 'f32x4' : 'f32');
  return {
    places: (pair) => {
      const first = k.let('first', layout === 'halves' ? pair : pair.mul(2));
      return [first, k.let('second', first.add(layout === 'halves' ? half : 1))];
    },
    by: (at, place) => {
      const position = positions.at(at).to('f32');
      const frequency = table.at(place);
      const angle = k.let('angle', (lanes === 4 ? splat(position, 4) : position).mul(frequency));
      return turnedBy(k, angle, scale);
    },
  };
}

/** Where rows of a head are written. */
interface RowTarget {
  readonly array: ArrayRef;
  /** Runs `write` if a query of a sample is kept, with the first element of each head's row of it. */
  readonly if: (b: Expr, i: Expr, write: (rowOf: (head: Expr) => Expr) => void) => void;
}

function plainTarget(w: DispatchWriter, shape: readonly number[], output: Operand, element: Type): RowTarget {
  return {
    array: w.bind('y', output.use, element),
    if: (b, i, write) => write((head) => through(plainView(shape), [b, head, i])),
  };
}

function cacheTarget(
  w: DispatchWriter,
  step: KernelStep,
  query: number,
  cache: Operand,
  element: Type,
  context: LowerContext,
): RowTarget {
  const { k } = w;
  const [, kvHeads, capacity, headDim] = cache.shape as [number, number, number, number];
  const start = bindOperand(w, 'start', context.input(step, 2));
  const count = bindOperand(w, 'count', context.input(step, 3));
  return {
    array: w.bind('cache', cache.use, element),
    if: (b, i, write) => {
      const given = k.let('given', count.at(b).min(query));
      // What a later one of the same call would write over is not written: threads have no order.
      k.if(i.lt(given).and(i.add(capacity).ge(given)), () => {
        // As u32 a negative start, which nobody should give, is a slot too: nothing else checks it.
        const slot = k.let('slot', start.at(b).add(i).bits('u32').rem(capacity).bits('i32')); // biome-ignore format: short
        write((head) => b.mul(kvHeads).add(head).mul(capacity).add(slot).mul(headDim));
      });
    },
  };
}
