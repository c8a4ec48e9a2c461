// lib/jit/targets/webgpu/kernels/attendKernels.ts: attention of one query a row as kernels by themselves, over buffers of
// their own: for timing and for tests, without a plan.

import type { ArrayRef } from '../../../kernels/builder.js';
import { KernelBuilder } from '../../../kernels/builder.js';
import type { Features, Kernel } from '../../../kernels/kernel.js';
import { attendWorkgroups, divided, writeAttend } from './attend.js';
import { leaveForJoin, writeJoin } from './attendJoin.js';
import type { AttendSpec } from './attendShape.js';

export interface AttendKernel {
  readonly kernel: Kernel;
  readonly workgroups: number;
}

/** One kernel, or for a cache in chunks two. Buffers: q, keys, values, start, count, y; between two mixed, found. */
export function attendKernels(features: Features, spec: AttendSpec): AttendKernel[] {
  const { batch, heads, headDim, threads, chunks } = spec;
  const vectors = headDim / 4;
  const k = new KernelBuilder(threads);
  const arrays = {
    ...{ q: k.buffer('q', 'f32x4', 'read'), keys: k.buffer('keys', 'f32x4', 'read') },
    ...{ values: k.buffer('values', 'f32x4', 'read'), ...placesOf(k) },
  };
  const workgroups = attendWorkgroups(spec);
  if (chunks === 1) {
    const y = k.buffer('y', 'f32x4', 'readWrite');
    writeAttend(k, features, spec, arrays, ({ row, vector, value, total }) =>
      k.store(y, row.mul(vectors).add(vector), divided(value, total)),
    );
    return [{ kernel: k.kernel('attention'), workgroups }];
  }
  const left = {
    mixed: k.buffer('mixed', 'f32x4', 'readWrite'),
    found: k.buffer('found', 'f32x2', 'readWrite'),
  };
  writeAttend(k, features, spec, arrays, (mixture) => leaveForJoin(k, spec, left, mixture));
  const join = joinKernel(features, spec);
  return [
    { kernel: k.kernel('attention in chunks'), workgroups },
    { kernel: join, workgroups: batch * heads },
  ];
}

function joinKernel(features: Features, spec: AttendSpec): Kernel {
  const k = new KernelBuilder(spec.threads);
  const arrays = {
    ...{ mixed: k.buffer('mixed', 'f32x4', 'read'), found: k.buffer('found', 'f32x2', 'read') },
    ...placesOf(k),
  };
  const y = k.buffer('y', 'f32x4', 'readWrite');
  writeJoin(k, features, spec, arrays, (row, vector, value) =>
    k.store(y, row.mul(spec.headDim / 4).add(vector), value),
  );
  return k.kernel('attention of chunks');
}

function placesOf(k: KernelBuilder): { readonly start: ArrayRef; readonly count: ArrayRef } {
  return { start: k.buffer('start', 'i32', 'read'), count: k.buffer('count', 'i32', 'read') };
}
