// lib/jit/weights.ts: Weights in targets. Each is bound once and found again by identity; who binds a whole tree ahead
// frees the source as it goes.

import type * as tf from '@tensorflow/tfjs-core';
import type { ParamTree, Weight } from '../tensor.js';
import { weightEntries } from '../tensor.js';
import type { Graph, Node } from './graph.js';
import { elementType } from './lower/lowering.js';
import { adoptBuffer, bufferOf } from './memory.js';
import { elementBytes } from './steps.js';
import type { BoundWeight, Target, WeightUse } from './target.js';
import type { TargetName } from './targets.js';
import { openTarget } from './targets.js';
import { elementValues } from './trace.js';
import { describeWeight, flatten, mapTree } from './trees.js';

const bound = new WeakMap<Target, WeakMap<Weight, BoundWeight>>();
const unused = new FinalizationRegistry<{ target: Target; weight: BoundWeight }>(({ target, weight }) => {
  target.unbind(weight);
});

/** A Weight in a target: bound now, if it is not yet. */
export function boundWeight(target: Target, weight: Weight, use: WeightUse): BoundWeight {
  const known = bound.get(target) ?? new WeakMap<Weight, BoundWeight>();
  bound.set(target, known);
  const found = known.get(weight);
  if (found) return found;
  const made = target.bind(weight, use);
  known.set(weight, made);
  unused.register(weight, { target, weight: made }, made);
  return made;
}

/**
 * Moves a tree of parameters into a target, leaf after leaf, each freed here as soon as it is there.
 * @param params Weights and tensors; neither can be read here afterwards
 * @returns the tree to call compiled functions with: the same Weights, and tensors that lie in the target
 * @throws RangeError if they do not fit (says what would)
 */
export async function bind<Tree>(params: Tree, targetName: TargetName = 'wasm'): Promise<Tree> {
  const target = await openTarget(targetName);
  const { tensors, weights } = flatten(params);
  const uses = weights.map(({ path }) => useOf(path));
  checkAllFit(
    target,
    weights.map(({ weight }) => weight),
    uses,
  );
  for (const [i, { weight, path }] of weights.entries()) {
    boundWeight(target, weight, uses[i]!);
    freeSource(weight, path, targetName);
    await new Promise((resolve) => setImmediate(resolve)); // other work, and the collector, get their turn
  }
  const moved = new Map<tf.Tensor, tf.Tensor>();
  for (const { tensor } of tensors) if (!moved.has(tensor)) moved.set(tensor, moveTensor(tensor, target));
  const keep = (leaf: unknown): unknown => leaf;
  return mapTree(params, { tensor: (tensor) => moved.get(tensor), weight: keep, plain: keep }) as Tree;
}

/**
 * Moves one Weight into a target, and waits until it is there: for those who load a model piece by piece.
 * @param path its place in the tree of parameters
 * @throws RangeError or Error if it does not fit (says what would)
 */
export async function bindWeight(weight: Weight, path: string, targetName: TargetName): Promise<void> {
  const target = await openTarget(targetName);
  boundWeight(target, weight, useOf(path));
  freeSource(weight, path, targetName);
  await target.settled?.();
}

/** An embedding's rows are looked up; a kernel is [in, out]. */
function useOf(path: string): WeightUse {
  return { path, outputAxis: path.split('.').at(-1) === 'embedding' ? 0 : 1 };
}

/** Asks, before anything is allocated, whether the Weights that are not bound yet fit. @throws RangeError if not */
export function checkAllFit(target: Target, weights: readonly Weight[], uses: readonly WeightUse[]): void {
  const missing = new Map<Weight, WeightUse>();
  for (const [i, weight] of weights.entries())
    if (!bound.get(target)?.has(weight)) missing.set(weight, uses[i]!);
  if (missing.size > 0) target.checkFit?.([...missing].map(([weight, use]) => ({ weight, use })));
}

/** A tensor's values in the target's memory; the tensor itself is disposed. */
function moveTensor(tensor: tf.Tensor, target: Target): tf.Tensor {
  if (bufferOf(tensor, target)) return tensor;
  const dtype = elementType(tensor.dtype);
  const values = elementValues(tensor.dataSync(), dtype);
  const buffer = target.allocate(values.length * elementBytes);
  target.write(buffer, values);
  const { shape } = tensor;
  tensor.dispose();
  return adoptBuffer(target, buffer, dtype, shape);
}

/** Releases the Weights of a tree from a target, ahead of the garbage collector. */
export async function unbind(params: ParamTree, targetName: TargetName): Promise<void> {
  const target = await openTarget(targetName);
  for (const [, weight] of weightEntries(params)) {
    const handle = bound.get(target)?.get(weight);
    if (!handle) continue;
    bound.get(target)?.delete(weight);
    unused.unregister(handle);
    target.unbind(handle);
  }
}

function freeSource(weight: Weight, path: string, target: TargetName): void {
  const refuse = (): never => {
    throw new Error(
      `${path} (${describeWeight(weight)}) was moved into the target ${target}: its bytes are not here`,
    );
  };
  for (const name of weight.kind === 'float' ? ['bytes'] : ['bytes', 'scales']) {
    Object.defineProperty(weight, name, { get: refuse, configurable: true, enumerable: false });
  }
}

/** How a graph reads each of its Weights: a product decides which axis holds the output features. */
export function weightUses(graph: Graph): WeightUse[] {
  const nodes = allNodes(graph);
  const axes = graph.weights.map((): 0 | 1 => 1);
  for (const node of nodes) if (node.op === 'Embed') axes[node.attrs.weight] = 0;
  for (const node of nodes) {
    if (node.op !== 'Linear') continue;
    for (const { weight, transposed } of node.attrs.products) axes[weight] = transposed ? 0 : 1;
  }
  return graph.weights.map((slot, i) => ({ path: slot.path, outputAxis: axes[i]! }));
}

function allNodes(graph: Graph): Node[] {
  return graph.nodes.flatMap((node) => (node.op === 'Scan' ? [node, ...allNodes(node.attrs.body)] : [node]));
}
