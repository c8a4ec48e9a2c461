import { expect, test } from 'vitest';
import { formatNumber, formatTable, formatValue } from '../../lib/notebook/table.js';

test('numbers keep integers whole and four significant digits otherwise', () => {
  const numbers = [9437184, 0, -3, 2.555555, 123.456, 1234.5678, 0.000123456, 12345678.9, Number.NaN];
  expect(numbers.map(formatNumber)).toEqual([
    '9437184',
    '0',
    '-3',
    '2.556',
    '123.5',
    '1234.57',
    '1.235e-4',
    '1.235e+7',
    'NaN',
  ]);
});

test('values take one line', () => {
  expect(formatValue([1, 'a', null])).toBe('[1, a, -]');
  expect(formatValue(Float32Array.from({ length: 20 }, (_, i) => i))).toMatch(
    /^\[0, 1, .*15, \.\.\. 20 in all\]$/,
  );
  expect(formatValue({ a: [1], b: true })).toBe('{ a: [1], b: true }');
  expect(formatValue(undefined)).toBe('-');
});

test('records and data frames become tables, missing cells a dash', () => {
  const table = 'name   ms\n----  ---\nf32   1.5\nint8    -';
  expect(formatTable([{ name: 'f32', ms: 1.5 }, { name: 'int8' }])).toBe(table);
  expect(
    formatTable({
      columns: ['name', 'ms'],
      values: [
        ['f32', 1.5],
        ['int8', null],
      ],
    }),
  ).toBe(table);
});

test('an object becomes a list of fields', () => {
  expect(formatTable({ a: 1, long: 'x' })).toBe('a     1\nlong  x');
});

test('anything else is a line', () => {
  expect([formatTable('text'), formatTable([]), formatTable(3)]).toEqual(['text', '[]', '3']);
});
