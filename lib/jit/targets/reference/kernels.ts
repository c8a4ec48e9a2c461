// lib/jit/targets/reference/kernels.ts: each structured operation of graph.ts on plain arrays, as its comment there
// says. Sums are kept in double precision and rounded once.

import type { Shape } from '../../../tensor.js';
import { sizeOf } from '../../../tensor.js';
import type { ElementType, ElementValues, ReduceKind, StructuredOp, View } from '../../graph.js';
import { broadcastView, stridesOf } from '../../graph.js';
import { programFunction } from '../../scalar.js';
import { attentionKernels } from './attention.js';
import { productKernels } from './products.js';
import type { Kernel, Tensor } from './tensors.js';
import { around, forEachIndex, rowOf, rowsOf } from './tensors.js';

/** Copies elements of x, read through a view, to the output. */
function copyThrough(view: View, x: Tensor, output: Tensor): void {
  forEachIndex(output.shape, [view], (at, [element]) => {
    output.values[at] = x.values[element!]!;
  });
}

const reductions: Record<ReduceKind, (x: ElementValues, first: number, step: number, n: number) => number> = {
  Sum: (x, first, step, n) => fold(x, first, step, n, 0, (sum, value) => sum + value),
  Prod: (x, first, step, n) => fold(x, first, step, n, 1, (product, value) => product * value),
  Max: (x, first, step, n) => fold(x, first, step, n, lowest(x), Math.max),
  Min: (x, first, step, n) =>
    fold(x, first, step, n, -lowest(x) - (x instanceof Int32Array ? 1 : 0), Math.min),
  ArgMax: (x, first, step, n) => best(x, first, step, n, (value, held) => value > held),
  ArgMin: (x, first, step, n) => best(x, first, step, n, (value, held) => value < held),
};

function lowest(x: ElementValues): number {
  return x instanceof Int32Array ? -(2 ** 31) : Number.NEGATIVE_INFINITY;
}

function fold(
  x: ElementValues,
  first: number,
  step: number,
  n: number,
  start: number,
  combine: (held: number, value: number) => number,
): number {
  let held = start;
  for (let i = 0; i < n; i++) held = combine(held, x[first + i * step]!);
  return held;
}

function best(
  x: ElementValues,
  first: number,
  step: number,
  n: number,
  better: (value: number, held: number) => boolean,
): number {
  let at = 0;
  for (let i = 1; i < n; i++) if (better(x[first + i * step]!, x[first + at * step]!)) at = i;
  return at;
}

/** Offset in elements of an index tuple into the leading axes of `shape`; undefined if one is outside. */
function leadingOffset(indices: ElementValues, at: number, depth: number, shape: Shape): number | undefined {
  const strides = stridesOf(shape);
  let offset = 0;
  for (let i = 0; i < depth; i++) {
    const index = indices[at * depth + i]!;
    if (index < 0 || index >= shape[i]!) return undefined;
    offset += index * strides[i]!;
  }
  return offset;
}

const outside = (dtype: ElementType): number => (dtype === 'f32' ? Number.NaN : 0);

export const kernels: { readonly [Name in Exclude<StructuredOp, 'Scan'>]: Kernel<Name> } = {
  ...attentionKernels,
  ...productKernels,
  Constant: ({ values }, _, [output]) => output!.values.set(values),
  Reshape: (_, [x], [output]) => output!.values.set(x!.values),
  Broadcast: (_, [x], [output]) => copyThrough(broadcastView(x!.shape, output!.shape), x!, output!),
  Transpose: ({ perm }, [x], [output]) => {
    const strides = stridesOf(x!.shape);
    copyThrough({ offset: 0, strides: perm.map((axis) => strides[axis]!) }, x!, output!);
  },
  Slice: ({ begin, strides: steps }, [x], [output]) => {
    const strides = stridesOf(x!.shape);
    const offset = begin.reduce((sum, first, axis) => sum + first * strides[axis]!, 0);
    copyThrough({ offset, strides: steps.map((step, axis) => step * strides[axis]!) }, x!, output!);
  },
  Elementwise: ({ views, program }, inputs, [output]) => {
    const run = programFunction(program);
    forEachIndex(output!.shape, views, (at, elements) => {
      output!.values[at] = run(elements.map((element, which) => inputs[which]!.values[element]!));
    });
  },
  Concat: ({ axis }, inputs, [output]) => {
    const [outer, , inner] = around(output!.shape, axis);
    const row = output!.shape[axis]! * inner;
    let begin = 0;
    for (const input of inputs) {
      const length = input.shape[axis]! * inner;
      for (let i = 0; i < outer; i++)
        output!.values.set(
          input.values.subarray(i * length, (i + 1) * length) as Float32Array,
          i * row + begin,
        );
      begin += length;
    }
  },
  Reduce: ({ kind, first, last }, [x], [output]) => {
    const [outer, n, inner] = around(x!.shape, first, last);
    for (let i = 0; i < outer; i++) {
      for (let j = 0; j < inner; j++)
        output!.values[i * inner + j] = reductions[kind](x!.values, i * n * inner + j, inner, n);
    }
  },
  Cumulative: ({ kind, axis, exclusive, reverse }, [x], [output]) => {
    const [outer, n, inner] = around(x!.shape, axis);
    for (let i = 0; i < outer; i++) {
      for (let j = 0; j < inner; j++) {
        let held = kind === 'Sum' ? 0 : 1;
        for (let k = 0; k < n; k++) {
          const at = (i * n + (reverse ? n - 1 - k : k)) * inner + j;
          const value = x!.values[at]!;
          const next = kind === 'Sum' ? held + value : held * value;
          output!.values[at] = exclusive ? held : next;
          held = next;
        }
      }
    }
  },
  Gather: ({ axis, batchAxes }, [x, indices], [output]) => {
    const batch = sizeOf(x!.shape.slice(0, batchAxes));
    const outer = sizeOf(x!.shape.slice(batchAxes, axis));
    const n = x!.shape[axis]!;
    const inner = sizeOf(x!.shape.slice(axis + 1));
    const count = sizeOf(indices!.shape.slice(batchAxes));
    let at = 0;
    for (let i = 0; i < batch * outer; i++) {
      for (let j = 0; j < count; j++) {
        const index = indices!.values[Math.floor(i / outer) * count + j]!;
        const valid = index >= 0 && index < n;
        for (let k = 0; k < inner; k++, at++)
          output!.values[at] = valid ? x!.values[(i * n + index) * inner + k]! : outside(x!.dtype);
      }
    }
  },
  GatherNd: (_, [x, indices], [output]) => {
    const depth = indices!.shape.at(-1)!;
    const inner = sizeOf(x!.shape.slice(depth));
    for (let i = 0; i < sizeOf(indices!.shape.slice(0, -1)); i++) {
      const offset = leadingOffset(indices!.values, i, depth, x!.shape);
      for (let k = 0; k < inner; k++)
        output!.values[i * inner + k] = offset === undefined ? outside(x!.dtype) : x!.values[offset + k]!;
    }
  },
  ScatterNd: ({ mode }, [base, indices, updates], [output]) => {
    output!.values.set(base!.values);
    const depth = indices!.shape.at(-1)!;
    const inner = sizeOf(base!.shape.slice(depth));
    for (let i = 0; i < sizeOf(indices!.shape.slice(0, -1)); i++) {
      const offset = leadingOffset(indices!.values, i, depth, base!.shape);
      if (offset === undefined) continue;
      for (let k = 0; k < inner; k++) {
        const update = updates!.values[i * inner + k]!;
        output!.values[offset + k] = mode === 'add' ? output!.values[offset + k]! + update : update;
      }
    }
  },
  TopK: ({ k }, [x], [values, indices]) => {
    const n = x!.shape.at(-1)!;
    for (let row = 0; row < rowsOf(x!); row++) {
      const at = (i: number): number => x!.values[row * n + i]!;
      const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => at(b) - at(a) || a - b);
      for (let i = 0; i < k; i++) {
        values!.values[row * k + i] = at(order[i]!);
        indices!.values[row * k + i] = order[i]!;
      }
    }
  },
  Norm: ({ kind, epsilon, scaled, biased }, inputs, [output]) => {
    const [x] = inputs as [Tensor];
    const dim = x.shape.at(-1)!;
    const scale = scaled ? inputs[1] : undefined;
    const bias = biased ? inputs[scaled ? 2 : 1] : undefined;
    for (let row = 0; row < rowsOf(x); row++) {
      const values = Array.from(rowOf(x, row));
      const mean = kind === 'layer' ? values.reduce((sum, value) => sum + value, 0) / dim : 0;
      const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / dim;
      for (const [i, value] of values.entries()) {
        const normal = (value - mean) / Math.sqrt(square + epsilon);
        output!.values[row * dim + i] = normal * (scale?.values[i] ?? 1) + (bias?.values[i] ?? 0);
      }
    }
  },
  Softmax: ({ log, scale }, [x], [output]) => {
    const n = x!.shape.at(-1)!;
    for (let row = 0; row < rowsOf(x!); row++) {
      const values = Array.from(rowOf(x!, row), (value) => value * scale);
      const max = values.reduce((held, value) => Math.max(held, value), Number.NEGATIVE_INFINITY);
      const total = values.reduce((sum, value) => sum + Math.exp(value - max), 0);
      for (const [i, value] of values.entries())
        output!.values[row * n + i] = log ? value - max - Math.log(total) : Math.exp(value - max) / total;
    }
  },
};
