// lib/jit/weights.ts: Weights in targets. Each is bound once and found again by identity; who binds a whole tree ahead
// frees the source as it goes.

import type { ParamTree, Weight } from '../tensor.js';
import { weightEntries } from '../tensor.js';
import type { Graph, Node } from './graph.js';
import type { BoundWeight, Target, WeightUse } from './target.js';
import type { TargetName } from './targets.js';
import { openTarget } from './targets.js';
import { describeWeight } from './trees.js';

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
 * Moves the Weights of a tree into a target, one after another, each freed here as soon as it is there.
 * @param params their bytes can no longer be read afterwards; compiled functions take the same tree as before
 * @returns bytes that the Weights take in the target
 * @throws RangeError if they do not fit (says what would)
 */
export async function bind(params: ParamTree, targetName: TargetName): Promise<number> {
  const target = await openTarget(targetName);
  const handles = new Set<BoundWeight>();
  const all = [...weightEntries(params)].map(([path, weight]) => ({ weight, use: useByName(path) }));
  target.checkFit?.(all.filter(({ weight }, i) => isFirstUnbound(target, weight, i, all)));
  for (const { weight, use } of all) {
    const { path } = use;
    handles.add(boundWeight(target, weight, use));
    freeSource(weight, path, targetName);
    await new Promise((resolve) => setImmediate(resolve)); // other work, and the collector, get their turn
  }
  return [...handles].reduce((total, handle) => total + handle.bytes, 0);
}

function useByName(path: string): WeightUse {
  return { path, outputAxis: path.split('.').at(-1) === 'embedding' ? 0 : 1 };
}

/** True for a Weight that has yet to be bound, the first time that it is listed. */
function isFirstUnbound(
  target: Target,
  weight: Weight,
  at: number,
  all: readonly { readonly weight: Weight }[],
): boolean {
  return !bound.get(target)?.has(weight) && all.findIndex((each) => each.weight === weight) === at;
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
