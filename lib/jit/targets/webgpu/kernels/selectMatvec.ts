// lib/jit/targets/webgpu/kernels/selectMatvec.ts: a Linear of few rows, with the norm before it and what follows it, ->
// one dispatch of matvec.ts; with the choice of the largest output, a second small one.

import type { Epilogue } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { writeProgram } from '../../../kernels/scalars.js';
import type { Step } from '../../../steps.js';
import type { LastingUse, LowerContext } from '../context.js';
import type { Dispatch } from '../dispatch.js';
import type { Selection } from '../select.js';
import type { DispatchWriter } from '../writer.js';
import { blockSize } from './activations.js';
import { problemKey } from './candidates.js';
import { blockElement } from './dots.js';
import type { Chain, LinearGroup } from './group.js';
import { readLinearGroup } from './group.js';
import type { Held, LargestUses } from './largest.js';
import { holdLargest, largestDispatch, largestUses } from './largest.js';
import { bindWeights, readOperands, readsInputTwice } from './linearParts.js';
import type { MatvecInput, MatvecShape, MatvecSpec } from './matvec.js';
import { matvecThreads, writeMatvec } from './matvec.js';
import type { MatvecPart } from './matvecFinish.js';
import { matvecWorkgroups } from './matvecFinish.js';
import type { Problem } from './problem.js';
import { problemOf } from './problem.js';
import { rotatePair } from './rotate.js';
import type { Side, SideRequest } from './sides.js';
import {
  beginSide,
  keepSide,
  newSide,
  quantizeDispatch,
  releaseSide,
  requestOf,
  sideWanted,
  takeSide,
} from './sides.js';
import type { MatvecProblem } from './tuning.js';
import { matvecShape } from './tuning.js';

/** Takes a group around a Linear of few rows. */
export function selectMatvec(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  const group = readLinearGroup(steps, at);
  const problem = group && problemOf(group, context);
  if (!group || !problem) return undefined;
  const dispatches = new MatvecWriter(group, problem, context, (output) => {
    const place = group.linear.outputs[output]!;
    return sideWanted(steps, at + group.steps, { ...context.output(group.linear, output), place }, context);
  }).write();
  return dispatches && { dispatches, steps: group.steps };
}

class MatvecWriter {
  readonly #shape: MatvecShape;
  readonly #scales: MatvecProblem['scales'];
  readonly #writer: DispatchWriter;
  readonly #sides: { readonly request: SideRequest; readonly side: Side<LastingUse> }[] = [];
  #input: Side | undefined;

  constructor(
    readonly group: LinearGroup,
    readonly problem: Problem,
    readonly context: LowerContext,
    /** What some later product asks of an output. */
    readonly wanted: (output: number) => SideRequest | undefined,
  ) {
    const { rows, inDim, layout } = problem;
    const { epilogues } = group.linear.node.attrs;
    const { scales } = layout;
    const asked: MatvecProblem = {
      ...{ rows, inDim, packing: layout.packing, norm: group.norm?.node.attrs.kind ?? 'none' },
      widths: group.linear.node.outputs.map((output) => output.shape.at(-1)!),
      products: Math.max(...epilogues.map((epilogue) => epilogue.products.length)),
      scales: !scales ? 'none' : scales.groups === 1 ? 'row' : { groupSize: scales.size },
      input: !problem.takesBytes ? 'floats' : problem.limbs === 1 ? 'bytes' : 'limbs',
      ...(problem.takesBytes || context.mode === 'fast' ? { leastColumns: blockSize } : {}),
    };
    const key = problemKey(asked);
    if (!context.problems.has(key))
      context.problems.set(key, {
        problem: asked,
        dispatch: (shape) => this.#tried(new Map([[key, shape]])),
        bytesOf: (use) => context.bytesOf(use),
      });
    this.#shape = context.shapes.get(key) ?? matvecShape(context.features, asked);
    this.#scales = asked.scales;
    const name = `matvec ${layout.packing} ${rows}x${inDim} ${group.norm?.node.attrs.kind ?? ''}`.trim();
    this.#writer = context.writer(name, matvecThreads(this.#shape));
  }

  /** The kernel in another shape, on memory that nothing else has. */
  #tried(shapes: ReadonlyMap<string, MatvecShape>): Dispatch | undefined {
    const { group, problem, context, wanted } = this;
    const dispatches = new MatvecWriter(group, problem, context.apart(shapes), wanted).write();
    return dispatches?.find(({ kernel }) => kernel.name === this.#writer.name);
  }

  /** @returns undefined where the adapter or the epilogue's operands do not allow it */
  write(): Dispatch[] | undefined {
    const { group, problem, context } = this;
    const threads = matvecThreads(this.#shape);
    if (
      threads > context.features.maxThreads ||
      readsInputTwice(context, group.norm ?? group.linear, group.linear)
    )
      return undefined;
    const consumer = group.norm ?? group.linear;
    const side = problem.takesBytes ? takeSide(consumer, context) : undefined;
    const request = requestOf(group, problem, context);
    const quantized =
      problem.takesBytes && !side
        ? quantizeDispatch(context.input(consumer, 0), request, context)
        : undefined;
    const dispatches = this.#dispatches(side ?? quantized?.side);
    if (side) releaseSide(side, context);
    for (const made of this.#sides) {
      if (dispatches) keepSide(made.request, made.side, context);
      else releaseSide(made.side, context);
    }
    return dispatches && [...(quantized ? [quantized.dispatch] : []), ...dispatches];
  }

  #dispatches(side: Side | undefined): Dispatch[] | undefined {
    const { group, problem, context } = this;
    const writer = this.#writer;
    const { layout, rows, inDim } = problem;
    this.#input = side;
    const input = side ? this.#byteInput(side) : this.#floatInput();
    const isLargest = group.chains.length === 1 && group.chains[0]!.largest !== null;
    const largest = isLargest ? largestUses(context, rows, this.#tiles(0)) : null;
    const parts = group.linear.node.attrs.epilogues.map((epilogue, i) => this.#part(epilogue, i, largest));
    if (parts.some((part) => part === undefined)) return undefined;
    const known = parts as MatvecPart[];
    if (known.some((part) => this.#shape.rowsPerGroup % part.products.length !== 0)) return undefined;
    const norm = group.norm?.node.attrs;
    const spec: MatvecSpec = {
      ...{ rows, inDim, packing: layout.packing, rowVectors: layout.rowWords / 4, input, parts: known },
      scales: this.#scales,
      norm: norm ? { kind: norm.kind, epsilon: norm.epsilon } : null,
    };
    writeMatvec(writer.k, context.features, spec, this.#shape);
    if (writer.bound > context.features.maxBuffers) return undefined;
    const count = matvecWorkgroups(known, this.#shape);
    const dispatch = writer.in([count, 1, 1], context.step);
    if (!largest) return [dispatch];
    return [dispatch, largestDispatch(context, largest, rows, context.output(group.chains[0]!.largest!))];
  }

  #byteInput({ bytes, blocks }: Side): MatvecInput {
    const writer = this.#writer;
    return {
      kind: 'bytes',
      limbs: this.problem.limbs,
      bytes: writer.bindRead('xBytes', bytes, 'u32x4'),
      blocks: writer.bindRead(
        'xBlocks',
        blocks,
        blockElement[this.problem.layout.packing as 'int8' | 'int4'],
      ),
    };
  }

  #columns(output: number): number {
    const epilogue = this.group.linear.node.attrs.epilogues[output]!;
    return this.#shape.rows / epilogue.products.length;
  }

  #tiles(output: number): number {
    return Math.ceil(this.group.linear.node.outputs[output]!.shape.at(-1)! / this.#columns(output));
  }

  #floatInput(): MatvecInput {
    const { norm, linear } = this.group;
    const bind = (index: number): ArrayRef =>
      this.#writer.bind(`x${index}`, this.context.input(norm ?? linear, index).use, 'f32x4');
    const { scaled = false, biased = false } = norm?.node.attrs ?? {};
    return {
      kind: 'floats',
      x: bind(0),
      gain: scaled ? bind(1) : null,
      bias: biased ? bind(scaled ? 2 : 1) : null,
    };
  }

  #part(epilogue: Epilogue, index: number, largest: LargestUses | null): MatvecPart | undefined {
    const { linear, chains } = this.group;
    const output = linear.node.outputs[index]!;
    const width = output.shape.at(-1)!;
    const chain = chains[index]!;
    const { products } = linear.node.attrs;
    const operands = readOperands(
      this.#writer,
      this.context,
      linear,
      epilogue,
      output.shape,
      this.problem.rows,
    );
    if (!operands) return undefined;
    const pairs = chain.rotary && {
      layout: chain.rotary.node.attrs.layout,
      headDim: chain.rotary.node.inputs[0]!.shape.at(-1)!,
    };
    const columns = this.#columns(index);
    if (pairs && (width % pairs.headDim !== 0 || columns % 2 !== 0)) return undefined;
    const weights = epilogue.products.map((product) =>
      bindWeights(this.#writer, products[product]!, this.problem.layouts[product]!, 'u32x4'),
    );
    const { k } = this.#writer;
    const held = largest
      ? holdLargest(this.#writer, largest, { rows: this.problem.rows, columns, width })
      : this.#withSide(index, width, columns, this.#destination(index, width));
    const { store, around } = held;
    return {
      ...{ width, products: weights, pairs, ...(around ? { around } : {}) },
      finish: (row, places, values) => {
        const results = places.map((column, i) =>
          writeProgram(k, epilogue.program, [
            ...values[i]!,
            ...operands.map((operand) => operand(row, column)),
          ]),
        );
        const turned = pairs ? this.#rotate(chain, row, places, results, pairs.headDim) : results;
        for (const [i, column] of places.entries()) store(row, column, turned[i]!);
      },
    };
  }

  /** Leaves signed bytes of an output too, where a later product asks for them. */
  #withSide(output: number, width: number, columns: number, store: Held['store']): Held {
    const { group, problem, context } = this;
    const { rotary, append } = group.chains[output]!;
    const fits = !rotary && !append && columns % blockSize === 0 && width % blockSize === 0;
    const request = fits ? this.wanted(output) : undefined;
    if (!request) return { store };
    const side = newSide(request, context, this.#input);
    this.#sides.push({ request, side });
    const { k } = this.#writer;
    const own = k.shared('own', 'f32', problem.rows * columns);
    return {
      store: (row, column, value) => {
        const named = k.let('result', value);
        store(row, column, named);
        k.store(own, row.mul(columns).add(column.rem(columns)), named);
      },
      around: (first) => {
        const place = (row: Expr): Expr => row.mul(width).add(first);
        return beginSide(this.#writer, request, side, own, problem.rows, columns, place);
      },
    };
  }

  #rotate(
    chain: Chain,
    row: Expr,
    places: readonly Expr[],
    values: readonly Expr[],
    headDim: number,
  ): Expr[] {
    const { inverseFrequencies, scale, layout } = chain.rotary!.node.attrs;
    const { use } = this.context.input(chain.rotary!, 1);
    const position = this.#writer.bind('positions', use, 'i32').at(row);
    const inHead = places[0]!.rem(headDim);
    const pair = layout === 'halves' ? inHead : inHead.div(2);
    const pairOf = values as readonly [Expr, Expr];
    return rotatePair(this.#writer.k, pairOf, position, pair, inverseFrequencies, scale);
  }

  /** Where an output goes: its own place, or a slot of the cache. */
  #destination(index: number, width: number): (row: Expr, column: Expr, value: Expr) => void {
    const { linear, chains } = this.group;
    const { k } = this.#writer;
    const { rotary, append } = chains[index]!;
    if (!append) {
      const { use } = rotary ? this.context.output(rotary) : this.context.output(linear, index);
      const array = this.#writer.bind(`y${index}`, use, 'f32');
      return (row, column, value) => k.store(array, row.mul(width).add(column), value);
    }
    const cache = this.context.output(append);
    const [, , capacity, headDim] = cache.shape as [number, number, number, number];
    const array = this.#writer.bind(`cache${index}`, cache.use, 'f32');
    const start = this.#writer.bind('start', this.context.input(append, 2).use, 'i32');
    const count = this.#writer.bind('count', this.context.input(append, 3).use, 'i32');
    return (row, column, value) => {
      const slot = start.at(row).bits('u32').rem(capacity);
      const head = row.mul(width / headDim).add(column.div(headDim));
      const place = head.mul(capacity).add(slot).mul(headDim).add(column.rem(headDim));
      k.if(count.at(row).gt(0), () => k.store(array, place, value));
    };
  }
}
