import { expect, test } from 'vitest';
import type { Output } from '../../lib/notebook/document.js';
import { OutputCollector } from '../../lib/notebook/outputs.js';

const message = (msg_type: string, content: object) => ({
  header: { msg_id: 'id', msg_type },
  parent: {},
  content: content as Record<string, unknown>,
});
const ignore = () => {};

test('text of one stream is joined, another stream or a display begins anew', () => {
  const outputs: Output[] = [];
  const collector = new OutputCollector();
  for (const [name, text] of [
    ['stdout', 'a'],
    ['stdout', 'b'],
    ['stderr', 'c'],
    ['stdout', 'd'],
  ])
    collector.add(outputs, message('stream', { name, text }), ignore);
  expect(outputs.map((output) => output.output_type === 'stream' && output.text)).toEqual(['ab', 'c', 'd']);
});

test('a display is updated from any cell, and JSON types are parsed', () => {
  const collector = new OutputCollector();
  const [first, second]: Output[][] = [[], []];
  const data = { 'application/json': '{"a":1}', 'text/plain': 'old' };
  collector.add(
    first!,
    message('display_data', { data, metadata: {}, transient: { display_id: 'x' } }),
    ignore,
  );
  expect(first).toMatchObject([{ data: { 'application/json': { a: 1 } } }]);
  const update = { data: { 'text/plain': 'new' }, metadata: {}, transient: { display_id: 'x' } };
  collector.add(second!, message('update_display_data', update), ignore);
  expect(first).toMatchObject([{ output_type: 'display_data', data: { 'text/plain': 'new' } }]);
  expect(second).toEqual([]);
});

test('outputs can be cleared, and errors are told', () => {
  const outputs: Output[] = [{ output_type: 'stream', name: 'stdout', text: 'x' }];
  const collector = new OutputCollector();
  const told: string[] = [];
  collector.add(outputs, message('clear_output', {}), ignore);
  collector.add(outputs, message('error', { ename: 'E', evalue: 'v', traceback: ['t'] }), (name, value) =>
    told.push(name, value),
  );
  expect(outputs).toEqual([{ output_type: 'error', ename: 'E', evalue: 'v', traceback: ['t'] }]);
  expect(told).toEqual(['E', 'v']);
});
