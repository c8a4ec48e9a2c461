// lib/jit/memory.ts: the tfjs backend `jit`, in which results of compiled functions live: counted by tf.memory, read
// with data() or dataSync(), moved by tfjs to another backend when an eager operation needs them there, and read by the
// next compiled call where they are.

import * as tf from '@tensorflow/tfjs-core';
import type { ElementType, ElementValues } from './graph.js';
import type { Target, TargetBuffer } from './target.js';
import { tfDType } from './trace.js';

const BACKEND = 'jit';

/** A tensor's memory in a target: in use while tfjs refers to it or a compiled call reads it. */
interface Entry {
  readonly target: Target;
  readonly buffer: TargetBuffer;
  readonly dtype: ElementType;
  readonly elements: number;
  references: number;
  readers: number;
}

class JitBackend extends tf.KernelBackend {
  readonly entries = new Map<object, Entry>();

  adopt(entry: Omit<Entry, 'references' | 'readers'>): object {
    const dataId = {};
    this.entries.set(dataId, { ...entry, references: 1, readers: 0 });
    return dataId;
  }

  override readSync(dataId: object): tf.BackendValues {
    const entry = this.#entry(dataId);
    return backendValues(entry, entry.target.read(entry.buffer, entry.dtype));
  }

  override async read(dataId: object): Promise<tf.BackendValues> {
    const entry = this.#entry(dataId);
    const { target, buffer, dtype } = entry;
    if (!target.readLater) return this.readSync(dataId);
    entry.readers += 1;
    try {
      return backendValues(entry, await target.readLater(buffer, dtype));
    } finally {
      entry.readers -= 1;
      if (entry.references <= 0 && entry.readers === 0) this.entries.delete(dataId); // disposed meanwhile
      releaseUnused(entry);
    }
  }

  override disposeData(dataId: object, force = false): boolean {
    const entry = this.entries.get(dataId);
    if (!entry) return true;
    entry.references = force ? 0 : entry.references - 1;
    if (entry.references > 0) return false;
    if (entry.readers === 0) this.entries.delete(dataId); // else a call still looks for it here
    releaseUnused(entry);
    return true;
  }

  override refCount(dataId: object): number {
    return this.entries.get(dataId)?.references ?? 0;
  }

  override incRef(dataId: object): void {
    this.#entry(dataId).references += 1;
  }

  override numDataIds(): number {
    return this.entries.size;
  }

  override write(): object {
    throw new Error(
      'jit: tensors are made by the backend that is set, not by compiled code; leave tf.setBackend alone',
    );
  }

  override move(): void {
    throw new Error('jit: no eager operation runs on compiled memory; leave tf.setBackend alone');
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

  #entry(dataId: object): Entry {
    const entry = this.entries.get(dataId);
    if (!entry) throw new Error('jit: this tensor is disposed');
    return entry;
  }
}

function backendValues({ dtype, elements }: Entry, all: ElementValues): tf.BackendValues {
  const values = all.subarray(0, elements);
  return dtype === 'bool' ? Uint8Array.from(values) : values;
}

function releaseUnused(entry: Entry): void {
  if (entry.references <= 0 && entry.readers === 0) entry.target.release(entry.buffer);
}

let backend: JitBackend | undefined;

function jitBackend(): JitBackend {
  if (!backend) {
    const made = new JitBackend();
    backend = made;
    // The lowest priority: tfjs never picks it as the default.
    tf.registerBackend(BACKEND, () => made, -1);
  }
  return backend;
}

const mended = new WeakSet<tf.KernelBackend>();

/**
 * Makes eager backends count references to data that they are about to fetch from here. tfjs's cpu backend (and
 * tfjs-node's) counts only what it already holds, so that reshaping a tensor of another backend and freeing the result
 * would free the tensor too.
 */
function mendReferenceCounts(own: JitBackend): void {
  for (const name of ['cpu', 'tensorflow']) {
    const eager = tf.findBackend(name) as
      | (tf.KernelBackend & Partial<Record<'data' | 'tensorMap', tf.DataStorage<unknown>>>)
      | null;
    if (!eager || mended.has(eager)) continue;
    mended.add(eager);
    const count = eager.incRef.bind(eager);
    eager.incRef = (dataId) => {
      if (own.entries.has(dataId)) (eager.data ?? eager.tensorMap)?.get(dataId); // get fetches it
      count(dataId);
    };
  }
}

/** A tensor over a buffer of a target; disposing it releases the buffer. */
export function adoptBuffer(
  target: Target,
  buffer: TargetBuffer,
  dtype: ElementType,
  shape: readonly number[],
): tf.Tensor {
  const own = jitBackend();
  mendReferenceCounts(own);
  const elements = tf.util.sizeFromShape([...shape]);
  const dataId = own.adopt({ target, buffer, dtype, elements });
  return tf.engine().makeTensorFromTensorInfo({ dataId, shape: [...shape], dtype: tfDType(dtype) }, own);
}

/** The buffer of a tensor that already lives in this target; undefined for any other tensor. */
export function bufferOf(tensor: tf.Tensor, target: Target): TargetBuffer | undefined {
  const entry = backend?.entries.get(tensor.dataId);
  return entry?.target === target ? entry.buffer : undefined;
}

/** Keeps a buffer from being released while a call reads it. @returns what ends that */
export function holdBuffer(tensor: tf.Tensor): () => void {
  const { dataId } = tensor;
  const entry = backend?.entries.get(dataId);
  if (!entry) return () => {};
  entry.readers += 1;
  return () => {
    entry.readers -= 1;
    if (entry.references > 0 || entry.readers > 0) return;
    backend?.entries.delete(dataId);
    releaseUnused(entry);
  };
}

/**
 * Disposes a donated tensor, which the call holds, and hands its buffer over.
 * @returns undefined if someone else still needs the buffer or it is not in this target; then nothing is disposed
 */
export function takeBuffer(tensor: tf.Tensor, target: Target): TargetBuffer | undefined {
  const entry = backend?.entries.get(tensor.dataId);
  if (entry?.target !== target || entry.references > 1 || entry.readers > 1) return undefined;
  entry.readers += 1; // dispose does not release what is being read, and this reader never ends
  const { dataId } = tensor;
  tensor.dispose();
  backend?.entries.delete(dataId);
  return entry.buffer;
}
