// lib/jit/trace.ts: an ordinary tfjs function and the types of its arguments -> the Graph of what it calls. A tfjs
// backend named `trace` hands out tensors without values and records each kernel that runs on them.
// Source: tfjs's own extension points, registerBackend and registerKernel.

import * as tf from '@tensorflow/tfjs-core';
import type { Weight } from '../tensor.js';
import { GraphBuilder } from './build.js';
import { callSite, Origin } from './callSite.js';
import type { ElementType, ElementValues, Graph, Value } from './graph.js';
import { formatOf } from './graph.js';
import type { KernelInputs, Lowering } from './lower/lowering.js';
import { elementType } from './lower/lowering.js';
import { runNode } from './targets/reference/interpret.js';
import type { Tensor } from './targets/reference/tensors.js';
import type { Recorder } from './traceBackend.js';
import { withRecorder } from './traceBackend.js';
import { describeWeight, mapTree } from './trees.js';
import { refuseAssign } from './variables.js';

/** A traced function: its graph, and its result as a tree in which each tensor is the number of a graph output. */
export interface Traced {
  readonly graph: Graph;
  /** Rebuilds the result from one tensor a graph output and the Weights of this call's arguments. */
  readonly result: (tensors: readonly tf.Tensor[], weights: readonly Weight[]) => unknown;
  /** Constants made while tracing, with where they were made: what check mode compares. */
  readonly constants: readonly { readonly values: ElementValues; readonly origin: Origin }[];
}

/** What an operation needs to know while a function is being traced. */
export class Tracer implements Recorder {
  builder: GraphBuilder;
  readonly root: GraphBuilder;
  readonly constants: { values: ElementValues; origin: Origin }[] = [];
  readonly #values = new Map<object, Value>(); // by tfjs data id
  #failedRead: Error | undefined;
  /** Of the kernel that is being lowered. */
  #origin: Origin | undefined;

  constructor() {
    this.root = new GraphBuilder(undefined, () => this.#origin);
    this.builder = this.root;
  }

  /** The error of a read that was tried, if any: it may hide in a Promise. */
  get failedRead(): Error | undefined {
    return this.#failedRead;
  }

  /** A tfjs tensor that stands for a Value. */
  tensorOf(value: Value): tf.Tensor {
    return tf.engine().makeTensorFromTensorInfo(this.infoOf(value));
  }

  infoOf(value: Value): tf.TensorInfo {
    const dataId = {};
    this.#values.set(dataId, value);
    return { dataId, shape: [...value.shape], dtype: tfDType(value.dtype) };
  }

  /** The Value behind a tensor; a tensor made outside becomes a constant. */
  valueOf(info: tf.TensorInfo): Value {
    const known = this.#values.get(info.dataId);
    if (known) return known;
    const value = this.root.constant(capturedValues(info), elementType(info.dtype), info.shape);
    this.#values.set(info.dataId, value);
    return value;
  }

  /** tfjs makes a tensor from numbers: a constant. */
  write(values: tf.BackendValues | null, shape: readonly number[], dtype: tf.DataType): object {
    const dataId = {};
    const type = elementType(dtype);
    const numbers = elementValues(values ?? new Float32Array(tf.util.sizeFromShape([...shape])), type);
    this.constants.push({ values: numbers, origin: new Origin() });
    this.#values.set(dataId, this.builder.constant(numbers, type, shape));
    return dataId;
  }

  run(
    name: string,
    lower: Lowering,
    inputs: tf.NamedTensorInfoMap,
    attrs: unknown,
  ): tf.TensorInfo | tf.TensorInfo[] {
    // Absent optional inputs are null or undefined.
    const present = Object.entries(inputs).filter(([, info]) => info) as [string, tf.TensorInfo][];
    this.#origin = new Origin();
    try {
      const entries = present.map(([key, info]): [string, Value] => [
        key,
        this.builder.resolve(this.valueOf(info)),
      ]);
      const all = entries.map(([, value]) => value);
      const outputs = lower(this.builder, kernelInputs(entries, all), attrs);
      return Array.isArray(outputs) ? outputs.map((each) => this.infoOf(each)) : this.infoOf(outputs);
    } catch (error) {
      throw atCallSite(error as Error, name);
    }
  }

  /** Values that depend on constants alone; anything else cannot be read while tracing. */
  read(dataId: object): ElementValues {
    const value = this.#values.get(dataId);
    const constant = value && this.#constantValues(value);
    if (constant) return constant;
    const producer = value && this.builder.producerOf(value);
    const what = producer ? `the result of ${producer.op}` : 'an argument';
    const made = producer?.source ? ` (made at ${producer.source})` : '';
    const { source } = callSite();
    this.#failedRead = new Error(
      `jit: ${what}${made} was read at ${source ?? 'an unknown line'}: a traced tensor has no values yet. ` +
        'Compute on tensors only (tf.where instead of if, scan instead of a loop that looks at values), ' +
        'or read it after the compiled function has returned',
    );
    throw this.#failedRead;
  }

  #constantValues(value: Value): ElementValues | undefined {
    const node = this.builder.producerOf(value);
    if (!node || node.op === 'Scan' || node.op === 'WeightTensor') return undefined;
    const inputs = node.inputs.map((input) => ({ ...input, values: this.#constantValues(input) }));
    const known = inputs.filter((input): input is Tensor & Value => input.values !== undefined);
    if (known.length < inputs.length) return undefined;
    return runNode(node, known, [])[node.outputs.indexOf(value)]?.values;
  }

  forget(dataId: object): void {
    this.#values.delete(dataId);
  }
}

let active: Tracer | undefined;

/** The trace that is going on, if any. */
export function activeTracer(): Tracer | undefined {
  return active;
}

/**
 * Traces a function.
 * @param args its arguments; of tensors only shape and type are looked at, of Weights the format
 * @throws Error if it returns a Promise, reads a traced tensor, or calls an operation that has no lowering
 */
export function traceFunction(fn: (...args: never[]) => unknown, args: readonly unknown[]): Traced {
  if (active)
    throw new Error('jit: a compiled function was called while another is traced; call the plain one');
  const tracer = new Tracer();
  active = tracer;
  const allowAssign = refuseAssign();
  try {
    let traced: Traced | undefined;
    withRecorder(tracer, () =>
      tf.tidy(() => {
        traced = runTraced(tracer, fn, args);
      }),
    );
    return traced!;
  } finally {
    active = undefined;
    allowAssign();
  }
}

function runTraced(tracer: Tracer, fn: (...args: never[]) => unknown, args: readonly unknown[]): Traced {
  const { root } = tracer;
  const weightOrder = new Map<unknown, number>();
  const abstract = mapTree(args, {
    tensor: ({ dtype, shape }) => tracer.tensorOf(root.input(elementType(dtype), [...shape])),
    weight: (weight, path) => {
      const standIn = abstractWeight(weight, path);
      weightOrder.set(standIn, root.addWeight(standIn, { format: formatOf(weight), path }));
      return standIn;
    },
    plain: (value) => value,
  }) as never[];
  const result = fn(...abstract);
  if (result instanceof Promise) {
    result.catch(() => {});
    const why = tracer.failedRead ? `\n${tracer.failedRead.message}` : '';
    throw new Error(`jit: the function returned a Promise; a traced function has to be synchronous${why}`);
  }
  if (tracer.failedRead) throw tracer.failedRead; // of data(), or caught by the function
  return { ...finish(tracer, result, weightOrder), constants: tracer.constants };
}

function finish(
  tracer: Tracer,
  result: unknown,
  weightOrder: ReadonlyMap<unknown, number>,
): Omit<Traced, 'constants'> {
  const outputs: Value[] = [];
  const numbered = mapTree(result, {
    tensor: (tensor) => new OutputNumber(outputs.push(tracer.valueOf(tensor)) - 1),
    weight: (weight) => new WeightNumber(weightOrder.get(weight) ?? -1, weight),
    plain: (value) => value,
  });
  return {
    graph: tracer.root.finish(outputs),
    result: (tensors, weights) => renumber(numbered, tensors, weights),
  };
}

function kernelInputs(entries: readonly [string, Value][], all: readonly Value[]): KernelInputs {
  // Which names are there is the kernel's contract with tfjs's operation.
  return { ...Object.fromEntries(entries), all } as unknown as KernelInputs;
}

/** Stand for a tensor or Weight in the tree of the result. */
class OutputNumber {
  constructor(readonly index: number) {}
}
class WeightNumber {
  constructor(
    readonly index: number,
    readonly captured: Weight,
  ) {}
}

function renumber(tree: unknown, tensors: readonly tf.Tensor[], weights: readonly Weight[]): unknown {
  if (tree instanceof OutputNumber) return tensors[tree.index];
  if (tree instanceof WeightNumber) return weights[tree.index] ?? tree.captured;
  if (Array.isArray(tree)) return tree.map((each) => renumber(each, tensors, weights));
  if (typeof tree !== 'object' || tree === null) return tree;
  return Object.fromEntries(
    Object.entries(tree).map(([name, value]) => [name, renumber(value, tensors, weights)]),
  );
}

/** A Weight's format without its bytes: reading them while tracing would bake them in. */
function abstractWeight(weight: Weight, path: string): Weight {
  const refuse = (): never => {
    throw new Error(
      `jit: the bytes of ${path} (${describeWeight(weight)}) were read while tracing; ` +
        'use linear, unembed, embed or vector of ops.ts, which compiled code can do',
    );
  };
  const standIn = { ...formatOf(weight) };
  for (const name of ['bytes', 'scales'])
    Object.defineProperty(standIn, name, { get: refuse, enumerable: true });
  return standIn as unknown as Weight; // bytes and scales were just defined
}

/** Makes a failure in a lowering say which operation of the user's it was. */
function atCallSite(error: Error, kernel: string): Error {
  const { op, source } = callSite();
  const where = source ? ` at ${source}` : '';
  const called = op && op !== kernel ? `${op} (${kernel})` : kernel;
  error.message = `jit: ${called}${where}: ${error.message}`;
  return error;
}

function capturedValues(info: tf.TensorInfo): ElementValues {
  return elementValues(tf.engine().readSync(info.dataId as tf.DataId), elementType(info.dtype));
}

/** A copy of tfjs's numbers in the graph's types: bool as Int32Array. */
export function elementValues(values: tf.BackendValues, dtype: ElementType): ElementValues {
  const numbers = values as Float32Array | Int32Array | Uint8Array;
  return dtype === 'f32' ? Float32Array.from(numbers) : Int32Array.from(numbers);
}

/** tfjs's name of an element type. */
export function tfDType(dtype: ElementType): 'float32' | 'int32' | 'bool' {
  return dtype === 'f32' ? 'float32' : dtype === 'i32' ? 'int32' : 'bool';
}
