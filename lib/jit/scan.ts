// lib/jit/scan.ts: a loop as one operation. Inside a traced function: a Scan Node, its step traced once. Outside: a plain
// loop over the same step, for comparison. Source: jax.lax.scan, the part that decoding needs.

import * as tf from '@tensorflow/tfjs-core';
import { GraphBuilder } from './build.js';
import type { Graph, Value } from './graph.js';
import { bracket } from './infer.js';
import type { Tracer } from './trace.js';
import { activeTracer } from './trace.js';
import { mapTree } from './trees.js';

/** What a step gives: the next carry, and optionally an output, which is stacked over the steps. */
export interface ScanStep<Carry, Output> {
  readonly carry: Carry;
  readonly output?: Output;
}

export interface ScanOptions<Carry> {
  /** Looked at after each step: a bool scalar; true ends the loop. What the outputs have left is 0. */
  readonly until?: (carry: Carry) => tf.Tensor;
}

/** The last carry; the outputs of all steps, with a first axis of `length`; how many steps ran (int32 scalar). */
export interface ScanResult<Carry, Output> {
  readonly carry: Carry;
  readonly outputs: Output;
  readonly steps: tf.Tensor;
}

/**
 * Runs `step` on its own result `length` times.
 * @param step pure tfjs function; the carry that it returns has the structure, shapes and types of the one it gets
 * @param carry tree of tensors (plain values in it stay as they are)
 * @param length steps at most
 * @throws TypeError if a leaf of the carry changes its shape, type or plain value (names it)
 */
export function scan<Carry, Output = undefined>(
  step: (carry: Carry) => ScanStep<Carry, Output>,
  carry: Carry,
  length: number,
  options: ScanOptions<Carry> = {},
): ScanResult<Carry, Output> {
  if (!Number.isInteger(length) || length < 0)
    throw new RangeError(`scan: expected a length of 0 or more steps, received ${length}`);
  const tracer = activeTracer();
  return tracer ? traceScan(tracer, step, carry, length, options) : runScan(step, carry, length, options);
}

/** What a leaf of a carry has to keep. */
interface LeafType {
  readonly path: string;
  readonly type: string;
}

function leafTypes(tree: unknown): LeafType[] {
  const leaves: LeafType[] = [];
  mapTree(tree, {
    tensor: ({ dtype, shape }, path) => leaves.push({ path, type: `${dtype}${bracket(shape)}` }),
    weight: (_, path) => leaves.push({ path, type: 'a Weight' }),
    plain: (value, path) => leaves.push({ path, type: JSON.stringify(value) ?? 'undefined' }),
  });
  return leaves;
}

/** Says what a step has to return when it returned something else. */
function checkStep(result: unknown): void {
  if (typeof result === 'object' && result !== null && 'carry' in result) return;
  const received =
    result instanceof Promise ? 'a Promise' : result instanceof tf.Tensor ? 'a tensor' : typeof result;
  throw new TypeError(`scan: step: expected { carry, output? }, received ${received}`);
}

function checkCarry(before: readonly LeafType[], next: unknown): void {
  const after = leafTypes(next);
  for (let i = 0; i < Math.max(before.length, after.length); i++) {
    const [expected, received] = [before[i], after[i]];
    if (expected?.path === received?.path && expected?.type === received?.type) continue;
    const path = expected?.path ?? received?.path;
    const isNumber = expected && /^-?\d/.test(expected.type) && expected.path === received?.path;
    const isWidened =
      expected?.type.startsWith('int32') && expected.type.replace('int32', 'float32') === received?.type;
    const hint = isNumber
      ? '; a number that changes has to be a tensor, such as tf.scalar(0, "int32")'
      : isWidened
        ? '; tfjs takes a plain number for float32: write tf.scalar(1, "int32")'
        : '';
    const found = received?.path === path ? received?.type : 'nothing';
    throw new TypeError(
      `scan: carry ${path || 'itself'}: expected ${expected?.type ?? 'nothing'} as before the step, received ${found}${hint}`,
    );
  }
}

/** Tensors of a tree in order, and a way to put others in their places. */
function tensorsOf(tree: unknown): {
  tensors: tf.Tensor[];
  rebuild: (tensors: readonly tf.Tensor[]) => unknown;
} {
  const tensors: tf.Tensor[] = [];
  const keep = (value: unknown): unknown => value;
  mapTree(tree, { tensor: (tensor) => tensors.push(tensor), weight: keep, plain: keep });
  const rebuild = (others: readonly tf.Tensor[]): unknown => {
    let at = 0;
    return mapTree(tree, { tensor: () => others[at++], weight: keep, plain: keep });
  };
  return { tensors, rebuild };
}

function traceScan<Carry, Output>(
  tracer: Tracer,
  step: (carry: Carry) => ScanStep<Carry, Output>,
  carry: Carry,
  length: number,
  { until }: ScanOptions<Carry>,
): ScanResult<Carry, Output> {
  const before = leafTypes(carry);
  const first = tensorsOf(carry);
  const outer = tracer.builder;
  const inits = first.tensors.map((tensor) => outer.resolve(tracer.valueOf(tensor)));
  const inner = new GraphBuilder(outer);
  tracer.builder = inner;
  try {
    const carried = first.tensors.map((tensor, i) => {
      return tracer.tensorOf(inner.input(inits[i]!.dtype, tensor.shape));
    });
    const result = step(first.rebuild(carried) as Carry);
    checkStep(result);
    checkCarry(before, result.carry);
    const next = tensorsOf(result.carry);
    const output = tensorsOf(result.output);
    const ends = until ? [untilValue(tracer, until(result.carry))] : [];
    const valuesOf = (tensors: readonly tf.Tensor[]): Value[] =>
      tensors.map((tensor) => tracer.valueOf(tensor));
    const body = inner.finish([...valuesOf(next.tensors), ...valuesOf(output.tensors), ...ends]);
    tracer.builder = outer;
    const results = addScan(outer, inner, body, inits, length, ends.length > 0);
    const tensors = results.map((value) => tracer.tensorOf(value));
    return {
      carry: first.rebuild(tensors.slice(0, inits.length)) as Carry,
      outputs: output.rebuild(tensors.slice(inits.length, -1)) as Output,
      steps: tensors.at(-1)!,
    };
  } finally {
    tracer.builder = outer;
  }
}

function addScan(
  outer: GraphBuilder,
  inner: GraphBuilder,
  body: Graph,
  inits: readonly Value[],
  length: number,
  until: boolean,
): Value[] {
  const inputs = [...inits, ...inner.captures];
  return outer.add('Scan', inputs, { length, carry: inits.length, until, body });
}

function untilValue(tracer: Tracer, flag: tf.Tensor): Value {
  if (!(flag instanceof tf.Tensor) || flag.size !== 1) {
    const received = flag instanceof tf.Tensor ? bracket(flag.shape) : `${typeof flag} ${String(flag)}`;
    throw new TypeError(`scan: until: expected a bool scalar tensor, received ${received}`);
  }
  const builder = tracer.builder;
  return builder.cast(builder.reshape(builder.resolve(tracer.valueOf(flag)), []), 'bool');
}

/** The same loop with values: each step's tensors are freed but for the carry and the outputs. */
function runScan<Carry, Output>(
  step: (carry: Carry) => ScanStep<Carry, Output>,
  carry: Carry,
  length: number,
  { until }: ScanOptions<Carry>,
): ScanResult<Carry, Output> {
  const before = leafTypes(carry);
  const callers = tensorsOf(carry).tensors; // not ours to free
  let held = carry;
  let output: unknown;
  const rounds: tf.Tensor[][] = [];
  for (let ended = false; rounds.length < length && !ended; ) {
    const round = runStep(step, held, until);
    checkCarry(before, round.carry);
    disposeExcept(held, [round.carry, callers]);
    ({ carry: held, output, ended } = round);
    rounds.push(tensorsOf(output).tensors);
  }
  if (length === 0) ({ output } = runStep(step, carry, undefined)); // for the outputs' shapes
  const outputs = tensorsOf(output);
  const stacked = outputs.tensors.map((tensor, i) => {
    return stackRows(
      rounds.map((round) => round[i]!),
      length,
      tensor,
    );
  });
  tf.dispose([...rounds.flat(), ...outputs.tensors]);
  return {
    carry: held,
    outputs: outputs.rebuild(stacked) as Output,
    steps: tf.scalar(rounds.length, 'int32'),
  };
}

function runStep<Carry, Output>(
  step: (carry: Carry) => ScanStep<Carry, Output>,
  carry: Carry,
  until: ScanOptions<Carry>['until'],
): { carry: Carry; output: unknown; ended: boolean } {
  // tf.tidy keeps what it finds in the result; its types know fewer trees than it does.
  return tf.tidy(() => {
    const result = step(carry);
    checkStep(result);
    const ended = until ? until(result.carry).dataSync()[0] !== 0 : false;
    const { tensors, rebuild } = tensorsOf(result.output);
    const output = rebuild(tensors.map((tensor) => tf.clone(tensor))); // may be the carry's own
    return { carry: result.carry, output, ended } as tf.TensorContainer;
  }) as { carry: Carry; output: unknown; ended: boolean };
}

function disposeExcept(tree: unknown, kept: unknown): void {
  const keep = new Set(tensorsOf(kept).tensors);
  for (const tensor of tensorsOf(tree).tensors) if (!keep.has(tensor)) tensor.dispose();
}

/** [steps taken, ...] -> [length, ...], the rest 0. `like` has the shape of a row. */
function stackRows(rows: readonly tf.Tensor[], length: number, like: tf.Tensor): tf.Tensor {
  return tf.tidy(() => {
    const missing = length - rows.length;
    const rest = tf.zeros([missing, ...like.shape], like.dtype);
    if (rows.length === 0) return rest;
    const stacked = tf.stack([...rows]);
    return missing > 0 ? tf.concat([stacked, rest], 0) : stacked;
  });
}
