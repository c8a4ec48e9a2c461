// lib/jit/targets/webgpu/generic/heads.ts: queries, keys and values on their way from a product to attention: read through
// a view, turned by their positions, written to a cache. Any of the three in one dispatch, a thread an element or a pair.

import { sizeOf } from '../../../../tensor.js';
import type { StructuredNode, View } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import { type Expr, literal } from '../../../kernels/expression.js';
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

/** Writes the dispatch of a move. */
export function moveHeads(move: HeadsMove, context: LowerContext): Dispatch[] {
  const { shape, input, output } = move;
  const [batch, heads, query, headDim] = shape as [number, number, number, number];
  const count = sizeOf(shape) / (move.rotary ? 2 : 1);
  if (count === 0 || sizeOf(output.shape) === 0) return [];
  const w = context.writer(nameOf(move), threads);
  const { k } = w;
  const index = w.threadIndex(count);
  const x = bindOperand(w, 'x', input.operand);
  const turn = move.rotary && bindTurn(w, move.rotary, context);
  const target = move.append
    ? cacheTarget(w, move.append, shape, output, context)
    : plainTarget(w, shape, output);
  const width = turn ? headDim / 2 : headDim;
  const [b, head, i, d] = coordinates(k, index, [batch, heads, query, width]) as [Expr, Expr, Expr, Expr];
  const row = k.let('row', through(input.view, [b, head, i]));
  const stride = input.view.strides[3]!;
  const load = (place: Expr): Expr => x.at(row.add(place.mul(stride)));
  target.if([b, head, i], (to) => {
    if (!turn) {
      k.store(target.array, to.add(d), load(d));
      return;
    }
    const [first, second] = turn.places(d);
    const turned = turn.by(b.mul(query).add(i), d);
    const [left, right] = turned([k.let('left', load(first)), k.let('right', load(second))]);
    k.store(target.array, to.add(first), left);
    k.store(target.array, to.add(second), right);
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

/** How a pair is turned. */
interface Turn {
  /** Places of a pair's features in the head. */
  readonly places: (pair: Expr) => [Expr, Expr];
  /** Turns pairs by their position's angle, `at` its place among the positions. */
  readonly by: (at: Expr, pair: Expr) => ReturnType<typeof turnedBy>;
}

function bindTurn(w: DispatchWriter, step: RotaryStep, context: LowerContext): Turn {
  const { k } = w;
  const { inverseFrequencies, scale, layout } = step.node.attrs;
  const half = inverseFrequencies.length;
  const positions = bindOperand(w, 'positions', context.input(step, 1));
  const table = w.bind('frequencies', context.table(inverseFrequencies), 'f32');
  return {
    places: (pair) => {
      const first = k.let('first', layout === 'halves' ? pair : pair.mul(2));
      return [first, k.let('second', first.add(layout === 'halves' ? half : 1))];
    },
    by: (at, pair) => {
      const angle = k.let('angle', positions.at(at).to('f32').mul(table.at(pair)));
      return turnedBy(k, angle, scale);
    },
  };
}

/** Where rows of a head are written. */
interface RowTarget {
  readonly array: ArrayRef;
  /** Runs `write` for a row [batch, head, query] that is kept, with its first element. */
  readonly if: (row: readonly [Expr, Expr, Expr], write: (first: Expr) => void) => void;
}

function plainTarget(w: DispatchWriter, shape: readonly number[], output: Operand): RowTarget {
  const array = bindOperand(w, 'y', output);
  return { array, if: (row, write) => write(w.k.let('to', through(plainView(shape), row))) };
}

function cacheTarget(
  w: DispatchWriter,
  step: KernelStep,
  [, , query]: readonly number[],
  cache: Operand,
  context: LowerContext,
): RowTarget {
  const { k } = w;
  const [, kvHeads, capacity, headDim] = cache.shape as [number, number, number, number];
  const start = bindOperand(w, 'start', context.input(step, 2));
  const count = bindOperand(w, 'count', context.input(step, 3));
  const array = w.bind('cache', cache.use, storedType(cache.dtype));
  return {
    array,
    if: ([b, head, i], write) => {
      const given = k.let('given', count.at(b).min(query!));
      // What a later one of the same call would write over is not written: threads have no order.
      k.if(i.lt(given).and(i.add(capacity).ge(given)), () => {
        // As u32 a negative start, which nobody should give, is a slot too: nothing else checks it.
        const slot = k.let('slot', start.at(b).add(i).bits('u32').rem(capacity).bits('i32')); // biome-ignore format: short
        write(k.let('to', b.mul(kvHeads).add(head).mul(capacity).add(slot).mul(headDim)));
      });
    },
  };
}
