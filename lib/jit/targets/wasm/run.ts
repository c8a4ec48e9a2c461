// lib/jit/targets/wasm/run.ts: the target `wasm`: one shared memory, worker threads that run whole programs in it, and a
// main thread that only waits.

import type { Weight } from '../../../tensor.js';
import { type ElementType, type ElementValues, formatOf } from '../../graph.js';
import type { Plan } from '../../steps.js';
import type { BoundWeight, Executable, Target, TargetBuffer, WeightUse } from '../../target.js';
import { measureReadGBps } from './bandwidth.js';
import { compilePlan } from './compile.js';
import { WasmProgram } from './executable.js';
import { Machine, readValues, type WasmBuffer, type WasmOptions } from './machine.js';
import { bestMultiplyAdd } from './multiplyAdd.js';
import { checkFit } from './size.js';
import { bindWeight, unbindWeight, type WasmWeight } from './weights.js';

class WasmTarget implements Target {
  readonly name = 'wasm';
  readonly #options: WasmOptions;
  #machine: Machine;
  #weightBytes = 0;
  #bufferBytes = 0;
  #arenaBytes = 0;

  constructor(options: WasmOptions) {
    this.#options = options;
    this.#machine = new Machine(options);
  }

  async compile(plan: Plan): Promise<Executable> {
    const program = compilePlan(plan, bestMultiplyAdd());
    const machine = this.#machine;
    const module = await WebAssembly.compile(program.bytes);
    const executable = new WasmProgram(machine, plan, program, module, (bytes) => {
      this.#arenaBytes += bytes;
    });
    return executable;
  }

  checkFit(weights: readonly { readonly weight: Weight; readonly use: WeightUse }[]): void {
    const { heap } = this.#machine;
    const sized = weights.map(({ weight, use }) => ({ format: formatOf(weight), use }));
    checkFit(sized, heap.freeBytes, heap.limitBytes);
  }

  bind(weight: Weight, use: WeightUse): BoundWeight {
    this.checkFit([{ weight, use }]);
    const bound = bindWeight(this.#machine.heap, weight, use);
    this.#weightBytes += bound.bytes;
    return bound;
  }

  unbind(weight: BoundWeight): void {
    const bound = weight as WasmWeight;
    unbindWeight(bound);
    if (bound.heap === this.#machine.heap) this.#weightBytes -= bound.bytes;
  }

  allocate(bytes: number): TargetBuffer {
    const { heap } = this.#machine;
    const address = heap.allocate(bytes, 'tensor');
    this.#bufferBytes += bytes;
    const buffer: WasmBuffer = { bytes, heap, address };
    return buffer;
  }

  release(buffer: TargetBuffer): void {
    const { heap, address, bytes } = buffer as WasmBuffer;
    heap.release(address);
    if (heap === this.#machine.heap) this.#bufferBytes -= bytes; // else it outlived a dispose
  }

  write(buffer: TargetBuffer, values: ElementValues): void {
    const { heap } = this.#machine;
    const { address } = buffer as WasmBuffer;
    if (values instanceof Float32Array) heap.float32(address, values.length).set(values);
    else heap.int32(address, values.length).set(values);
  }

  read(buffer: TargetBuffer, dtype: ElementType): ElementValues {
    return readValues(this.#machine.heap, (buffer as WasmBuffer).address, buffer.bytes, dtype);
  }

  readGBps(): Promise<number> {
    return measureReadGBps(this.#options.threads, 3);
  }

  memory(): { readonly weightBytes: number; readonly bufferBytes: number; readonly arenaBytes: number } {
    return { weightBytes: this.#weightBytes, bufferBytes: this.#bufferBytes, arenaBytes: this.#arenaBytes };
  }

  async dispose(): Promise<void> {
    await this.#machine.dispose();
    this.#machine = new Machine(this.#options);
    this.#weightBytes = 0;
    this.#bufferBytes = 0;
    this.#arenaBytes = 0;
  }
}

/** A new wasm target. Its worker threads start with the first program that needs them. */
export function createWasmTarget(options: WasmOptions = {}): Target {
  return new WasmTarget(options);
}
