// lib/jit/planLevel.ts: one level of a graph while plan.ts places its Nodes (the graph itself, or a Scan's body): gives
// values their memory, takes it back, and collects the steps.

import type { Graph, Node, Value } from './graph.js';
import { updatedInput } from './inPlace.js';
import { Liveness } from './liveness.js';
import type { Places } from './places.js';
import { elementBytes, type Place, type Step, valueBytes } from './steps.js';

export class PlanLevel {
  readonly steps: Step[] = [];
  /** Values whose memory may be overwritten after their last use. */
  readonly overwritable = new Set<Value>();
  /** Where an output should be written, if it is free to choose. */
  readonly #wanted = new Map<Value, Place>();
  /** Values in the arena whose memory this level gives back after their last use. */
  readonly #releasable = new Set<Value>();
  readonly #liveness: Liveness;

  constructor(
    readonly graph: Graph,
    readonly groups: ReadonlyMap<Node, number>,
    readonly places: Places,
  ) {
    places.shareReshapes(graph);
    this.#liveness = new Liveness(graph, groups, (value) => places.storageOf(value));
  }

  /**
   * Asks for the place of what has none yet, and for what is updated in place to become it: else that would be copied
   * there. Who asks first gets it.
   */
  want(storage: Value, place: Place): void {
    if (this.#wanted.has(storage) || this.places.has(storage)) return;
    this.#wanted.set(storage, place);
    const { nodes } = this.graph;
    const at = nodes.findIndex((node) => node.outputs.includes(storage));
    const node = nodes[at];
    const updated = node && updatedInput(node, node.outputs.indexOf(storage));
    const base = updated && this.places.storageOf(updated);
    if (base && this.#liveness.endsAt(base, at)) this.want(base, place);
  }

  /** Gives a value memory of its own: where it is wanted, or in the arena. */
  placeNew(value: Value): Place {
    const place = this.#wanted.get(value) ?? this.#allocate(value);
    this.overwritable.add(value);
    this.places.set(value, place);
    return place;
  }

  /**
   * Gives `output` the memory of `input`, or a copy of it where the input's memory may not be overwritten.
   * @param index of the Node that updates it
   */
  placeOver(output: Value, input: Value, index: number): void {
    const storage = this.places.storageOf(input);
    const place = this.places.of(input);
    if (this.overwritable.has(storage) && this.#liveness.isReadLastBy(storage, index)) {
      this.overwritable.add(output);
      if (this.#releasable.delete(storage)) this.#releasable.add(output);
      this.places.set(output, place);
      return;
    }
    const to = this.placeNew(output);
    const copy: Step = { kind: 'copy', from: place, to, bytes: valueBytes(output) };
    this.steps.splice(this.#groupBegin(this.graph.nodes[index]!), 0, copy);
  }

  /** Room for a value that steps aside, until `freeAll`. */
  placeAside(bytes: number): Place {
    const aside: Value = { id: -1, dtype: 'i32', shape: [bytes / elementBytes] };
    const place = this.#allocate(aside);
    this.places.set(aside, place);
    return place;
  }

  /** Gives back what nothing needs any more once a Node has run. */
  freeEnded(index: number): void {
    for (const storage of this.#liveness.endedBy(index)) this.#free(storage);
  }

  freeAll(): void {
    for (const storage of [...this.#releasable]) this.#free(storage);
  }

  #allocate(value: Value): Place {
    this.#releasable.add(value);
    return this.places.allocate(valueBytes(value));
  }

  #free(storage: Value): void {
    if (this.#releasable.delete(storage)) this.places.release(storage);
  }

  /** Number of the step that a Node's group begins with; where there is none, of the next step. */
  #groupBegin(node: Node): number {
    const group = this.groups.get(node);
    const isGroup = (step: Step): boolean => step.kind === 'kernel' && step.group === group;
    const at = group === undefined ? -1 : this.steps.findIndex(isGroup);
    return at < 0 ? this.steps.length : at;
  }
}
