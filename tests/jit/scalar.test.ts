// What scalar operations mean, at the places where it is easy to get wrong.
import { describe, expect, test } from 'vitest';
import { convert, programFunction, scalarFunction } from '../../lib/jit/scalar.js';

const f32 = (op: Parameters<typeof scalarFunction>[0]) => scalarFunction(op, 'f32', 'f32');
const i32 = (op: Parameters<typeof scalarFunction>[0]) => scalarFunction(op, 'i32', 'i32');

test.each([
  [0, 0],
  [0.5, 0.5204998778130465],
  [1, 0.8427007929497149],
  [2.4, 0.9993114861033549],
  [2.6, 0.9997639655834707],
  [-3, -0.9999779095030014],
  [10, 1],
])('erf(%d)', (x, expected) => {
  expect(f32('Erf')(x, 0, 0)).toBe(Math.fround(expected));
});

test('rounding: halves go to the even neighbour', () => {
  expect([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4, 2.6].map((x) => f32('Round')(x, 0, 0))).toEqual([
    -2, -2, 0, 0, 2, 2, 2, 3,
  ]);
});

test('casts: toward zero, at the ends of the range, NaN to 0', () => {
  expect([1.9, -1.9, 3e10, -3e10, Number.NaN].map((x) => convert(x, 'i32'))).toEqual([
    1,
    -1,
    2 ** 31 - 1,
    -(2 ** 31),
    0,
  ]);
  expect([0, -0, 0.1, Number.NaN].map((x) => convert(x, 'bool'))).toEqual([0, 0, 1, 1]);
  expect(convert(0.1, 'f32')).toBe(Math.fround(0.1));
});

describe('integers', () => {
  test('wrap at 32 bits', () => {
    expect(i32('Add')(2 ** 31 - 1, 1, 0)).toBe(-(2 ** 31));
    expect(i32('Mul')(123456789, 987654321, 0)).toBe(Math.imul(123456789, 987654321));
  });
  test('divide down, and by zero', () => {
    expect([
      i32('FloorDiv')(-7, 2, 0),
      i32('Mod')(-7, 2, 0),
      i32('Mod')(7, -3, 0),
      i32('FloorDiv')(1, 0, 0),
    ]).toEqual([-4, 1, -2, 0]);
  });
});

test('NaN goes through maximum and minimum', () => {
  expect([f32('Max')(Number.NaN, 1, 0), f32('Min')(1, Number.NaN, 0)]).toEqual([Number.NaN, Number.NaN]);
});

test('a program rounds after each step', () => {
  const run = programFunction([
    { op: 'Input', index: 0, dtype: 'f32' },
    { op: 'Literal', value: 0.1, dtype: 'f32' },
    { op: 'Mul', args: [0, 1], dtype: 'f32' },
    { op: 'Greater', args: [2, 1], dtype: 'bool' },
    { op: 'Select', args: [3, 2, 1], dtype: 'f32' },
  ]);
  expect(run([3])).toBe(Math.fround(3 * Math.fround(0.1)));
  expect(run([0.5])).toBe(Math.fround(0.1));
});
