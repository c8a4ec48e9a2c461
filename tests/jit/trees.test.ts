// Trees of arguments: leaves in order, and the text that decides what is compiled anew.
import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { flatten, mapTree } from '../../lib/jit/trees.js';
import { someWeight } from './traced.js';

test('leaves come in the order of the tree, each with its path', () => {
  const tree = [{ w: someWeight([2, 3]), list: [tf.ones([2]), null] }, 'text', 3, tf.zeros([1, 2], 'int32')];
  const { tensors, weights, lines } = flatten(tree);
  expect(tensors.map(({ path }) => path)).toEqual(['0.list.0', '3']);
  expect(weights.map(({ path }) => path)).toEqual(['0.w']);
  expect(lines).toEqual([
    '0.w: Weight f32[2,3]',
    '0.list.0: float32[2]',
    '0.list.1: null',
    '1: "text"',
    '2: 3',
    '3: int32[1,2]',
  ]);
});

test('values that JSON would confuse differ', () => {
  const text = (value: unknown) => flatten([value]).lines.join();
  const values = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, null, undefined, '0', 'null', true, 'true'];
  expect(new Set(values.map(text)).size).toBe(values.length);
});

test('the format of a Weight is part of the text', () => {
  const scales = new Float32Array(3);
  const int8 = { kind: 'int8', shape: [2, 3], bytes: new Int8Array(6), scales } as const;
  const perChannel = { ...int8, granularity: { per: 'channel', axis: 1 } } as const;
  const perGroup = { ...int8, granularity: { per: 'group', axis: 0, size: 32 } } as const;
  expect(flatten([perChannel, perGroup]).lines).toEqual([
    '0: Weight int8 per channel axis 1[2,3]',
    '1: Weight int8 per group of 32 axis 0[2,3]',
  ]);
});

test('mapTree keeps structure and empty branches', () => {
  const keep = (leaf: unknown) => leaf;
  const tree = { a: [], b: {}, c: [1, { d: 'x' }] };
  expect(mapTree(tree, { tensor: keep, weight: keep, plain: keep })).toEqual(tree);
});

test.each([
  [new Float32Array(1), /received Float32Array: make it a tensor/],
  [() => 1, /received a function/],
  [new Date(0), /received Date/],
  [1n, /received bigint/],
])('%s is not a leaf', (leaf, message) => {
  expect(() => flatten({ a: { b: leaf } })).toThrow(message);
  expect(() => flatten({ a: { b: leaf } })).toThrow(/^a\.b: /);
});
