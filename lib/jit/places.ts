// lib/jit/places.ts: where the values of a plan lie: each value's place, the arena's memory, and the constants. Values that
// share memory (Reshape's input and output) have one place: it belongs to their storage, one of these values.

import { Arena } from './arena.js';
import type { ElementValues, Graph, Value } from './graph.js';
import type { Place } from './steps.js';
import { valueBytes } from './steps.js';

export class Places {
  readonly #arena: Arena;
  readonly #places = new Map<Value, Place>(); // by storage
  readonly #storage = new Map<Value, Value>(); // Reshape's output -> the value whose memory it names
  readonly #constants: ElementValues[] = [];

  /** @param alignmentBytes of the arena */
  constructor(alignmentBytes: number | undefined) {
    this.#arena = new Arena(alignmentBytes);
  }

  get constants(): readonly ElementValues[] {
    return this.#constants;
  }

  get arenaBytes(): number {
    return this.#arena.bytes;
  }

  /** Lets a graph's Reshapes share their inputs' memory. */
  shareReshapes(graph: Graph): void {
    for (const node of graph.nodes) {
      if (node.op === 'Reshape') this.#storage.set(node.outputs[0]!, this.storageOf(node.inputs[0]!));
    }
  }

  storageOf(value: Value): Value {
    return this.#storage.get(value) ?? value;
  }

  /** @throws Error if the value has no place yet (names it) */
  of(value: Value): Place {
    const place = this.#places.get(this.storageOf(value));
    if (!place) throw new Error(`plan: %${value.id} is read before it is written`);
    return place;
  }

  has(storage: Value): boolean {
    return this.#places.has(storage);
  }

  set(storage: Value, place: Place): void {
    this.#places.set(storage, place);
  }

  /** Room in the arena. */
  allocate(bytes: number): Place {
    return { space: 'arena', offset: this.#arena.allocate(bytes) };
  }

  /** Gives back what `allocate` gave; nothing where the value lies elsewhere. */
  release(storage: Value): void {
    const place = this.#places.get(storage);
    if (place?.space === 'arena') this.#arena.release(place.offset, valueBytes(storage));
  }

  constant(values: ElementValues): Place {
    const found = this.#constants.indexOf(values);
    const index = found >= 0 ? found : this.#constants.push(values) - 1;
    return { space: 'constant', index };
  }
}
