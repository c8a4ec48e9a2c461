// tests/jit/liveness.test.ts: until when memory is needed, in a chain of two products, apart and in one group.
import * as tf from '@tensorflow/tfjs-core';
import { expect, test } from 'vitest';
import type { Graph, Node, Value } from '../../lib/jit/graph.js';
import { Liveness } from '../../lib/jit/liveness.js';
import { trace } from './traced.js';

const side = [4, 4];
const chain = trace((x, w) => tf.matMul(tf.matMul(x!, w!), w!), [side, side]);
const [x, w] = chain.inputs as [Value, Value];
const [first] = chain.nodes[0]!.outputs as [Value];

function livenessOf(graph: Graph, grouped: readonly Node[] = []): Liveness {
  return new Liveness(graph, new Map(grouped.map((node) => [node, 0])), (value) => value);
}

test('memory ends with its last reader, an output never', () => {
  const liveness = livenessOf(chain);
  expect([liveness.endsAt(x, 0), liveness.endsAt(w, 0), liveness.endsAt(w, 1)]).toEqual([true, false, true]);
  expect([liveness.endedBy(0), liveness.endedBy(1)]).toEqual([[x], [first, w]]);
});

test('a group keeps all that it uses until its last Node has run', () => {
  const liveness = livenessOf(chain, chain.nodes);
  expect([liveness.endedBy(0), liveness.endedBy(1)]).toEqual([[], [x, w, first]]);
});

test('what is read twice, or by another Node of the group, may not be written over', () => {
  const apart = livenessOf(chain);
  expect(apart.isReadLastBy(x, 0)).toBe(true);
  expect(apart.isReadLastBy(w, 0)).toBe(false);
  expect(apart.isReadLastBy(w, 1)).toBe(true);
  expect(livenessOf(chain, chain.nodes).isReadLastBy(w, 1)).toBe(false);
  const square = trace((each) => tf.matMul(each!, each!), [side]);
  expect(livenessOf(square).isReadLastBy(square.inputs[0]!, 0)).toBe(false);
});
