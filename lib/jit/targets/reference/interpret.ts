// lib/jit/targets/reference/interpret.ts: graph, values of its inputs, Weights -> values of its outputs, one Node after
// another, each in fresh memory. Works on both levels of graph.ts.

import type { Weight } from '../../../tensor.js';
import type {
  Attributes,
  ElementValues,
  Graph,
  Node,
  StructuredNode,
  StructuredOp,
  Value,
} from '../../graph.js';
import { broadcastView, isScalarNode } from '../../graph.js';
import { scalarFunction } from '../../scalar.js';
import { kernels } from './kernels.js';
import type { Kernel, Tensor } from './tensors.js';
import { emptyTensor, forEachIndex } from './tensors.js';

export interface InterpretOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told the stacked outputs of each round of a Scan as it ends. */
  readonly onRound?: ((round: number, outputs: readonly ElementValues[]) => void) | undefined;
  /** Told how long a Node took, in milliseconds. */
  readonly onNode?: ((node: Node, ms: number) => void) | undefined;
}

/**
 * Runs a graph.
 * @param inputs one tensor a graph input
 * @returns one tensor a graph output; memory may be shared with inputs and constants
 */
export function interpret(
  graph: Graph,
  inputs: readonly Tensor[],
  weights: readonly Weight[],
  options: InterpretOptions = {},
): Tensor[] {
  const steps = interpretByRounds(graph, inputs, weights, options);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** The same, pausing after each round of the outermost loops, so that the caller can let other work run. */
export function* interpretByRounds(
  graph: Graph,
  inputs: readonly Tensor[],
  weights: readonly Weight[],
  options: InterpretOptions = {},
): Generator<void, Tensor[]> {
  const tensors = new Map<Value, Tensor>();
  for (const [i, input] of graph.inputs.entries()) tensors.set(input, inputs[i]!);
  for (const node of graph.nodes) {
    options.signal?.throwIfAborted();
    const operands = node.inputs.map((input) => tensors.get(input)!);
    const started = performance.now();
    const results =
      node.op === 'Scan'
        ? yield* runScan(node, operands, weights, options)
        : runNode(node, operands, weights);
    options.onNode?.(node, performance.now() - started);
    for (const [i, output] of node.outputs.entries()) tensors.set(output, results[i]!);
  }
  return graph.outputs.map((output) => tensors.get(output)!);
}

/** Computes the outputs of any Node but a Scan. */
export function runNode(node: Node, inputs: readonly Tensor[], weights: readonly Weight[]): Tensor[] {
  const outputs = node.outputs.map(({ dtype, shape }) => emptyTensor(dtype, shape));
  if (isScalarNode(node)) runScalar(node.op, inputs, outputs[0]!);
  else if (node.op === 'Scan') throw new Error('runNode: a Scan is run by interpret');
  else runKernel(node, inputs, outputs, weights);
  return outputs;
}

function runKernel(
  node: Exclude<StructuredNode, StructuredNode<'Scan'>>,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  weights: readonly Weight[],
): void {
  // A kernel and its attributes belong together by construction; TypeScript loses the link across the union.
  const kernel = kernels[node.op] as Kernel<StructuredOp>;
  kernel(node.attrs as Attributes[StructuredOp], inputs, outputs, weights);
}

function runScalar(
  op: Parameters<typeof scalarFunction>[0],
  inputs: readonly Tensor[],
  output: Tensor,
): void {
  const compute = scalarFunction(op, inputs.at(-1)!.dtype, output.dtype);
  const views = inputs.map((input) => broadcastView(input.shape, output.shape));
  forEachIndex(output.shape, views, (at, [a, b, c]) => {
    output.values[at] = compute(
      inputs[0]!.values[a!]!,
      inputs[1]?.values[b!] ?? 0,
      inputs[2]?.values[c!] ?? 0,
    );
  });
}

function* runScan(
  { attrs: { length, carry, until, body }, outputs: types }: StructuredNode<'Scan'>,
  inputs: readonly Tensor[],
  weights: readonly Weight[],
  options: InterpretOptions,
): Generator<void, Tensor[]> {
  const captured = inputs.slice(carry);
  const stacked = types.slice(carry, -1).map(({ dtype, shape }) => emptyTensor(dtype, shape));
  let carried = inputs.slice(0, carry);
  let round = 0;
  for (let ended = false; round < length && !ended; round++) {
    // Only the outermost loop reports its rounds.
    const results = interpret(body, [...carried, ...captured], weights, { ...options, onRound: undefined });
    carried = results.slice(0, carry);
    const outputs = stacked.map((_, i) => results[carry + i]!.values);
    for (const [i, values] of outputs.entries())
      stacked[i]!.values.set(values as Float32Array, round * values.length);
    options.onRound?.(
      round,
      outputs.map((values) => values.slice()),
    );
    ended = until && results.at(-1)!.values[0] === 1;
    yield;
  }
  return [...carried, ...stacked, { dtype: 'i32', shape: [], values: Int32Array.of(round) }];
}
