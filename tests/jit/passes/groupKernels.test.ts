import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, test } from 'vitest';
import { allocate, cachedAttention, openStep } from '../../../lib/cache.js';
import { checkGraph } from '../../../lib/jit/check.js';
import type { Graph } from '../../../lib/jit/graph.js';
import { fuseElementwise } from '../../../lib/jit/passes/fuseElementwise.js';
import { fuseEpilogue } from '../../../lib/jit/passes/fuseEpilogue.js';
import { fuseNorm } from '../../../lib/jit/passes/fuseNorm.js';
import { groupKernels } from '../../../lib/jit/passes/groupKernels.js';
import { joinLinears } from '../../../lib/jit/passes/joinLinears.js';
import { removeDead } from '../../../lib/jit/passes/removeDead.js';
import { planMemory } from '../../../lib/jit/plan.js';
import type { KernelStep, Step } from '../../../lib/jit/steps.js';
import { valueBytes } from '../../../lib/jit/steps.js';
import { linear, rotary, vector } from '../../../lib/ops.js';

import { passed, someWeight, trace } from '../traced.js';

const kernelsOf = (graph: Graph): Graph =>
  joinLinears(fuseEpilogue(removeDead(fuseElementwise(removeDead(fuseNorm(graph))))));

function rms(x: tf.Tensor, scale = someWeight([x.shape.at(-1)!], 5)): tf.Tensor {
  const root = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-5));
  return tf.mul(tf.mul(x, root), vector(scale));
}

/** The operations of each group, in order. */
function groupsOf({ graph, groups }: ReturnType<typeof groupKernels>): string[] {
  const texts: string[] = [];
  for (const node of graph.nodes) {
    const group = groups.get(node);
    if (group !== undefined && node.op !== 'Reshape')
      texts[group] = `${texts[group] ?? ''} ${node.op}`.trim();
  }
  return texts.filter((text) => text !== undefined);
}

/** One layer's attention as models write it: norm, Q, K, V, rotary, cache, output, residual. */
function attentionBlock(x: tf.Tensor, start: tf.Tensor): unknown {
  const spec = { layers: 1, kvHeads: 1, headDim: 8, capacity: 16, window: null };
  const position = tf.cast(tf.reshape(start, [1]), 'int32') as tf.Tensor1D;
  const step = openStep(allocate(spec, 1, 'fixed'), position, tf.tensor1d([1], 'int32'), 1);
  const normal = rms(x);
  const heads = (t: tf.Tensor, count: number) => tf.reshape(t, [1, count, 1, 8]) as tf.Tensor4D;
  const frequencies = [1, 0.5, 0.25, 0.125];
  const q = rotary(heads(linear(normal, someWeight([16, 16])), 2), step.asked, frequencies);
  const k = rotary(heads(linear(normal, someWeight([16, 8], 2)), 1), step.asked, frequencies);
  const v = heads(linear(normal, someWeight([16, 8], 3)), 1);
  const mixed = tf.reshape(cachedAttention(step, 0, q, k, v, 0.5), [1, 1, 16]);
  const attended = tf.add(x, linear(mixed, someWeight([16, 16], 4)));
  return [attended, step.keys[0], step.values[0]];
}

function tracedBlock(): Graph {
  return kernelsOf(trace((x, start) => attentionBlock(x!, start!), [[1, 1, 16], [1]]));
}

const position = (start: tf.Tensor) => tf.cast(tf.reshape(start, [1]), 'int32') as tf.Tensor1D;
/** Stored, whatever reads it. */
const summed = (x: tf.Tensor) => tf.cumsum(x, -1);

describe('groups of kernels', () => {
  test('norm, joined products, rotary and the writes to the cache are one', () => {
    const grouped = groupKernels(tracedBlock());
    checkGraph(grouped.graph);
    expect(groupsOf(grouped)).toEqual(['Norm Linear Rotary Rotary CacheAppend CacheAppend']);
    passed(tracedBlock(), (graph) => groupKernels(graph).graph);
  });

  test('a norm that something else reads stays apart', () => {
    const graph = kernelsOf(
      trace(
        (x) => {
          const y = rms(x!);
          return [linear(y, someWeight([16, 4])), tf.neg(y)];
        },
        [[2, 16]],
      ),
    );
    expect(groupsOf(groupKernels(graph))).toEqual([]);
  });

  test('the largest element joins the product that it looks at', () => {
    const graph = kernelsOf(trace((x) => tf.argMax(linear(x!, someWeight([16, 40])), -1), [[2, 16]]));
    expect(groupsOf(groupKernels(graph))).toEqual(['Linear Reduce']);
  });

  test('a change of layout stands with what it is made for', () => {
    const graph = kernelsOf(
      trace(
        (x, start) => {
          const spec = { layers: 1, kvHeads: 2, headDim: 8, capacity: 16, window: null };
          const step = openStep(allocate(spec, 1, 'fixed'), position(start!), tf.tensor1d([3], 'int32'), 3);
          const heads = (t: tf.Tensor) =>
            tf.transpose(tf.reshape(t, [1, 3, 2, 8]), [0, 2, 1, 3]) as tf.Tensor4D;
          const turned = rotary(heads(tf.cos(x!)), step.asked, [1, 0.5, 0.25, 0.125]);
          const mixed = cachedAttention(step, 0, turned, turned, heads(summed(x!)), 0.5);
          return [tf.transpose(mixed, [0, 2, 1, 3]), step.keys[0], step.values[0]];
        },
        [[1, 3, 16], [1]],
      ),
    );
    const grouped = groupKernels(graph);
    checkGraph(grouped.graph);
    expect(groupsOf(grouped)).toEqual(['Elementwise CacheAppend', 'CachedAttention Elementwise']);
    passed(graph, (each) => groupKernels(each).graph);
  });

  test('what needs its own result from outside is no group', () => {
    // The rotary's positions come from the product itself, by way of a kernel that is in no group.
    const graph = kernelsOf(
      trace(
        (x) => {
          const y = linear(x!, someWeight([8, 16]));
          const place = tf.cast(tf.reshape(tf.argMax(tf.slice(y, [0, 8], [1, 8]), -1), [1, 1]), 'int32');
          return rotary(
            tf.reshape(linear(x!, someWeight([8, 8])), [1, 1, 1, 8]) as tf.Tensor4D,
            place as tf.Tensor2D,
            [1, 1, 1, 1],
          );
        },
        [[1, 8]],
      ),
    );
    const grouped = groupKernels(graph);
    checkGraph(grouped.graph);
    passed(graph, (each) => groupKernels(each).graph);
  });
});

test('in a plan, what a group reads shares no memory with what it writes', () => {
  const { graph, groups } = groupKernels(tracedBlock());
  const plan = planMemory(graph, [], groups);
  const grouped = plan.steps.filter(
    (step: Step): step is KernelStep => step.kind === 'kernel' && step.group !== undefined,
  );
  expect(grouped.length).toBe(6);
  const made = new Set([...groups.keys()].flatMap((node) => node.outputs)); // by Reshapes too
  const ranges = (step: KernelStep, side: 'inputs' | 'outputs') =>
    step[side].flatMap((place, i) => {
      const value = step.node[side][i]!;
      const begin = place.space === 'arena' ? place.offset : -1;
      return begin < 0 ? [] : [{ begin, end: begin + valueBytes(value), value, op: step.node.op }];
    });
  const writes = grouped.flatMap((step) => ranges(step, 'outputs'));
  for (const [i, a] of writes.entries())
    for (const b of writes.slice(i + 1)) expect(a.end <= b.begin || b.end <= a.begin).toBe(true);
  const reads = grouped.flatMap((step) => ranges(step, 'inputs')).filter(({ value }) => !made.has(value));
  // A cache is written where it was read: that is its own doing.
  for (const a of reads)
    for (const b of writes)
      if (b.op !== 'CacheAppend') expect(a.end <= b.begin || b.end <= a.begin).toBe(true);
});
