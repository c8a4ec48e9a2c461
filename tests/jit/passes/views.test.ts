// Reading through views is what it says: compared with moving the elements.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { View } from '../../../lib/jit/graph.js';
import {
  broadcastThrough,
  isPlain,
  plainView,
  reshapeThrough,
  sliceThrough,
  transposeThrough,
} from '../../../lib/jit/passes/views.js';
import { forEachIndex } from '../../../lib/jit/targets/reference/tensors.js';
import { sizeOf } from '../../../lib/tensor.js';

/** Elements that a view reads, in row-major order. */
function elementsOf(view: View, shape: readonly number[]): number[] {
  const elements: number[] = [];
  forEachIndex(shape, [view], (_, [element]) => elements.push(element!));
  return elements;
}

const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 });

test('a reshape reads the same elements in the same order, or says that it cannot', () => {
  let said = 0;
  fc.assert(
    fc.property(shapes, fc.array(fc.nat(), { maxLength: 6 }), (shape, choices) => {
      const perm = shape.map((_, axis) => axis).sort((a, b) => (choices[a] ?? a) - (choices[b] ?? b));
      const view = transposeThrough(plainView(shape), perm);
      const from = perm.map((axis) => shape[axis]!);
      const to = [sizeOf(from)];
      const flat = reshapeThrough(view, from, to);
      if (flat) expect(elementsOf(flat, to)).toEqual(elementsOf(view, from));
      else said += 1;
      const back = flat && reshapeThrough(flat, to, from);
      if (back) expect(elementsOf(back, from)).toEqual(elementsOf(view, from));
      if (perm.every((axis, i) => axis === i)) expect(flat).toBeDefined();
    }),
    { seed: 1 },
  );
  expect(said).toBeGreaterThan(0);
});

test('broadcasts, slices and reversals', () => {
  const row = broadcastThrough(plainView([3]), [3], [2, 3]);
  expect(elementsOf(row, [2, 3])).toEqual([0, 1, 2, 0, 1, 2]);
  const column = broadcastThrough(plainView([2, 1]), [2, 1], [2, 3]);
  expect(elementsOf(column, [2, 3])).toEqual([0, 0, 0, 1, 1, 1]);
  const part = sliceThrough(plainView([3, 4]), { begin: [2, 1], strides: [-1, 2] });
  expect(elementsOf(part, [2, 2])).toEqual([9, 11, 5, 7]);
  expect(reshapeThrough(row, [2, 3], [6])).toBeUndefined();
  expect(elementsOf(reshapeThrough(row, [2, 3], [2, 1, 3])!, [2, 1, 3])).toEqual([0, 1, 2, 0, 1, 2]);
});

test('the plain view is told from others; axes of length 1 do not matter', () => {
  expect(isPlain({ offset: 0, strides: [99, 3, 1] }, [1, 2, 3], 6)).toBe(true);
  expect(isPlain({ offset: 0, strides: [1, 2] }, [2, 2], 4)).toBe(false);
  expect(isPlain(plainView([2, 2]), [2, 2], 8)).toBe(false);
});

test('no elements: every reshape is possible', () => {
  expect(reshapeThrough(plainView([0, 3]), [0, 3], [3, 0])).toEqual({ offset: 0, strides: [0, 0] });
});
