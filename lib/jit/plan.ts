// lib/jit/plan.ts: graph (kernel level) -> plan: a list of steps whose every operand has its place in memory, decided
// once, so that a target emits code with fixed addresses. Source: linear order with liveness, best-fit reuse.
//
// Four spaces: the caller's buffers (input, output: their addresses change from call to call), the arena (one block,
// reused between values that are not alive together), constants, and Weights read whole as f32. Reshapes share memory.
// Only three operations run in place, always: CacheAppend, ScatterNd (output = first input) and Scan (last carry =
// first carry). Where the old value is still needed, or is an argument that was not donated, the plan copies it first.

import type { Graph, Node, StructuredNode, Value } from './graph.js';
import { isKernelNode } from './graph.js';
import { filledWith, updatedInput } from './inPlace.js';
import { orderMoves } from './moves.js';
import { Places } from './places.js';
import { PlanLevel } from './planLevel.js';
import { type CopyStep, type KernelStep, type Plan, valueBytes } from './steps.js';

/** What a target asks of its plans. */
export interface PlanOptions {
  /** Offsets and sizes in the arena are multiples of it; a cache line if absent. */
  readonly alignmentBytes?: number | undefined;
  /** True where outputs' buffers come full of zeros: then an output that begins as zeros needs no step for them. */
  readonly zeroedOutputs?: boolean | undefined;
}

/**
 * Places every value of a graph.
 * @param graph at the kernel level (see graph.ts)
 * @param donated one flag an input: its memory may be overwritten and handed on as an output
 * @param groups of groupKernels, whose graph this is
 * @throws Error if a Node of the traced level is left (names it)
 */
export function planMemory(
  graph: Graph,
  donated: readonly boolean[] = [],
  groups: ReadonlyMap<Node, number> = new Map(),
  options: PlanOptions = {},
): Plan {
  const planner = new Planner(donated, groups, options);
  return planner.plan(graph);
}

class Planner {
  readonly #places: Places;
  readonly #donated: readonly boolean[];
  readonly #groups: ReadonlyMap<Node, number>;
  readonly #zeroedOutputs: boolean;

  constructor(
    donated: readonly boolean[],
    groups: ReadonlyMap<Node, number>,
    { alignmentBytes, zeroedOutputs = false }: PlanOptions,
  ) {
    this.#places = new Places(alignmentBytes);
    this.#zeroedOutputs = zeroedOutputs;
    this.#donated = donated;
    this.#groups = groups;
  }

  plan(graph: Graph): Plan {
    const level = new PlanLevel(graph, this.#groups, this.#places);
    for (const [index, input] of graph.inputs.entries()) {
      this.#places.set(input, { space: 'input', index });
      if (this.#donated[index]) level.overwritable.add(input);
    }
    for (const [index, output] of graph.outputs.entries())
      level.want(this.#places.storageOf(output), { space: 'output', index });
    this.#placeNodes(level);
    const aliases = this.#deliver(level);
    return {
      graph,
      steps: level.steps,
      constants: this.#places.constants,
      weights: graph.weights,
      inputBytes: graph.inputs.map(valueBytes),
      outputs: graph.outputs.map((value, index) => ({
        dtype: value.dtype,
        shape: value.shape,
        bytes: valueBytes(value),
        alias: aliases[index]!,
        isState: isUpdated(graph, value),
      })),
      arenaBytes: this.#places.arenaBytes,
    };
  }

  /** Copies outputs that could not be written where they belong; says which ones lie in a donated input. */
  #deliver({ graph, steps }: PlanLevel): (number | null)[] {
    const taken = new Set<number>();
    return graph.outputs.map((output, index) => {
      const place = this.#places.of(output);
      if (place.space === 'output' && place.index === index) return null;
      const isOwn = place.space === 'input' && this.#donated[place.index] && !taken.has(place.index);
      if (isOwn) {
        taken.add(place.index);
        return place.index;
      }
      steps.push({ kind: 'copy', from: place, to: { space: 'output', index }, bytes: valueBytes(output) });
      return null;
    });
  }

  #placeNodes(level: PlanLevel): void {
    level.graph.nodes.forEach((node, index) => {
      this.#placeNode(node, index, level);
      level.freeEnded(index);
    });
  }

  #placeNode(node: Node, index: number, level: PlanLevel): void {
    switch (node.op) {
      case 'Reshape':
        return;
      case 'Constant':
        this.#places.set(node.outputs[0]!, this.#places.constant(node.attrs.values));
        return;
      case 'WeightTensor':
        this.#places.set(node.outputs[0]!, { space: 'weight', index: node.attrs.weight });
        return;
      case 'Scan':
        this.#placeScan(node, index, level);
        return;
      default:
        this.#placeKernel(node, index, level);
    }
  }

  #placeKernel(node: Node, index: number, level: PlanLevel): void {
    const kernel = requireKernel(node);
    const updated = updatedInput(kernel, 0);
    if (updated) level.placeOver(kernel.outputs[0]!, updated, index);
    else for (const output of kernel.outputs) level.placeNew(output);
    const outputs = kernel.outputs.map((output) => this.#places.of(output));
    const isThere = this.#zeroedOutputs && outputs[0]?.space === 'output' && Object.is(filledWith(node), 0);
    if (isThere) return; // nothing else has written there: an output's place is asked for by one value
    const inputs = kernel.inputs.map((input, at) =>
      updated && at === 0 ? outputs[0]! : this.#places.of(input),
    );
    const group = this.#groups.get(node);
    level.steps.push({
      kind: 'kernel',
      node: kernel,
      inputs,
      outputs,
      ...(group === undefined ? {} : { group }),
    });
  }

  #placeScan(node: StructuredNode<'Scan'>, index: number, level: PlanLevel): void {
    const { body, carry, until } = node.attrs;
    const carries = node.outputs.slice(0, carry);
    const stacked = node.outputs.slice(carry, -1);
    carries.forEach((value, at) => {
      level.placeOver(value, node.inputs[at]!, index);
    });
    for (const value of stacked) level.placeNew(value);
    const taken = level.placeNew(node.outputs.at(-1)!);

    body.inputs.forEach((input, at) => {
      this.#places.set(input, this.#places.of(at < carry ? carries[at]! : node.inputs[at]!));
    });
    const inner = new PlanLevel(body, this.#groups, this.#places);
    for (const input of body.inputs.slice(0, carry)) inner.overwritable.add(input);
    this.#placeNodes(inner);

    const copies = stacked.map((value, at) => {
      const from = body.outputs[carry + at]!;
      return { from: this.#places.of(from), to: this.#places.of(value), bytes: valueBytes(from) };
    });
    const moves = this.#carryMoves(body.outputs.slice(0, carry), carries, inner);
    level.steps.push({
      kind: 'scan',
      node,
      steps: inner.steps,
      outputs: copies,
      carries: moves,
      until: until ? this.#places.of(body.outputs.at(-1)!) : null,
      taken,
    });
    inner.freeAll();
  }

  /** Copies from next carries to carries; a value that has to step aside gets room in the arena. */
  #carryMoves(from: readonly Value[], to: readonly Value[], level: PlanLevel): CopyStep[] {
    const moves = from.map((value, at): CopyStep => {
      const bytes = valueBytes(value);
      return { kind: 'copy', from: this.#places.of(value), to: this.#places.of(to[at]!), bytes };
    });
    return orderMoves(moves, (bytes) => level.placeAside(bytes));
  }
}

/** True for a value that an operation wrote over its old one. */
function isUpdated(graph: Graph, value: Value): boolean {
  const node = graph.nodes.find(({ outputs }) => outputs.includes(value));
  return node !== undefined && updatedInput(node, node.outputs.indexOf(value)) !== undefined;
}

function requireKernel(node: Node): KernelStep['node'] {
  if (!isKernelNode(node) || node.op === 'Scan' || node.op === 'WeightTensor')
    throw new Error(`plan: ${node.op} is not a kernel; run the pass fuseElementwise on the graph first`);
  return node;
}
