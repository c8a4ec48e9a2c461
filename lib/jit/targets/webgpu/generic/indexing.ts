// lib/jit/targets/webgpu/generic/indexing.ts: an element's number -> where the operands' elements are, through views.

import type { View } from '../../../graph.js';
import type { ArrayRef, Statements } from '../../../kernels/builder.js';
import { type Expr, literal } from '../../../kernels/expression.js';
import { loadElement, storedType } from '../../../kernels/scalars.js';
import type { Operand } from '../context.js';
import type { DispatchWriter } from '../writer.js';

/** Axes of a shape, those merged that all views walk as one; axes of 1 left out. */
function mergedAxes(
  shape: readonly number[],
  views: readonly View[],
): { sizes: number[]; strides: number[][] } {
  const sizes: number[] = [];
  const strides: number[][] = []; // by axis, one a view
  for (const [axis, size] of shape.entries()) {
    if (size === 1) continue;
    const own = views.map((view) => view.strides[axis]!);
    const before = strides.at(-1);
    if (before?.every((stride, i) => stride === own[i]! * size)) {
      sizes[sizes.length - 1]! *= size;
      strides[strides.length - 1] = own;
    } else {
      sizes.push(size);
      strides.push(own);
    }
  }
  return { sizes, strides };
}

/** Places along the axes of an element, i32. */
export function coordinates(f: Statements, index: Expr, sizes: readonly number[]): Expr[] {
  let rest = index.to('i32');
  const places: Expr[] = [];
  for (let axis = sizes.length - 1; axis > 0; axis--) {
    places.unshift(f.let('place', rest.rem(sizes[axis]!)));
    rest = f.let('rest', rest.div(sizes[axis]!));
  }
  return sizes.length === 0 ? [] : [rest, ...places];
}

/** The element that each view has at an index of the shape, i32. */
export function viewElements(
  f: Statements,
  index: Expr,
  shape: readonly number[],
  views: readonly View[],
): Expr[] {
  const { sizes, strides } = mergedAxes(shape, views);
  const places = coordinates(f, index, sizes);
  return views.map((view, which) => {
    const terms = places.flatMap((place, axis) => {
      const stride = strides[axis]![which]!;
      return stride === 0 ? [] : [stride === 1 ? place : place.mul(stride)];
    });
    const all = view.offset === 0 && terms.length > 0 ? terms : [...terms, literal('i32', view.offset)];
    return f.let(
      'element',
      all.reduce((sum, term) => sum.add(term)),
    );
  });
}

/** An operand as an array of a kernel. */
export function bindOperand(w: DispatchWriter, name: string, operand: Operand): ArrayRef {
  return w.bind(name, operand.use, storedType(operand.dtype));
}

/** Loads an operand's element. */
export function loadOperand(array: ArrayRef, operand: Operand, element: Expr): Expr {
  return loadElement(array, operand.base ? element.add(operand.base) : element, operand.dtype);
}
