// lib/jit/kernels/side.ts: kernels that have nothing to do with each other -> one kernel that does what they all do, side by
// side: the first workgroups belong to the first, the next ones to the next. A launch costs more than small kernels' work.

import { Expr } from './expression.js';
import type { BufferArray, Kernel, KernelFunction, Statement } from './kernel.js';
import { forEachExpr } from './kernel.js';

/** A kernel as a part of another. */
export interface SidePart {
  readonly kernel: Kernel;
  /** Workgroups in x; it has one row of them. */
  readonly workgroups: number;
  /** For each of its buffers, which one of the whole kernel's it is. */
  readonly bindings: readonly number[];
}

/**
 * True for a kernel that may be a part: each thread does a few things by itself and ends. It has no loop, no barrier, no
 * shared memory, and knows of no workgroup but its own, in x.
 */
export function canStandAside(kernel: Kernel): boolean {
  const { shared, parameters, subgroupSize, buffers, body } = kernel;
  if (shared.length + parameters.length > 0 || subgroupSize !== undefined) return false;
  if (buffers.some(({ access }) => access === 'atomic') || !isStraight(body)) return false;
  let isLocal = true;
  forEachExpr(body, ({ node }) => {
    if (node.kind === 'builtin') isLocal &&= node.name === 'workgroupX' || node.name === 'localIndex';
    if (node.kind === 'call') isLocal &&= !node.op.startsWith('subgroup');
  });
  return isLocal;
}

function isStraight(statements: readonly Statement[]): boolean {
  return statements.every((statement) => {
    if (statement.kind === 'if') return isStraight(statement.whenTrue) && isStraight(statement.whenFalse);
    return ['let', 'variable', 'set', 'array', 'store', 'return'].includes(statement.kind);
  });
}

/** Functions of the same name have to be the same. */
export function functionsAgree(kernels: readonly Kernel[]): boolean {
  const known = new Map<string, KernelFunction>();
  let agree = true;
  const visit = ({ node }: Expr): void => {
    if (node.kind !== 'function' || known.get(node.fn.name) === node.fn) return;
    agree &&= !known.has(node.fn.name);
    known.set(node.fn.name, node.fn);
    forEachExpr(node.fn.body, visit);
  };
  for (const { body } of kernels) forEachExpr(body, visit);
  return agree;
}

/** Names of the arrays that a kernel writes to, whatever it may. */
export function writtenArrays({ body }: Kernel): ReadonlySet<string> {
  const found = new Set<string>();
  const visit = (statement: Statement): void => {
    const { kind } = statement;
    if (kind === 'store' || kind === 'atomicAdd' || kind === 'matrixStore') found.add(statement.array);
    if (statement.kind === 'if') [...statement.whenTrue, ...statement.whenFalse].forEach(visit);
    if ('body' in statement) statement.body.forEach(visit);
  };
  body.forEach(visit);
  return found;
}

/** One kernel of several; all have the same number of threads. */
export function sideBySide(parts: readonly SidePart[]): Kernel {
  const buffers: BufferArray[] = [];
  for (const { kernel, bindings } of parts)
    for (const [i, buffer] of kernel.buffers.entries())
      buffers[bindings[i]!] ??= { ...buffer, name: `memory${bindings[i]}` };
  const group = new Expr('u32', { kind: 'builtin', name: 'workgroupX' });
  let end = parts.reduce((sum, { workgroups }) => sum + workgroups, 0);
  let body: readonly Statement[] = [];
  for (const part of [...parts].reverse()) {
    const begin = end - part.workgroups;
    const own = partBody(part, buffers, group.sub(begin));
    const condition = group.lt(end);
    body = body.length === 0 ? own : [{ kind: 'if', condition, whenTrue: own, whenFalse: body }];
    end = begin;
  }
  const names = [...new Set(parts.map(({ kernel }) => kernel.name))];
  return {
    name: `${names.join(', ')} side by side`,
    buffers,
    shared: [],
    parameters: [],
    threads: parts[0]!.kernel.threads,
    body,
  };
}

/** The statements of a part, which counts its workgroups from 0 and knows its buffers by their names in the whole. */
function partBody(
  { kernel, bindings }: SidePart,
  buffers: readonly BufferArray[],
  group: Expr,
): readonly Statement[] {
  const names = new Map(kernel.buffers.map(({ name }, i) => [name, buffers[bindings[i]!]!.name]));
  const own = new Expr('u32', { kind: 'name', name: 'ownGroup' });
  const rename = (name: string): string => names.get(name) ?? name;
  const known = new Map<Expr, Expr>();
  const change = (expr: Expr): Expr => {
    const made = known.get(expr) ?? changeExpr(expr);
    known.set(expr, made);
    return made;
  };
  const changeExpr = (expr: Expr): Expr => {
    const { node, type } = expr;
    if (node.kind === 'builtin') return node.name === 'workgroupX' ? own : expr;
    if (!('args' in node)) return expr;
    const args = node.args.map(change);
    const named = node.kind === 'load' ? { array: rename(node.array) } : {};
    return new Expr(type, { ...node, ...named, args } as Expr['node']); // as many arguments as before
  };
  const changeAll = (statements: readonly Statement[]): Statement[] =>
    statements.map((statement): Statement => {
      switch (statement.kind) {
        case 'let':
        case 'variable':
        case 'set':
          return { ...statement, value: change(statement.value) };
        case 'store':
          return {
            ...statement,
            array: rename(statement.array),
            index: change(statement.index),
            value: change(statement.value),
          };
        case 'if':
          return {
            ...statement,
            condition: change(statement.condition),
            whenTrue: changeAll(statement.whenTrue),
            whenFalse: changeAll(statement.whenFalse),
          };
        case 'array':
        case 'return':
          return statement;
        default:
          throw new Error(`sideBySide: ${kernel.name} has a ${statement.kind}: ask canStandAside first`);
      }
    });
  return [{ kind: 'let', name: 'ownGroup', value: group }, ...changeAll(kernel.body)];
}
