// lib/jit/targets/wasm/builder.ts: writes one WebAssembly function as a list of statements.
// In: calls such as f.loop(i, 0, n, 4, () => { ... }); out: FunctionCode for encoder.ts and listing.ts.
// Locals are expressions: f.set(sum, f32x4.add(sum, loads.v128(address))).

import {
  constant,
  type Expr,
  type Immediate,
  makeExpr,
  makeNode,
  type Node,
  type Operand,
  type ValueType,
} from './nodes.js';
import { i32 } from './scalars.js';

/** A local variable or parameter; used as an expression it is its value. */
export interface Local extends Expr {
  readonly name: string;
  readonly index: number;
}

/** A finished function. */
export interface FunctionCode {
  readonly name: string;
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
  readonly locals: readonly ValueType[];
  readonly body: readonly Node[];
}

/** A callable: its place among the module's functions is known once all are added. */
export interface FunctionReference {
  readonly name: string;
  readonly results: readonly ValueType[];
  readonly index: () => number;
}

export class FunctionBuilder {
  private readonly params: ValueType[] = [];
  private readonly locals: ValueType[] = [];
  private statements: Node[] = [];
  private names = new Map<string, number>();

  constructor(
    readonly name: string,
    private readonly results: readonly ValueType[] = [],
  ) {}

  /** Declares the next parameter; all come before the first local. */
  param(type: ValueType, name: string): Local {
    if (this.locals.length > 0) throw new Error(`${this.name}: parameter ${name} after a local`);
    this.params.push(type);
    return this.declare(type, name);
  }

  /** Declares a local, zero at first. */
  local(type: ValueType, name: string): Local {
    this.locals.push(type);
    return this.declare(type, name);
  }

  /** Declares a local that holds the value. */
  let(name: string, value: Expr): Local {
    const local = this.local(value.type, name);
    this.set(local, value);
    return local;
  }

  /** Several locals of one type: name0, name1, ... */
  vectors(name: string, count: number): Local[] {
    return Array.from({ length: count }, (_, i) => this.local('v128', `${name}${i}`));
  }

  private declare(type: ValueType, name: string): Local {
    const index = this.params.length + this.locals.length - 1;
    const used = this.names.get(name) ?? 0;
    this.names.set(name, used + 1);
    const unique = used === 0 ? name : `${name}_${used}`;
    const get = makeExpr(`local.get $${unique}`, type, [0x20], [], { kind: 'unsigned', value: index });
    return { ...get, name: unique, index };
  }

  /** Adds a statement: a node that leaves nothing on the stack. */
  do(...nodes: readonly Node[]): void {
    this.statements.push(...nodes);
  }

  set(local: Local, value: Operand): void {
    const operand = typeof value === 'number' ? constant(local.type, value) : value;
    this.do(
      makeNode(`local.set $${local.name}`, undefined, [0x21], [operand], {
        kind: 'unsigned',
        value: local.index,
      }),
    );
  }

  /** local += value, for int32 counters and addresses. */
  increase(local: Local, value: Operand): void {
    if (value !== 0) this.set(local, i32.add(local, value));
  }

  /** for (counter = begin; counter < end; counter += step) body; unsigned, so that it may count addresses. */
  loop(counter: Local, begin: Operand, end: Operand, step: number, body: () => void): void {
    this.set(counter, begin);
    const rounds = () =>
      this.repeat(() => {
        body();
        this.set(counter, i32.add(counter, step));
        return i32.lt_u(counter, end);
      });
    const isKnown = typeof begin === 'number' && typeof end === 'number';
    if (!isKnown) this.when(i32.lt_u(counter, end), rounds);
    else if (begin < end) rounds();
  }

  /** do body while (the condition that it returns). */
  repeat(body: () => Expr): void {
    const statements = this.collect(() => {
      const again = body();
      this.do(makeNode('br_if 0', undefined, [0x0d, 0], [again]));
    });
    this.do(block('loop', 0x03, { kind: 'body', statements }));
  }

  /** if (condition) then else orElse. */
  when(condition: Expr, then: () => void, orElse?: () => void): void {
    const statements = this.collect(then);
    const otherwise = orElse && this.collect(orElse);
    const body: Immediate = { kind: 'body', statements, ...(otherwise && { orElse: otherwise }) };
    this.do({ ...block('if', 0x04, body), operands: [condition] });
  }

  /** A block that leave() inside it jumps out of; `depth` counts the loops and ifs in between. */
  block(body: () => void): void {
    this.do(block('block', 0x02, { kind: 'body', statements: this.collect(body) }));
  }

  /** Jumps out of the block `depth` levels up, when the condition holds. */
  leaveIf(condition: Expr, depth: number): void {
    this.do(makeNode(`br_if ${depth}`, undefined, [0x0d, depth], [condition]));
  }

  return(...values: readonly Operand[]): void {
    const operands = values.map((value, i) =>
      typeof value === 'number' ? constant(this.results[i] ?? 'i32', value) : value,
    );
    this.do(makeNode('return', undefined, [0x0f], operands));
  }

  /** Calls a function that returns nothing. */
  call(target: FunctionReference, ...values: readonly Operand[]): void {
    this.do(callNode(target, values));
  }

  finish(): FunctionCode {
    const { name, params, results, locals, statements } = this;
    return { name, params, results, locals, body: statements };
  }

  private collect(body: () => void): Node[] {
    const outer = this.statements;
    this.statements = [];
    body();
    const inner = this.statements;
    this.statements = outer;
    return inner;
  }
}

/** A call as an expression, of a function with one result. */
export function callExpr(target: FunctionReference, ...values: readonly Operand[]): Expr {
  return callNode(target, values) as Expr;
}

/** Reads a global variable by its index. */
export const globalGet = (index: number, name: string): Expr =>
  makeExpr(`global.get $${name}`, 'i32', [0x23], [], { kind: 'unsigned', value: index });

function callNode(target: FunctionReference, values: readonly Operand[]): Node {
  const operands = values.map((value) => (typeof value === 'number' ? constant('i32', value) : value));
  const callee: Immediate = { kind: 'function', name: target.name, index: target.index };
  return makeNode(`call $${target.name}`, target.results[0], [0x10], operands, callee);
}

const block = (op: string, code: number, body: Immediate): Node =>
  makeNode(op, undefined, [code, 0x40], [], body);
