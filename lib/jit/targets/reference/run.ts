// lib/jit/targets/reference/run.ts: the target `reference`: the slow interpreter behind the interface of target.ts. The
// oracle for every other target.

import type { Weight } from '../../../tensor.js';
import { weightBytes } from '../../../tensor.js';
import type { ElementType, ElementValues, Node } from '../../graph.js';
import type { Plan, Step } from '../../steps.js';
import { elementBytes } from '../../steps.js';
import type { BoundWeight, Executable, RunOptions, RunReport, Target, TargetBuffer } from '../../target.js';
import { interpretByRounds } from './interpret.js';
import type { Tensor } from './tensors.js';

interface ArrayBufferOf extends TargetBuffer {
  readonly memory: ArrayBuffer;
}

interface HeldWeight extends BoundWeight {
  readonly weight: Weight;
}

class ReferenceTarget implements Target {
  readonly name = 'reference';
  #bufferBytes = 0;
  #weightBytes = 0;

  async compile(plan: Plan): Promise<Executable> {
    return new ReferenceProgram(plan);
  }

  bind(weight: Weight): BoundWeight {
    const bytes = weightBytes(weight);
    this.#weightBytes += bytes;
    const held: HeldWeight = { bytes, weight: { ...weight } };
    return held;
  }

  unbind(weight: BoundWeight): void {
    this.#weightBytes -= weight.bytes;
  }

  allocate(bytes: number): TargetBuffer {
    this.#bufferBytes += bytes;
    const buffer: ArrayBufferOf = { bytes, memory: new ArrayBuffer(bytes) };
    return buffer;
  }

  release(buffer: TargetBuffer): void {
    this.#bufferBytes -= buffer.bytes;
  }

  write(buffer: TargetBuffer, values: ElementValues): void {
    valuesIn(buffer, values instanceof Float32Array ? 'f32' : 'i32').set(values as Float32Array);
  }

  read(buffer: TargetBuffer, dtype: ElementType): ElementValues {
    return valuesIn(buffer, dtype).slice();
  }

  memory(): { weightBytes: number; bufferBytes: number; arenaBytes: number } {
    return { weightBytes: this.#weightBytes, bufferBytes: this.#bufferBytes, arenaBytes: 0 };
  }

  async dispose(): Promise<void> {}
}

class ReferenceProgram implements Executable {
  readonly codeBytes = 0;
  readonly #plan: Plan;

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  async run(
    inputs: readonly TargetBuffer[],
    weights: readonly BoundWeight[],
    outputs: readonly TargetBuffer[],
    options: RunOptions = {},
  ): Promise<RunReport> {
    const { graph, steps } = this.#plan;
    const nodeMs = new Map<Node, number>();
    const started = performance.now();
    const rounds = interpretByRounds(
      graph,
      graph.inputs.map(
        ({ dtype, shape }, i): Tensor => ({ dtype, shape, values: valuesIn(inputs[i]!, dtype) }),
      ),
      weights.map((bound) => (bound as HeldWeight).weight),
      {
        signal: options.signal,
        onRound: options.onRound,
        onNode: options.profile
          ? (node, ms) => void nodeMs.set(node, (nodeMs.get(node) ?? 0) + ms)
          : undefined,
      },
    );
    let round = rounds.next();
    for (; !round.done; round = rounds.next()) {
      await new Promise((resolve) => setImmediate(resolve)); // signals and listeners get their turn
      options.signal?.throwIfAborted();
    }
    const results = round.value;
    // All are copied before any is written: an output may lie in a donated input that another one still reads.
    const copies = results.map((result) => result.values.slice());
    for (const [i, values] of copies.entries())
      valuesIn(outputs[i]!, results[i]!.dtype).set(values as Float32Array);
    const runMs = performance.now() - started;
    const report = { runMs, hostCalls: 0, threads: 1 };
    return options.profile ? { ...report, stepMs: stepTimes(steps, nodeMs) } : report;
  }

  listing(): string {
    return '(the reference target interprets the graph: no code)';
  }

  dispose(): void {}
}

/** Depth first, a Scan's own steps after it; copies take no time of their own here. */
function stepTimes(steps: readonly Step[], nodeMs: ReadonlyMap<Node, number>): Float64Array {
  const times: number[] = [];
  const visit = (step: Step): void => {
    times.push(step.kind === 'copy' ? 0 : (nodeMs.get(step.node) ?? 0));
    if (step.kind === 'scan') step.steps.forEach(visit);
  };
  steps.forEach(visit);
  return Float64Array.from(times);
}

function valuesIn(buffer: TargetBuffer, dtype: ElementType): ElementValues {
  const { memory } = buffer as ArrayBufferOf;
  return dtype === 'f32'
    ? new Float32Array(memory, 0, memory.byteLength / elementBytes)
    : new Int32Array(memory, 0, memory.byteLength / elementBytes);
}

/** A new reference target: an interpreter in the calling thread. */
export function createReferenceTarget(): Target {
  return new ReferenceTarget();
}
