// lib/jit/kernels/kernel.ts: what a GPU kernel is: a description without any shading language in it. builder.ts makes
// one, targets/webgpu/wgsl.ts prints it as WGSL; another printer can make another text of the same description.

import type { Expr, NumberType, Type } from './expression.js';

/** An array in the device's memory; its place in `buffers` is its binding. */
export interface BufferArray {
  readonly name: string;
  readonly element: Type;
  /** atomic: elements u32 or i32, added to by many. uniform: four elements, read as constants are. */
  readonly access: 'read' | 'readWrite' | 'atomic' | 'uniform';
}

/** An array that the threads of a workgroup share, or that one thread has for itself. */
export interface LocalArray {
  readonly name: string;
  readonly element: Type;
  readonly length: number;
}

/**
 * What the adapter's matrix units multiply: `halves` [16, 16] x [16, 16] of float16, summed in float32; `bytes` [16, 32]
 * x [32, 16] of signed bytes, summed in i32. Both lie in words of a u32x4 array: eight halves or sixteen bytes of a row
 * in an element, the right side transposed, so that both sides' rows run along the depth.
 */
export type MatrixKind = 'halves' | 'bytes';

/** Rows and columns of a matrix unit's result. */
export const matrixSide = 16;
/** Threads that hold a matrix together: neighbours by localIndex. */
export const matrixThreads = 32;

/** A number that the host gives with a dispatch. */
export interface LaunchParameter {
  readonly name: string;
  readonly type: NumberType;
}

export type Statement =
  /** Names a value; not changed afterwards. */
  | { readonly kind: 'let'; readonly name: string; readonly value: Expr }
  | { readonly kind: 'variable'; readonly name: string; readonly value: Expr }
  | { readonly kind: 'array'; readonly array: LocalArray } // of one thread
  | { readonly kind: 'set'; readonly name: string; readonly value: Expr }
  | { readonly kind: 'store'; readonly array: string; readonly index: Expr; readonly value: Expr }
  | { readonly kind: 'atomicAdd'; readonly array: string; readonly index: Expr; readonly value: Expr }
  | {
      readonly kind: 'if';
      readonly condition: Expr;
      readonly whenTrue: readonly Statement[];
      readonly whenFalse: readonly Statement[];
    }
  /** for (name = begin; name < end; name += step) */
  | {
      readonly kind: 'for';
      readonly name: string;
      readonly begin: Expr;
      readonly end: Expr;
      readonly step: Expr;
      readonly body: readonly Statement[];
    }
  | { readonly kind: 'while'; readonly condition: Expr; readonly body: readonly Statement[] }
  | { readonly kind: 'break' | 'continue' }
  | { readonly kind: 'return'; readonly value: Expr | null }
  /** A sum of products that `matrixThreads` neighbouring threads hold together, zero at first. */
  | { readonly kind: 'matrixSum'; readonly name: string; readonly of: MatrixKind }
  /**
   * One side of a product: rows of an array, from element `offset` on, a row every `stride` elements. Rows run along the
   * depth, 16 of them; or, of a right side of halves, across it: as many as the product is deep.
   */
  | {
      readonly kind: 'matrixLoad';
      readonly name: string;
      readonly of: MatrixKind;
      readonly side: 'left' | 'right';
      readonly rows: 'along' | 'across';
      readonly array: string;
      readonly offset: Expr;
      readonly stride: Expr;
    }
  | {
      readonly kind: 'matrixMultiplyAdd';
      readonly sum: string;
      readonly left: string;
      readonly right: string;
    }
  /** Writes a sum's 16 rows; the array's elements are f32 (halves) or i32 (bytes), or packed: the bits of four in a u32x4. */
  | {
      readonly kind: 'matrixStore';
      readonly sum: string;
      readonly isPacked: boolean;
      readonly array: string;
      readonly offset: Expr;
      readonly stride: Expr;
    }
  /** Reads a sum that matrixStore wrote to a u32x4 array. */
  | {
      readonly kind: 'matrixReload';
      readonly sum: string;
      readonly of: MatrixKind;
      readonly array: string;
      readonly offset: Expr;
      readonly stride: Expr;
    }
  /** All threads of the workgroup arrive; `shared`: what they wrote to shared arrays is seen, `storage`: to buffers. */
  | { readonly kind: 'barrier'; readonly memory: 'shared' | 'storage' };

/** A pure function of values, printed once a kernel. */
export interface KernelFunction {
  readonly name: string;
  readonly parameters: readonly { readonly name: string; readonly type: Type }[];
  readonly result: Type;
  readonly body: readonly Statement[];
}

/** A program that runs once a thread. */
export interface Kernel {
  readonly name: string;
  readonly buffers: readonly BufferArray[];
  readonly shared: readonly LocalArray[];
  readonly parameters: readonly LaunchParameter[];
  readonly threads: number; // in a workgroup, counted by localIndex
  /** Asks for subgroups of exactly this size, if the adapter lets itself be asked. */
  readonly subgroupSize?: number | undefined;
  readonly body: readonly Statement[];
}

/** What kernels may use on an adapter. Every kernel has a plain form for `plainFeatures`. */
export interface Features {
  readonly f16: boolean;
  readonly subgroups: boolean;
  readonly minSubgroupSize: number;
  readonly maxSubgroupSize: number;
  /** dot4I8 in hardware or emulated by the driver; false: builder.ts spells it out. */
  readonly packedDot: boolean;
  /** Matrix units for both MatrixKinds; their threads are a subgroup. */
  readonly matrices: boolean;
  readonly maxThreads: number; // in a workgroup
  readonly maxSharedBytes: number;
  readonly maxBuffers: number; // of one kernel
}

/** WebGPU's least. */
export const plainFeatures: Features = {
  f16: false,
  subgroups: false,
  minSubgroupSize: 0,
  maxSubgroupSize: 0,
  packedDot: false,
  matrices: false,
  maxThreads: 256,
  maxSharedBytes: 16384,
  maxBuffers: 8,
};

/** Calls `visit` for each expression in a list of statements, parts before wholes. */
export function forEachExpr(statements: readonly Statement[], visit: (expr: Expr) => void): void {
  const walk = (expr: Expr): void => {
    if ('args' in expr.node) for (const arg of expr.node.args) walk(arg);
    visit(expr);
  };
  for (const statement of statements) {
    if ('value' in statement && statement.value) walk(statement.value);
    if ('index' in statement) walk(statement.index);
    if ('offset' in statement) for (const part of [statement.offset, statement.stride]) walk(part);
    if ('condition' in statement) walk(statement.condition);
    if (statement.kind === 'for')
      for (const part of [statement.begin, statement.end, statement.step]) walk(part);
    if (statement.kind === 'if') {
      forEachExpr(statement.whenTrue, visit);
      forEachExpr(statement.whenFalse, visit);
    }
    if ('body' in statement) forEachExpr(statement.body, visit);
  }
}
