// lib/jit/targets/webgpu/kernels/selectMatvec.ts: a Linear of few rows, with the norm before it and what follows it, ->
// one dispatch of matvec.ts; with the choice of the largest output, a second small one.

import { sizeOf } from '../../../../tensor.js';
import type { Epilogue } from '../../../graph.js';
import type { ArrayRef } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import { writeProgram } from '../../../kernels/scalars.js';
import type { Step } from '../../../plan.js';
import type { LowerContext } from '../context.js';
import type { BufferUse, Dispatch } from '../dispatch.js';
import type { MatrixLayout } from '../layout.js';
import type { Selection } from '../select.js';
import type { DispatchWriter } from '../writer.js';
import { perVector } from './dots.js';
import type { Chain, LinearGroup } from './group.js';
import { readLinearGroup } from './group.js';
import { bindWeights, commonLayouts, readOperands, readsInputTwice } from './linearParts.js';
import type { MatvecInput, MatvecPart, MatvecShape, MatvecSpec } from './matvec.js';
import { columnsOf, matvecThreads, matvecWorkgroups, writeMatvec } from './matvec.js';
import { rotatePair } from './rotate.js';
import { matvecShape } from './tuning.js';

/** More rows than this are a matrix-matrix product. */
export const maxRows = 8;

/** Takes a group around a Linear of few rows. */
export function selectMatvec(
  steps: readonly Step[],
  at: number,
  context: LowerContext,
): Selection | undefined {
  const group = readLinearGroup(steps, at);
  const problem = group && problemOf(group, context);
  if (!group || !problem) return undefined;
  const dispatches = new MatvecWriter(group, problem, context).write();
  return dispatches && { dispatches, steps: group.steps };
}

/** What all products of a group share. */
interface Problem {
  readonly rows: number;
  readonly inDim: number;
  readonly layout: MatrixLayout;
  readonly layouts: readonly MatrixLayout[]; // one a product
}

function problemOf({ norm, linear, chains }: LinearGroup, context: LowerContext): Problem | undefined {
  const { products } = linear.node.attrs;
  const x = (norm ?? linear).node.inputs[0]!;
  const inDim = linear.node.inputs[0]!.shape.at(-1)!;
  const rows = sizeOf(x.shape) / Math.max(1, inDim);
  const layouts = commonLayouts(products, context);
  if (!layouts) return undefined;
  const [layout] = layouts;
  const vector = perVector(layout.packing);
  const isWhole = inDim > 0 && inDim % vector === 0 && (!layout.scales || layout.scales.size % vector === 0);
  const fitsNorm = !norm || norm.node.inputs[0]!.shape.at(-1) === inDim;
  const fitsPairs = chains.every(({ rotary }) => !rotary || rotary.node.inputs[0]!.shape[2] === 1);
  const few = rows >= 1 && rows <= maxRows;
  return few && isWhole && fitsNorm && fitsPairs ? { rows, inDim, layout, layouts } : undefined;
}

class MatvecWriter {
  readonly #shape: MatvecShape;
  readonly #writer: DispatchWriter;

  constructor(
    readonly group: LinearGroup,
    readonly problem: Problem,
    readonly context: LowerContext,
  ) {
    const { rows, inDim, layout } = problem;
    const { epilogues } = group.linear.node.attrs;
    this.#shape = matvecShape(context.features, {
      ...{ rows, inDim, packing: layout.packing },
      widths: group.linear.node.outputs.map((output) => output.shape.at(-1)!),
      products: Math.max(...epilogues.map((epilogue) => epilogue.products.length)),
    });
    const name = `matvec ${layout.packing} ${rows}x${inDim} ${group.norm?.node.attrs.kind ?? ''}`.trim();
    this.#writer = context.writer(name, matvecThreads(context.features, this.#shape));
  }

  /** @returns undefined where the adapter or the epilogue's operands do not allow it */
  write(): Dispatch[] | undefined {
    const { group, problem, context } = this;
    const writer = this.#writer;
    const threads = matvecThreads(context.features, this.#shape);
    if (
      threads > context.features.maxThreads ||
      readsInputTwice(context, group.norm ?? group.linear, group.linear)
    )
      return undefined;
    const { layout, rows, inDim } = problem;
    const input = this.#input();
    const largest = group.chains.find((chain) => chain.largest) ? this.#largestUses() : null;
    const parts = group.linear.node.attrs.epilogues.map((epilogue, i) => this.#part(epilogue, i, largest));
    if (parts.some((part) => part === undefined)) return undefined;
    const known = parts as MatvecPart[];
    const isSplit = known.every((part) => this.#shape.rowsPerGroup % part.products.length === 0);
    if (!isSplit || writer.bound > context.features.maxBuffers) return undefined;
    const norm = group.norm?.node.attrs;
    const spec: MatvecSpec = {
      ...{ rows, inDim, packing: layout.packing, rowVectors: layout.rowWords / 4, input, parts: known },
      scales: !layout.scales
        ? 'none'
        : layout.scales.groups === 1
          ? 'row'
          : { groupSize: layout.scales.size },
      norm: norm ? { kind: norm.kind, epsilon: norm.epsilon } : null,
    };
    writeMatvec(writer.k, context.features, spec, this.#shape);
    const count = matvecWorkgroups(known, this.#shape);
    const dispatch = writer.in([count, 1, 1], context.step);
    return largest ? [dispatch, this.#largestDispatch(largest)] : [dispatch];
  }

  #input(): MatvecInput {
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
    const columns = columnsOf({ products: epilogue.products.map(() => null as never) }, this.#shape);
    if (pairs && (width % pairs.headDim !== 0 || columns % 2 !== 0)) return undefined;
    const weights = epilogue.products.map((product) =>
      bindWeights(this.#writer, products[product]!, this.problem.layouts[product]!, 'u32x4'),
    );
    const { k } = this.#writer;
    const held = chain.largest && largest ? this.#holdLargest(largest, width) : null;
    const store = held?.store ?? this.#destination(index, width);
    return {
      ...{ width, products: weights, pairs, ...(held ? { afterwards: held.afterwards } : {}) },
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

  #largestUses(): LargestUses {
    const { rows } = this.problem;
    const width = this.group.linear.node.outputs[0]!.shape.at(-1)!;
    const products = this.group.linear.node.attrs.epilogues[0]!.products.length;
    const tiles = Math.ceil(width / (this.#shape.rows / products));
    return {
      tiles,
      values: this.context.scratch(4 * rows * tiles),
      indices: this.context.scratch(4 * rows * tiles),
    };
  }

  /** The workgroup keeps its outputs to itself and leaves the largest of each row. */
  #holdLargest(
    { tiles, values, indices }: LargestUses,
    width: number,
  ): {
    store: (row: Expr, column: Expr, value: Expr) => void;
    afterwards: (first: Expr, columns: number) => void;
  } {
    const { k } = this.#writer;
    const { rows } = this.problem;
    const columns = this.#shape.rows / this.group.linear.node.attrs.epilogues[0]!.products.length;
    const own = k.shared('own', 'f32', rows * columns);
    const [best, places] = [
      this.#writer.bind('best', values, 'f32'),
      this.#writer.bind('places', indices, 'u32'),
    ];
    return {
      store: (row, column, value) => k.store(own, row.mul(columns).add(column.rem(columns)), value),
      afterwards: (first) => {
        k.barrier();
        k.if(k.localIndex.lt(rows), () => {
          const row = k.let('ownRow', k.localIndex.mul(columns));
          const value = k.variable('best', own.at(row));
          const place = k.variable('bestPlace', literal('u32', 0));
          k.for('next', 1, literal('u32', width).sub(first).min(columns), (next) => {
            k.if(own.at(row.add(next)).gt(value.value), () => {
              k.set(value, own.at(row.add(next)));
              k.set(place, next);
            });
          });
          const at = k.let('tileAt', k.localIndex.mul(tiles).add(first.div(columns)));
          k.store(best, at, value.value);
          k.store(places, at, first.add(place.value));
        });
      },
    };
  }

  /** One workgroup a row looks through what the tiles left. */
  #largestDispatch({ tiles, values, indices }: LargestUses): Dispatch {
    const { context, group, problem } = this;
    const { largest } = group.chains[0]!;
    const writer = context.writer('largest of tiles', 256);
    const { k } = writer;
    const [best, places] = [writer.bind('best', values, 'f32'), writer.bind('places', indices, 'u32')];
    const result = writer.bind('result', context.output(largest!).use, 'i32');
    const row = k.let('row', k.builtin('workgroupX'));
    const value = k.variable('value', literal('f32', Number.NEGATIVE_INFINITY));
    const place = k.variable('place', literal('u32', 0xffffffff));
    k.for(
      'at',
      row.mul(tiles).add(k.localIndex),
      row.add(1).mul(tiles),
      (at) => {
        // Tiles come in order: of equal ones the first stays.
        k.if(best.at(at).gt(value.value), () => {
          k.set(value, best.at(at));
          k.set(place, places.at(at));
        });
      },
      k.threads,
    );
    const [most] = reduceWorkgroup(k, context.features, 'max', value.value) as [Expr];
    const mine = value.value.eq(most).select(place.value, 0xffffffff);
    const [first] = reduceWorkgroup(k, context.features, 'min', mine) as [Expr];
    k.if(k.localIndex.eq(0), () => {
      k.store(result, row, first.eq(0xffffffff).select(literal('u32', 0), first).bits('i32'));
    });
    return writer.in([problem.rows, 1, 1], context.step);
  }
}

/** What a workgroup leaves of its tile: one value and place a row. */
interface LargestUses {
  readonly tiles: number;
  readonly values: BufferUse;
  readonly indices: BufferUse;
}
