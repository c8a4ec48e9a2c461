// lib/jit/arguments.ts: tensors that a compiled function is called with -> buffers of its target. What is needed of a
// tensor is taken when the function is called: the caller may dispose it before the call has ended.

import type * as tf from '@tensorflow/tfjs-core';
import type { ElementValues } from './graph.js';
import { elementType } from './lower/lowering.js';
import { bufferOf, holdBuffer, takeBuffer } from './memory.js';
import { elementBytes } from './steps.js';
import type { Target, TargetBuffer } from './target.js';
import { elementValues } from './trace.js';

/** A tensor argument of one call. */
export interface Argument {
  readonly tensor: tf.Tensor;
  /** Its memory may be written over and handed on. */
  readonly donated: boolean;
  /** Its values, if they have to be copied into the target. */
  readonly values: ElementValues | undefined;
  /** Lets go of what the call holds of it. */
  readonly end: () => void;
}

/** A buffer for an argument. `own`: it belongs to the call, which has to release it or hand it on. */
export interface ArgumentBuffer {
  readonly buffer: TargetBuffer;
  readonly own: boolean;
}

// A copy of a small tensor costs less than finding the old one; a large one is kept as long as tfjs keeps its data.
const keptFromBytes = 65536;
const uploads = new WeakMap<Target, WeakMap<object, TargetBuffer>>();
const unreachable = new FinalizationRegistry<{ target: Target; buffer: TargetBuffer }>(
  ({ target, buffer }) => {
    target.release(buffer);
  },
);

/**
 * Takes what a call needs of a tensor.
 * @param target undefined if it was never used: then nothing can lie there yet
 */
export function captureArgument(tensor: tf.Tensor, donated: boolean, target: Target | undefined): Argument {
  if (target && bufferOf(tensor, target))
    return { tensor, donated, values: undefined, end: holdBuffer(tensor) };
  const isThere = target && !donated && uploads.get(target)?.has(tensor.dataId);
  const values = isThere ? undefined : elementValues(tensor.dataSync(), elementType(tensor.dtype));
  return { tensor, donated, values, end: () => {} };
}

/** The buffer that an argument is read from; a donated tensor is disposed. */
export function argumentBuffer(argument: Argument, target: Target): ArgumentBuffer {
  const { tensor, donated, values } = argument;
  if (!donated) {
    const there = bufferOf(tensor, target) ?? uploads.get(target)?.get(tensor.dataId);
    if (there) return { buffer: there, own: false };
    return upload(tensor, values!, target, values!.length * elementBytes >= keptFromBytes);
  }
  const taken = takeBuffer(tensor, target);
  if (taken) return { buffer: taken, own: true };
  const copied = upload(
    tensor,
    values ?? elementValues(tensor.dataSync(), elementType(tensor.dtype)),
    target,
    false,
  );
  if (!tensor.isDisposed) tensor.dispose();
  return copied;
}

function upload(tensor: tf.Tensor, values: ElementValues, target: Target, isKept: boolean): ArgumentBuffer {
  const buffer = target.allocate(values.length * elementBytes);
  target.write(buffer, values);
  if (isKept) {
    const known = uploads.get(target) ?? new WeakMap<object, TargetBuffer>();
    uploads.set(target, known.set(tensor.dataId, buffer));
    unreachable.register(tensor.dataId, { target, buffer });
  }
  return { buffer, own: !isKept };
}
