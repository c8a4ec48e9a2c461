// lib/jit/kernels/builder.ts: writes kernels: declarations and statements in order -> a Kernel.
//
//   const kernel = buildKernel({ name: 'scale', threads: 64 }, (k) => {
//     const x = k.buffer('x', 'f32', 'read');
//     const y = k.buffer('y', 'f32', 'readWrite');
//     const i = k.let('i', k.builtin('workgroupX').mul(64).add(k.builtin('localIndex')));
//     k.if(i.lt(size), () => k.store(y, i, x.at(i).mul(2)));
//   });

import type { Builtin, NumberType, Operand, Type } from './expression.js';
import { Expr, expectType, literal, operand } from './expression.js';
import type {
  BufferArray,
  Kernel,
  KernelFunction,
  LaunchParameter,
  LocalArray,
  MatrixKind,
  Statement,
} from './kernel.js';

/** An array that a kernel has declared. */
export interface ArrayRef {
  readonly name: string;
  readonly element: Type;
  at(index: Operand): Expr;
}

/** A name that can be set anew. */
export interface Variable {
  readonly name: string;
  readonly value: Expr;
}

/** A matrix that neighbouring threads hold together: a sum, or one side of a product. */
export interface Matrix {
  readonly name: string;
  readonly of: MatrixKind;
}

/** Statements of a function or kernel; names are made unique. */
export class Statements {
  protected list: Statement[] = [];
  readonly #names = new Set<string>();

  /** Names a value, so that it is computed once. */
  let(name: string, value: Expr): Expr {
    const own = this.unique(name);
    this.list.push({ kind: 'let', name: own, value });
    return new Expr(value.type, { kind: 'name', name: own });
  }

  variable(name: string, value: Expr): Variable {
    const own = this.unique(name);
    this.list.push({ kind: 'variable', name: own, value });
    return { name: own, value: new Expr(value.type, { kind: 'name', name: own }) };
  }

  set(variable: Variable, value: Operand): void {
    const given = operand(value, variable.value.type);
    expectType(`set ${variable.name}`, given.type, variable.value.type);
    this.list.push({ kind: 'set', name: variable.name, value: given });
  }

  /** An array of this thread alone, undefined at first; indices that are literals keep it in registers. */
  array(name: string, element: Type, length: number): ArrayRef {
    const array = { name: this.unique(name), element, length };
    this.list.push({ kind: 'array', array });
    return arrayRef(array);
  }

  store(array: ArrayRef, index: Operand, value: Operand): void {
    const given = operand(value, array.element);
    expectType(`store to ${array.name}`, given.type, array.element);
    this.list.push({ kind: 'store', array: array.name, index: operand(index, 'u32'), value: given });
  }

  atomicAdd(array: ArrayRef, index: Operand, value: Operand): void {
    const given = operand(value, array.element);
    this.list.push({ kind: 'atomicAdd', array: array.name, index: operand(index, 'u32'), value: given });
  }

  /** A sum of products, zero at first. All matrix statements are reached by whole workgroups. */
  matrixSum(name: string, of: MatrixKind): Matrix {
    const own = this.unique(name);
    this.list.push({ kind: 'matrixSum', name: own, of });
    return { name: own, of };
  }

  /**
   * Reads one side of a product.
   * @param offset element of the u32x4 array where the first row begins
   * @param stride elements from one row to the next
   * @param rows whether rows run along the depth, 16 of them; or (a right side of halves) across it
   */
  matrixLoad(
    side: 'left' | 'right',
    of: MatrixKind,
    array: ArrayRef,
    offset: Operand,
    stride: Operand,
    rows: 'along' | 'across' = 'along',
  ): Matrix {
    expectType(`matrix of ${array.name}`, array.element, 'u32x4');
    const name = this.unique(side);
    const [first, each] = [operand(offset, 'u32'), operand(stride, 'u32')];
    const place = { array: array.name, offset: first, stride: each };
    this.list.push({ kind: 'matrixLoad', name, of, side, rows, ...place });
    return { name, of };
  }

  matrixMultiplyAdd(sum: Matrix, left: Matrix, right: Matrix): void {
    this.list.push({ kind: 'matrixMultiplyAdd', sum: sum.name, left: left.name, right: right.name });
  }

  /** Reads what matrixStore wrote to a u32x4 array into a sum. */
  matrixReload(sum: Matrix, array: ArrayRef, offset: Operand, stride: Operand): void {
    expectType(`sum of ${array.name}`, array.element, 'u32x4');
    const [first, each] = [operand(offset, 'u32'), operand(stride, 'u32')];
    const place = { array: array.name, offset: first, stride: each };
    this.list.push({ kind: 'matrixReload', sum: sum.name, of: sum.of, ...place });
  }

  /** Writes a sum: an element a number, or (u32x4) the bits of four. Offset and stride count elements. */
  matrixStore(sum: Matrix, array: ArrayRef, offset: Operand, stride: Operand): void {
    const own = sum.of === 'halves' ? 'f32' : 'i32';
    if (array.element !== 'u32x4') expectType(`matrix to ${array.name}`, array.element, own);
    const [first, each] = [operand(offset, 'u32'), operand(stride, 'u32')];
    const place = { array: array.name, offset: first, stride: each };
    this.list.push({ kind: 'matrixStore', sum: sum.name, isPacked: array.element === 'u32x4', ...place });
  }

  if(condition: Expr, then: () => void, otherwise: () => void = () => {}): void {
    expectType('if', condition.type, 'bool');
    this.list.push({ kind: 'if', condition, whenTrue: this.block(then), whenFalse: this.block(otherwise) });
  }

  /** Counts from begin up to but not including end. */
  for(name: string, begin: Operand, end: Operand, body: (index: Expr) => void, step: Operand = 1): void {
    const known = [begin, end].find((each) => each instanceof Expr) as Expr | undefined;
    const type = known?.type ?? 'u32';
    const own = this.unique(name);
    const index = new Expr(type, { kind: 'name', name: own });
    const [first, last, by] = [begin, end, step].map((each) => operand(each, type)) as [Expr, Expr, Expr];
    const inner = this.block(() => body(index));
    this.list.push({ kind: 'for', name: own, begin: first, end: last, step: by, body: inner });
  }

  while(condition: Expr, body: () => void): void {
    this.list.push({ kind: 'while', condition, body: this.block(body) });
  }

  break(): void {
    this.list.push({ kind: 'break' });
  }

  continue(): void {
    this.list.push({ kind: 'continue' });
  }

  return(value: Expr | null = null): void {
    this.list.push({ kind: 'return', value });
  }

  /** The statements that `body` writes. */
  protected block(body: () => void): readonly Statement[] {
    const outer = this.list;
    const inner: Statement[] = [];
    this.list = inner;
    try {
      body();
    } finally {
      this.list = outer;
    }
    return inner;
  }

  protected unique(name: string): string {
    let own = name;
    for (let i = 1; this.#names.has(own); i++) own = `${name}${i}`;
    this.#names.add(own);
    return own;
  }

  finish(): readonly Statement[] {
    return this.list;
  }
}

export class KernelBuilder extends Statements {
  readonly #buffers: BufferArray[] = [];
  readonly #shared: LocalArray[] = [];
  readonly #parameters: LaunchParameter[] = [];

  constructor(readonly threads: number) {
    super();
  }

  /** An array in the device's memory; bindings are numbered in the order of these calls. */
  buffer(name: string, element: Type, access: BufferArray['access']): ArrayRef {
    const own = this.unique(name);
    this.#buffers.push({ name: own, element, access });
    return arrayRef({ name: own, element });
  }

  /** An array that the workgroup shares; undefined at first. */
  shared(name: string, element: Type, length: number): ArrayRef {
    const own = this.unique(name);
    this.#shared.push({ name: own, element, length });
    return arrayRef({ name: own, element });
  }

  /** A number that the host gives with each dispatch. */
  parameter(name: string, type: NumberType): Expr {
    const own = this.unique(name);
    this.#parameters.push({ name: own, type });
    return new Expr(type, { kind: 'parameter', name: own });
  }

  builtin(name: Builtin): Expr {
    return new Expr('u32', { kind: 'builtin', name });
  }

  get localIndex(): Expr {
    return this.builtin('localIndex');
  }

  /** Waits for all threads of the workgroup; has to be reached by all or none. */
  barrier(memory: 'shared' | 'storage' = 'shared'): void {
    this.list.push({ kind: 'barrier', memory });
  }

  /** Thread 0's value in all threads, so that a loop with barriers may depend on it. All threads have to arrive. */
  uniform(name: string, value: Expr): Expr {
    const held = this.shared(`${name}Shared`, value.type, 1);
    this.if(this.localIndex.eq(0), () => this.store(held, 0, value));
    return this.uniformLoad(name, held);
  }

  /** Element 0 of a shared array, for all threads the same: a barrier before it and one after it. */
  uniformLoad(name: string, { name: array, element }: ArrayRef): Expr {
    return this.let(name, new Expr(element, { kind: 'uniformLoad', array }));
  }

  kernel(name: string, subgroupSize?: number): Kernel {
    return {
      name,
      buffers: this.#buffers,
      shared: this.#shared,
      parameters: this.#parameters,
      threads: this.threads,
      ...(subgroupSize === undefined ? {} : { subgroupSize }),
      body: this.finish(),
    };
  }
}

export interface KernelOptions {
  readonly name: string;
  /** In a workgroup. */
  readonly threads: number;
  readonly subgroupSize?: number;
}

/** Writes a kernel. */
export function buildKernel(
  { name, threads, subgroupSize }: KernelOptions,
  body: (k: KernelBuilder) => void,
): Kernel {
  const builder = new KernelBuilder(threads);
  body(builder);
  return builder.kernel(name, subgroupSize);
}

/**
 * Writes a pure function of values.
 * @returns what calls it: numbers become literals of the parameters' types
 */
export function defineFunction(
  name: string,
  types: readonly Type[],
  result: Type,
  body: (f: Statements, ...parameters: Expr[]) => Expr,
): (...args: Operand[]) => Expr {
  const parameters = types.map((type, i) => ({ name: `p${i}`, type }));
  let made: KernelFunction | undefined;
  const make = (): KernelFunction => {
    const f = new Statements();
    const value = body(
      f,
      ...parameters.map((each) => new Expr(each.type, { kind: 'name', name: each.name })),
    );
    f.return(value);
    return { name, parameters, result, body: f.finish() };
  };
  return (...args) => {
    made ??= make();
    const given = args.map((arg, i) => operand(arg, types[i]!));
    for (const [i, arg] of given.entries()) expectType(name, arg.type, types[i]!);
    return new Expr(result, { kind: 'function', fn: made, args: given });
  };
}

function arrayRef({ name, element }: { readonly name: string; readonly element: Type }): ArrayRef {
  return {
    name,
    element,
    at: (index) => new Expr(element, { kind: 'load', array: name, args: [operand(index, 'u32')] }),
  };
}

/** Sum of `count` terms by plain additions; `count` is known when the kernel is written. */
export function unrolledSum(count: number, type: Type, term: (i: number) => Expr): Expr {
  return Array.from({ length: count }, (_, i) => term(i)).reduce(
    (sum, each) => sum.add(each),
    literal(type, 0),
  );
}
