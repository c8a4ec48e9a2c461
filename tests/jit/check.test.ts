// check.ts says which Node of a graph is wrong.
import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import { checkGraph } from '../../lib/jit/check.js';
import type { Graph, Node } from '../../lib/jit/graph.js';
import { newValue } from '../../lib/jit/graph.js';
import { scan } from '../../lib/jit/jit.js';
import { trace, traceKernels } from './traced.js';

const graph = trace((x, y) => tf.add(tf.exp(x!), tf.sum(y!, 1)), [[2], [2, 3]]);
const broken = (change: (nodes: Node[]) => Node[]): Graph => ({ ...graph, nodes: change([...graph.nodes]) });

test('a graph as it was traced is well-formed', () => {
  checkGraph(graph);
});

test.each<[string, Graph, RegExp]>([
  [
    'a read before the write',
    broken((nodes) => nodes.reverse()),
    /after pass: Add: input 0 is read before it is written/,
  ],
  ['a value written twice', broken(([first, ...rest]) => [first!, first!, ...rest]), /is written twice/],
  ['an output that nothing writes', { ...graph, outputs: [newValue('f32', [2])] }, /output 0 is not written/],
  [
    'a wrong shape',
    broken((nodes) =>
      nodes.map((node) => (node.op === 'Exp' ? { ...node, outputs: [newValue('f32', [3])] } : node)),
    ),
    /Exp: expected f32\[2\], found f32\[3\]/,
  ],
  [
    'a type that does not fit',
    broken((nodes) => nodes.map((node) => (node.op === 'Exp' ? ({ ...node, op: 'Not' } as Node) : node))),
    /Not: expected bool, received f32/,
  ],
])('%s', (_, wrong, message) => {
  expect(() => checkGraph(wrong, 'pass')).toThrow(message);
});

test('a view that leaves its operand', () => {
  const kernels = traceKernels((x) => tf.slice(x!, [1], [2]), [[3]]);
  const nodes = kernels.nodes.map((node): Node => {
    if (node.op !== 'Elementwise') return node;
    return { ...node, attrs: { ...node.attrs, views: [{ offset: 2, strides: [1] }] } };
  });
  expect(() => checkGraph({ ...kernels, nodes })).toThrow(/view of input 0 leaves it[^$]*graph\(/);
});

test('a carry that changes its shape inside a scan', () => {
  const loop = trace((x) => scan((c) => ({ carry: tf.neg(c) }), x!, 2).carry, [[2]]);
  const nodes = loop.nodes.map((node): Node => {
    if (node.op !== 'Scan') return node;
    const body = { ...node.attrs.body, outputs: [newValue('f32', [3])] };
    return { ...node, attrs: { ...node.attrs, body } };
  });
  expect(() => checkGraph({ ...loop, nodes })).toThrow(/Scan: expected f32\[2\], found f32\[3\]/);
});
