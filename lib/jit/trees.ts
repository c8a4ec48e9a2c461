// lib/jit/trees.ts: arguments and results of compiled functions. Nested objects and lists whose leaves are tensors,
// Weights, or plain values -> their leaves in a fixed order, and back. Source: jax's pytrees.

import * as tf from '@tensorflow/tfjs-core';
import type { Weight } from '../tensor.js';
import { isWeight } from '../tensor.js';

/** A number, string, boolean, null or undefined: part of what a function is compiled for. */
export type Static = number | string | boolean | null | undefined;

/** What to make of each kind of leaf. `path` is such as '0.cache.keys.3'. */
export interface LeafVisitor {
  tensor(tensor: tf.Tensor, path: string): unknown;
  weight(weight: Weight, path: string): unknown;
  plain(value: Static, path: string): unknown;
}

/**
 * Rebuilds a tree with each leaf replaced; objects keep their keys' order.
 * @throws TypeError for a leaf that is neither tensor, Weight nor plain (gives its path and type)
 */
export function mapTree(tree: unknown, visitor: LeafVisitor, path = ''): unknown {
  if (tree === null || tree === undefined) return visitor.plain(tree, path);
  if (tree instanceof tf.Tensor) return visitor.tensor(tree, path);
  if (Array.isArray(tree)) return tree.map((each, i) => mapTree(each, visitor, join(path, String(i))));
  if (typeof tree === 'number' || typeof tree === 'string' || typeof tree === 'boolean')
    return visitor.plain(tree, path);
  if (isWeight(tree)) return visitor.weight(tree, path);
  if (!isPlainObject(tree)) throw new TypeError(`${path || 'value'}: ${wrongLeaf(tree)}`);
  return Object.fromEntries(
    Object.entries(tree).map(([name, value]) => [name, mapTree(value, visitor, join(path, name))]),
  );
}

/** Visits the leaves that mapTree replaces, in its order; nothing is built. */
function visitTree(tree: unknown, visitor: LeafVisitor, path = ''): void {
  const isBranch = typeof tree === 'object' && tree !== null && !(tree instanceof tf.Tensor);
  if (Array.isArray(tree))
    for (const [i, each] of tree.entries()) visitTree(each, visitor, join(path, String(i)));
  else if (isBranch && !isWeight(tree) && isPlainObject(tree))
    for (const name of Object.keys(tree)) visitTree(tree[name], visitor, join(path, name));
  else mapTree(tree, visitor, path);
}

/** The leaves of a tree in order, and a text that is equal for trees that one compiled program serves. */
export interface Flat {
  readonly tensors: readonly { readonly tensor: tf.Tensor; readonly path: string }[];
  readonly weights: readonly { readonly weight: Weight; readonly path: string }[];
  /** One line a leaf or branch: its path and what it is. */
  readonly lines: readonly string[];
}

export function flatten(tree: unknown): Flat {
  const tensors: { tensor: tf.Tensor; path: string }[] = [];
  const weights: { weight: Weight; path: string }[] = [];
  const lines: string[] = [];
  visitTree(tree, {
    tensor: (tensor, path) => {
      tensors.push({ tensor, path });
      lines.push(`${path}: ${tensor.dtype}[${tensor.shape}]`);
    },
    weight: (weight, path) => {
      weights.push({ weight, path });
      lines.push(`${path}: ${describeWeight(weight)}`);
    },
    plain: (value, path) => lines.push(`${path}: ${describeStatic(value)}`),
  });
  return { tensors, weights, lines };
}

const descriptions = new WeakMap<Weight, string>();

/** Such as 'f16[768,2304]' or 'int8 per channel axis 1 [768,2304]'. */
export function describeWeight(weight: Weight): string {
  const known = descriptions.get(weight) ?? describe(weight);
  descriptions.set(weight, known);
  return known;
}

function describe(weight: Weight): string {
  const shape = `[${weight.shape}]`;
  if (weight.kind === 'float') return `Weight ${weight.dtype}${shape}`;
  const { granularity } = weight;
  const axis = granularity.per === 'tensor' ? '' : ` axis ${granularity.axis}`;
  const size = granularity.per === 'group' ? ` of ${granularity.size}` : '';
  return `Weight ${weight.kind} per ${granularity.per}${size}${axis}${shape}`;
}

/** Unlike JSON, tells -0 from 0, keeps NaN, and keeps '1' apart from 1. */
function describeStatic(value: Static): string {
  if (typeof value === 'string') return JSON.stringify(value);
  return Object.is(value, -0) ? '-0' : String(value);
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || prototype.constructor?.name === 'Object';
}

function wrongLeaf(value: unknown): string {
  const type = typeof value === 'object' ? (value?.constructor?.name ?? 'object') : typeof value;
  const expected = 'expected tensors, Weights, numbers, strings, booleans, lists or plain objects';
  if (ArrayBuffer.isView(value)) return `${expected}, received ${type}: make it a tensor with tf.tensor(...)`;
  if (typeof value === 'function')
    return `${expected}, received a function: let the compiled function close over it`;
  return `${expected}, received ${type}`;
}
