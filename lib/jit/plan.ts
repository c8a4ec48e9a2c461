// lib/jit/plan.ts: graph (kernel level) -> plan: a list of steps whose every operand has its place in memory, decided
// once, so that a target emits code with fixed addresses. Source: linear order with liveness, best-fit reuse.
//
// Four spaces: the caller's buffers (input, output: their addresses change from call to call), the arena (one block,
// reused between values that are not alive together), constants, and Weights read whole as f32. Reshapes share memory.
// Only three operations run in place, always: CacheAppend, ScatterNd (output = first input) and Scan (last carry =
// first carry). Where the old value is still needed, or is an argument that was not donated, the plan copies it first.

import { Arena } from './arena.js';
import type { ElementValues, Graph, Node, StructuredNode, Value } from './graph.js';
import { isKernelNode } from './graph.js';
import { filledWith, updatedInput } from './inPlace.js';
import { orderMoves } from './moves.js';
import {
  type CopyStep,
  elementBytes,
  type KernelStep,
  type Place,
  type Plan,
  type Step,
  valueBytes,
} from './steps.js';

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

interface Span {
  readonly first: number;
  readonly last: number;
}

/** What is known of one graph while its nodes are placed: the root or a Scan's body. */
interface Level {
  /** Index of the last node that reads the memory; Infinity for the graph's outputs and for what belongs outside. */
  readonly lastUse: Map<Value, number>;
  /** For each node the first and last one of its group: itself, if it is in none. */
  readonly spans: readonly Span[];
  readonly nodes: readonly Node[];
  /** Values whose memory may be overwritten after their last use. */
  readonly overwritable: Set<Value>;
  /** Values in the arena whose memory this level gives back after their last use. */
  readonly releasable: Set<Value>;
  /** Where an output should be written, if it is free to choose. */
  readonly wanted: Map<Value, Place>;
  readonly steps: Step[];
}

class Planner {
  readonly #arena: Arena;
  readonly #places = new Map<Value, Place>(); // by storage
  readonly #storage = new Map<Value, Value>(); // Reshape's output -> the value whose memory it names
  readonly #constants: ElementValues[] = [];
  readonly #donated: readonly boolean[];
  readonly #groups: ReadonlyMap<Node, number>;
  readonly #zeroedOutputs: boolean;

  constructor(
    donated: readonly boolean[],
    groups: ReadonlyMap<Node, number>,
    { alignmentBytes, zeroedOutputs = false }: PlanOptions,
  ) {
    this.#arena = new Arena(alignmentBytes);
    this.#zeroedOutputs = zeroedOutputs;
    this.#donated = donated;
    this.#groups = groups;
  }

  plan(graph: Graph): Plan {
    const level = this.#level(graph);
    for (const [index, input] of graph.inputs.entries()) {
      this.#places.set(input, { space: 'input', index });
      if (this.#donated[index]) level.overwritable.add(input);
    }
    const outputs = graph.outputs.map((output) => this.#storageOf(output));
    outputs.forEach((storage, index) => {
      if (!level.wanted.has(storage) && !this.#places.has(storage))
        this.#want(storage, { space: 'output', index }, graph, level);
    });
    this.#placeNodes(graph, level);
    const aliases = this.#deliver(graph, level);
    return {
      graph,
      steps: level.steps,
      constants: this.#constants,
      weights: graph.weights,
      inputBytes: graph.inputs.map(valueBytes),
      outputs: graph.outputs.map((value, index) => ({
        dtype: value.dtype,
        shape: value.shape,
        bytes: valueBytes(value),
        alias: aliases[index]!,
        isState: isUpdated(graph, value),
      })),
      arenaBytes: this.#arena.bytes,
    };
  }

  /** Asks for a value's place, and for what is updated in place to become it: else that would be copied there. */
  #want(storage: Value, place: Place, graph: Graph, level: Level): void {
    level.wanted.set(storage, place);
    const at = graph.nodes.findIndex((node) => node.outputs.includes(storage));
    const node = graph.nodes[at];
    const updated = node && updatedInput(node, node.outputs.indexOf(storage));
    const base = updated && this.#storageOf(updated);
    if (base && level.lastUse.get(base) === at && !level.wanted.has(base) && !this.#places.has(base))
      this.#want(base, place, graph, level);
  }

  /** Copies outputs that could not be written where they belong; says which ones lie in a donated input. */
  #deliver(graph: Graph, level: Level): (number | null)[] {
    const taken = new Set<number>();
    return graph.outputs.map((output, index) => {
      const place = this.#placeOf(output);
      if (place.space === 'output' && place.index === index) return null;
      const isOwn = place.space === 'input' && this.#donated[place.index] && !taken.has(place.index);
      if (isOwn) {
        taken.add(place.index);
        return place.index;
      }
      level.steps.push({
        kind: 'copy',
        from: place,
        to: { space: 'output', index },
        bytes: valueBytes(output),
      });
      return null;
    });
  }

  #storageOf(value: Value): Value {
    return this.#storage.get(value) ?? value;
  }

  #placeOf(value: Value): Place {
    const place = this.#places.get(this.#storageOf(value));
    if (!place) throw new Error(`plan: %${value.id} is read before it is written`);
    return place;
  }

  #level(graph: Graph): Level {
    for (const node of graph.nodes) {
      if (node.op === 'Reshape') this.#storage.set(node.outputs[0]!, this.#storageOf(node.inputs[0]!));
    }
    const lastUse = new Map<Value, number>();
    graph.nodes.forEach((node, index) => {
      for (const input of node.inputs) lastUse.set(this.#storageOf(input), index);
    });
    for (const output of graph.outputs) lastUse.set(this.#storageOf(output), Number.POSITIVE_INFINITY);
    const spans = this.#spans(graph);
    const { nodes } = graph;
    return {
      lastUse,
      spans,
      nodes,
      overwritable: new Set(),
      releasable: new Set(),
      wanted: new Map(),
      steps: [],
    };
  }

  #placeNodes(graph: Graph, level: Level): void {
    graph.nodes.forEach((node, index) => {
      this.#placeNode(node, index, level);
      const { first, last } = level.spans[index]!;
      if (index < last) return; // a group's steps may run at the same time: what they use lives until all have run
      const used = graph.nodes.slice(first, last + 1).flatMap((each) => [...each.inputs, ...each.outputs]);
      for (const value of new Set(used.map((each) => this.#storageOf(each)))) {
        if ((level.lastUse.get(value) ?? -1) <= index) this.#free(value, level);
      }
    });
  }

  #spans(graph: Graph): Span[] {
    const spans: Span[] = [];
    for (let first = 0; first < graph.nodes.length; ) {
      const group = this.#groups.get(graph.nodes[first]!);
      let last = first;
      while (
        group !== undefined &&
        graph.nodes[last + 1] &&
        this.#groups.get(graph.nodes[last + 1]!) === group
      )
        last++;
      for (; spans.length <= last; ) spans.push({ first, last });
      first = last + 1;
    }
    return spans;
  }

  #free(value: Value, level: Level): void {
    const place = this.#places.get(value);
    if (place?.space !== 'arena' || !level.releasable.delete(value)) return;
    this.#arena.release(place.offset, valueBytes(value));
  }

  #placeNode(node: Node, index: number, level: Level): void {
    switch (node.op) {
      case 'Reshape':
        return;
      case 'Constant':
        this.#places.set(node.outputs[0]!, {
          space: 'constant',
          index: this.#constantIndex(node.attrs.values),
        });
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

  #placeKernel(node: Node, index: number, level: Level): void {
    const kernel = requireKernel(node);
    const updated = updatedInput(kernel, 0);
    if (updated) this.#placeOver(kernel.outputs[0]!, updated, kernel, index, level);
    else for (const output of kernel.outputs) this.#placeNew(output, level);
    const outputs = kernel.outputs.map((output) => this.#placeOf(output));
    const isThere = this.#zeroedOutputs && outputs[0]?.space === 'output' && Object.is(filledWith(node), 0);
    if (isThere) return; // nothing else has written there: an output's place is asked for by one value
    const inputs = kernel.inputs.map((input, at) =>
      updated && at === 0 ? outputs[0]! : this.#placeOf(input),
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

  #placeNew(value: Value, level: Level): Place {
    const place = level.wanted.get(value) ?? this.#allocate(value, level);
    level.overwritable.add(value);
    this.#places.set(value, place);
    return place;
  }

  #allocate(value: Value, level: Level): Place {
    level.releasable.add(value);
    return { space: 'arena', offset: this.#arena.allocate(valueBytes(value)) };
  }

  /** Gives `output` the memory of `input`, or a copy of it where the input's memory may not be overwritten. */
  #placeOver(output: Value, input: Value, node: Node, index: number, level: Level): void {
    const storage = this.#storageOf(input);
    const place = this.#placeOf(input);
    const { first, last } = level.spans[index]!;
    const nodes = level.nodes.slice(first, last + 1); // run at the same time, so none of them may need the old value
    const readers = nodes
      .flatMap((each) => each.inputs)
      .filter((each) => this.#storageOf(each) === storage).length;
    const isLast = level.lastUse.get(storage) === index && readers === 1;
    if (isLast && level.overwritable.has(storage)) {
      level.overwritable.add(output);
      if (level.releasable.delete(storage)) level.releasable.add(output);
      this.#places.set(output, place);
      return;
    }
    const to = this.#placeNew(output, level);
    const group = this.#groups.get(node);
    const isGroup = (step: Step): boolean => step.kind === 'kernel' && step.group === group;
    const at = group === undefined ? -1 : level.steps.findIndex(isGroup);
    level.steps.splice(at < 0 ? level.steps.length : at, 0, {
      kind: 'copy',
      from: place,
      to,
      bytes: valueBytes(output),
    });
  }

  #placeScan(node: StructuredNode<'Scan'>, index: number, level: Level): void {
    const { body, carry, until } = node.attrs;
    const carries = node.outputs.slice(0, carry);
    const stacked = node.outputs.slice(carry, -1);
    carries.forEach((value, at) => {
      this.#placeOver(value, node.inputs[at]!, node, index, level);
    });
    for (const value of stacked) this.#placeNew(value, level);
    const taken = this.#placeNew(node.outputs.at(-1)!, level);

    body.inputs.forEach((input, at) => {
      this.#places.set(input, this.#placeOf(at < carry ? carries[at]! : node.inputs[at]!));
    });
    const inner = this.#level(body);
    for (const input of body.inputs.slice(0, carry)) inner.overwritable.add(input);
    this.#placeNodes(body, inner);

    const copies = stacked.map((value, at) => {
      const from = body.outputs[carry + at]!;
      return { from: this.#placeOf(from), to: this.#placeOf(value), bytes: valueBytes(from) };
    });
    const moves = this.#carryMoves(body.outputs.slice(0, carry), carries, inner);
    level.steps.push({
      kind: 'scan',
      node,
      steps: inner.steps,
      outputs: copies,
      carries: moves,
      until: until ? this.#placeOf(body.outputs.at(-1)!) : null,
      taken,
    });
    for (const value of [...inner.releasable]) this.#free(value, inner);
  }

  /** Copies from next carries to carries; a value that has to step aside gets room in the arena. */
  #carryMoves(from: readonly Value[], to: readonly Value[], level: Level): CopyStep[] {
    const moves = from.map((value, at): CopyStep => {
      const bytes = valueBytes(value);
      return { kind: 'copy', from: this.#placeOf(value), to: this.#placeOf(to[at]!), bytes };
    });
    return orderMoves(moves, (bytes) => {
      const aside: Place = { space: 'arena', offset: this.#arena.allocate(bytes) };
      level.releasable.add(this.#placeholder(aside, bytes));
      return aside;
    });
  }

  #placeholder(place: Place, bytes: number): Value {
    const value: Value = { id: -1, dtype: 'i32', shape: [bytes / elementBytes] };
    this.#places.set(value, place);
    return value;
  }

  #constantIndex(values: ElementValues): number {
    const found = this.#constants.indexOf(values);
    return found >= 0 ? found : this.#constants.push(values) - 1;
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
