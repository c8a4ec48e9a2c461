// lib/jit/traceBackend.ts: the tfjs backend named `trace`: what tfjs asks of a backend and its kernels -> calls on the
// recorder of the trace that is going on. Source: tfjs's own extension points, registerBackend and registerKernel.

import * as tf from '@tensorflow/tfjs-core';
import type { ElementValues } from './graph.js';
import { elementwise } from './lower/elementwise.js';
import { indexing } from './lower/indexing.js';
import type { Lowering } from './lower/lowering.js';
import { products } from './lower/products.js';
import { reduce } from './lower/reduce.js';
import { shape } from './lower/shape.js';
import { vision } from './lower/vision.js';

const BACKEND = 'trace';
const lowerings: Readonly<Record<string, Lowering>> = {
  ...elementwise,
  ...indexing,
  ...products,
  ...reduce,
  ...shape,
  ...vision,
};

/** What records a trace: tensors are known to it by tfjs's data ids. */
export interface Recorder {
  /** tfjs makes a tensor from numbers. @returns its data id */
  write(values: tf.BackendValues | null, shape: readonly number[], dtype: tf.DataType): object;
  /** @throws Error unless the values are known while tracing */
  read(dataId: object): ElementValues;
  forget(dataId: object): void;
  /** tfjs runs a kernel. */
  run(
    name: string,
    lower: Lowering,
    inputs: tf.NamedTensorInfoMap,
    attrs: unknown,
  ): tf.TensorInfo | tf.TensorInfo[];
}

let active: Recorder | undefined;

/** Runs `work` with `trace` as tfjs's backend; the one that was set before is back afterwards, whatever happens. */
export function withRecorder(recorder: Recorder, work: () => void): void {
  const previous = tf.getBackend();
  registerTraceBackend();
  active = recorder;
  try {
    void tf.setBackend(BACKEND); // takes effect at once: the backend has no asynchronous start
    work();
  } finally {
    active = undefined;
    void tf.setBackend(previous);
  }
}

/** The backend that tfjs sees. It exists once; the trace that is going on does the work. */
class TraceBackend extends tf.KernelBackend {
  override write(values: tf.BackendValues, shape: number[], dtype: tf.DataType): object {
    return recorderNow().write(values, shape, dtype);
  }
  override readSync(dataId: object): tf.BackendValues {
    return recorderNow().read(dataId);
  }
  override async read(dataId: object): Promise<tf.BackendValues> {
    try {
      return recorderNow().read(dataId);
    } catch {
      // The trace fails with this error. Nobody may wait for the Promise, and then its own would end the process.
      return new Promise(() => {});
    }
  }
  override disposeData(dataId: object): boolean {
    active?.forget(dataId);
    return true;
  }
  override move(): void {
    throw new Error('jit: a tensor cannot be moved into a trace');
  }
  override refCount(): number {
    return 1;
  }
  override incRef(): void {}
  override numDataIds(): number {
    return 0;
  }
  override memory(): { unreliable: boolean } {
    return { unreliable: true };
  }
  override timerAvailable(): boolean {
    return false;
  }
  override floatPrecision(): 16 | 32 {
    return 32;
  }
  override epsilon(): number {
    return 1e-7;
  }
  override dispose(): void {}
}

function recorderNow(): Recorder {
  if (!active) throw new Error('jit: a traced tensor was used after the trace had ended; return it instead');
  return active;
}

/** Once: not at import, so that tfjs never picks `trace` as its default backend. */
function registerTraceBackend(): void {
  if (tf.findBackendFactory(BACKEND)) return;
  tf.registerBackend(BACKEND, () => new TraceBackend(), -1);
  for (const [kernelName, lower] of Object.entries(lowerings)) registerTraced(kernelName, lower);
  for (const [name, kernelName] of Object.entries(tf)) {
    const isKernelName = name === kernelName && !Object.hasOwn(lowerings, name);
    if (isKernelName) registerTraced(name, missing(name));
  }
}

function registerTraced(kernelName: string, lower: Lowering): void {
  tf.registerKernel({
    kernelName,
    backendName: BACKEND,
    kernelFunc: ({ inputs, attrs }) => recorderNow().run(kernelName, lower, inputs, attrs),
  });
}

function missing(name: string): Lowering {
  return () => {
    throw new Error(
      `the compiler has no lowering for ${name}; compute it outside, or compose it from other operations`,
    );
  };
}
