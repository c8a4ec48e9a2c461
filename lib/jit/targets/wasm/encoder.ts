// lib/jit/targets/wasm/encoder.ts: functions -> the bytes of a WebAssembly module, and -> their text.
// Source: WebAssembly core specification 2.0, chapter 5 (binary format); memory limits with the shared flag from
// the threads proposal.

import type { FunctionCode, FunctionReference } from './builder.js';
import { type Immediate, type Node, unsigned, type ValueType } from './nodes.js';

const TYPE_CODES: Readonly<Record<ValueType, number>> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};
const PAGE_BYTES = 65536;

interface Import {
  readonly name: string;
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
}

/** A module under construction: it imports `env.memory` and what importFunction adds, and exports by name. */
export class ModuleBuilder {
  private readonly imports: Import[] = [];
  private readonly functions: (FunctionCode & { readonly exported: boolean })[] = [];
  private readonly globals: number[] = [];

  /** @param memory bytes that the shared memory has at least, and at most (both at most 4 GiB) */
  constructor(
    readonly memory: { readonly minBytes: number; readonly maxBytes: number; readonly shared: boolean },
  ) {}

  /** Declares a function of the host, imported as env.<name>; all imports come before the first function is called. */
  importFunction(
    name: string,
    params: readonly ValueType[],
    results: readonly ValueType[],
  ): FunctionReference {
    const index = this.imports.push({ name, params, results }) - 1;
    return { name, results, index: () => index };
  }

  /** Adds a function; the reference calls it from others, added before or after. */
  add(code: FunctionCode, exported = false): FunctionReference {
    const position = this.functions.push({ ...code, exported }) - 1;
    return { name: code.name, results: code.results, index: () => this.imports.length + position };
  }

  /** Adds a mutable int32 global, exported as global<index>; each worker's instance has its own. */
  addGlobal(initial: number): number {
    return this.globals.push(initial) - 1;
  }

  /** The module's bytes. */
  encode(): Uint8Array<ArrayBuffer> {
    const types = new TypeTable();
    const importTypes = this.imports.map((item) => types.indexOf(item));
    const functionTypes = this.functions.map((item) => types.indexOf(item));
    const exported = this.functions.flatMap((item, i) =>
      item.exported ? [[...name(item.name), 0, ...unsigned(this.imports.length + i)]] : [],
    );
    const globalExports = this.globals.map((_, i) => [...name(`global${i}`), 3, ...unsigned(i)]);
    const sections = [
      section(1, types.entries),
      section(2, [
        [...name('env'), ...name('memory'), 2, ...this.limits()],
        ...this.imports.map((item, i) => [
          ...name('env'),
          ...name(item.name),
          0,
          ...unsigned(importTypes[i]!),
        ]),
      ]),
      section(3, functionTypes.map(unsigned)),
      section(
        6,
        this.globals.map((value) => [TYPE_CODES.i32, 1, 0x41, ...signed(value), 0x0b]),
      ),
      section(7, [...exported, ...globalExports]),
      section(10, this.functions.map(functionBody)),
    ];
    const all = [[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], ...sections];
    const bytes = new Uint8Array(all.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const each of all) {
      bytes.set(each, at);
      at += each.length;
    }
    return bytes;
  }

  /** The functions as text, for snapshots and RT_DEBUG=4. */
  listing(): string {
    return this.functions.map(listFunction).join('\n');
  }

  private limits(): number[] {
    const { minBytes, maxBytes, shared } = this.memory;
    const pages = [minBytes, maxBytes].map((bytes) => unsigned(Math.ceil(bytes / PAGE_BYTES)));
    return [shared ? 3 : 1, ...pages.flat()];
  }
}

class TypeTable {
  readonly entries: number[][] = [];
  private readonly seen = new Map<string, number>();

  indexOf({ params, results }: Pick<Import, 'params' | 'results'>): number {
    const key = `${params} -> ${results}`;
    const known = this.seen.get(key);
    if (known !== undefined) return known;
    const list = (types: readonly ValueType[]) => [types.length, ...types.map((type) => TYPE_CODES[type])];
    const index = this.entries.push([0x60, ...list(params), ...list(results)]) - 1;
    this.seen.set(key, index);
    return index;
  }
}

function section(id: number, entries: readonly number[][]): number[] {
  if (entries.length === 0) return [];
  const size = entries.reduce((sum, entry) => sum + entry.length, 0);
  const count = unsigned(entries.length);
  // Pushed piece by piece: a code section of 100 KB is too long for one spread into a call.
  const bytes = [id, ...unsigned(size + count.length), ...count];
  for (const entry of entries) for (const byte of entry) bytes.push(byte);
  return bytes;
}

function name(text: string): number[] {
  const bytes = new TextEncoder().encode(text);
  return [...unsigned(bytes.length), ...bytes];
}

function functionBody({ locals, body }: FunctionCode): number[] {
  const bytes: number[] = [...unsigned(locals.length)];
  for (const type of locals) bytes.push(1, TYPE_CODES[type]);
  for (const statement of body) encodeNode(statement, bytes);
  bytes.push(0x0b);
  return [...unsigned(bytes.length), ...bytes];
}

function encodeNode(node: Node, out: number[]): void {
  for (const operand of node.operands) encodeNode(operand, out);
  for (const byte of node.code) out.push(byte);
  for (const immediate of node.immediates) encodeImmediate(immediate, out);
}

function encodeImmediate(immediate: Immediate, out: number[]): void {
  switch (immediate.kind) {
    case 'byte':
      out.push(immediate.value);
      break;
    case 'unsigned':
      out.push(...unsigned(immediate.value));
      break;
    case 'signed':
    case 'signed64':
      out.push(...signed(immediate.value));
      break;
    case 'f32':
      out.push(...new Uint8Array(Float32Array.of(immediate.value).buffer));
      break;
    case 'f64':
      out.push(...new Uint8Array(Float64Array.of(immediate.value).buffer));
      break;
    case 'memory':
      out.push(immediate.align, ...unsigned(immediate.offset));
      break;
    case 'bytes':
      out.push(...immediate.bytes);
      break;
    case 'function':
      out.push(...unsigned(immediate.index()));
      break;
    case 'body':
      for (const statement of immediate.statements) encodeNode(statement, out);
      if (immediate.orElse) {
        out.push(0x05);
        for (const statement of immediate.orElse) encodeNode(statement, out);
      }
      out.push(0x0b);
  }
}

/** Signed LEB128 of an integer that a double holds exactly. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (;;) {
    const low = Number(rest & 127n);
    rest >>= 7n;
    const done = (rest === 0n && (low & 64) === 0) || (rest === -1n && (low & 64) !== 0);
    bytes.push(done ? low : low | 128);
    if (done) return bytes;
  }
}

// ------------------------------------------------------------------ text

/** One function as folded S-expressions, close to WebAssembly's text format. */
export function listFunction({ name, params, results, locals, body }: FunctionCode): string {
  const head = `(func $${name} (${params.join(' ')}) -> (${results.join(' ')}) locals: ${locals.length}`;
  return [head, ...body.flatMap((statement) => listStatement(statement, '  ')), ')'].join('\n');
}

function listStatement(node: Node, indent: string): string[] {
  const body = node.immediates.find((immediate) => immediate.kind === 'body');
  if (!body) return [indent + listNode(node)];
  const inner = (statements: readonly Node[]) =>
    statements.flatMap((item) => listStatement(item, `${indent}  `));
  const condition = node.operands.map((operand) => ` ${listNode(operand)}`).join('');
  const orElse = body.orElse ? [`${indent}else`, ...inner(body.orElse)] : [];
  return [`${indent}(${node.op}${condition}`, ...inner(body.statements), ...orElse, `${indent})`];
}

function listNode(node: Node): string {
  const immediates = node.op.includes('$')
    ? []
    : node.immediates.map(listImmediate).filter((text) => text !== '');
  const parts = [node.op, ...immediates, ...node.operands.map(listNode)];
  return parts.length === 1 && node.op.startsWith('local.get') ? node.op.slice(10) : `(${parts.join(' ')})`;
}

function listImmediate(immediate: Immediate): string {
  switch (immediate.kind) {
    case 'memory':
      return immediate.offset === 0 ? '' : `offset=${immediate.offset}`;
    case 'bytes':
      return immediate.bytes.join(' ');
    case 'function':
      return immediate.name;
    case 'body':
      return '';
    default:
      return String(immediate.value);
  }
}
