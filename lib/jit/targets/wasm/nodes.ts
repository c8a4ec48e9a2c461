// lib/jit/targets/wasm/nodes.ts: WebAssembly instructions as trees, and the makers of the functions that build them:
// f32x4.add(a, b) is a tree of three nodes. encoder.ts turns trees into bytes and text.

export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

/** One instruction with its operands. `type` is undefined where nothing is left on the stack. */
export interface Node {
  readonly op: string;
  readonly type: ValueType | undefined;
  readonly code: readonly number[];
  readonly immediates: readonly Immediate[];
  readonly operands: readonly Node[];
}
/** An expression: a node that leaves a value. */
export type Expr = Node & { readonly type: ValueType };
/** What a caller may pass: an expression, or a number that becomes a constant. */
export type Operand = Expr | number;

/** Fields behind an opcode, by their encoding; a body is a nested list of statements. */
export type Immediate =
  | { readonly kind: 'unsigned' | 'signed' | 'signed64' | 'f32' | 'f64' | 'byte'; readonly value: number }
  | { readonly kind: 'memory'; readonly align: number; readonly offset: number }
  | { readonly kind: 'bytes'; readonly bytes: readonly number[] }
  | { readonly kind: 'function'; readonly name: string; readonly index: () => number }
  | { readonly kind: 'body'; readonly statements: readonly Node[]; readonly orElse?: readonly Node[] };

/** Makes a node. */
export function makeNode(
  op: string,
  type: ValueType | undefined,
  code: readonly number[],
  operands: readonly Node[],
  ...immediates: Immediate[]
): Node {
  return { op, type, code, immediates, operands };
}

/** Makes a node that leaves a value. */
export const makeExpr = makeNode as (
  op: string,
  type: ValueType,
  code: readonly number[],
  operands: readonly Node[],
  ...immediates: Immediate[]
) => Expr;

// ------------------------------------------------------------------ constants

/** How a plain number is written where an operand of this interpretation is expected. */
export type Lanes = ValueType | 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2' | 'f32x4' | 'f64x2';

/** A constant of the type; for vectors the number in every lane. */
export function constant(lanes: Lanes, value: number): Expr {
  switch (lanes) {
    case 'i32':
      return makeExpr('i32.const', 'i32', [0x41], [], { kind: 'signed', value: value | 0 });
    case 'i64':
      return makeExpr('i64.const', 'i64', [0x42], [], { kind: 'signed64', value });
    case 'f32':
      return makeExpr('f32.const', 'f32', [0x43], [], { kind: 'f32', value });
    case 'f64':
      return makeExpr('f64.const', 'f64', [0x44], [], { kind: 'f64', value });
    case 'i8x16':
      return vector(
        lanes,
        Int8Array.from({ length: 16 }, () => value),
      );
    case 'i16x8':
      return vector(
        lanes,
        Int16Array.from({ length: 8 }, () => value),
      );
    case 'i32x4':
    case 'v128':
      return vector(
        'i32x4',
        Int32Array.from({ length: 4 }, () => value),
      );
    case 'i64x2':
      return vector(lanes, BigInt64Array.from([BigInt(value), BigInt(value)]));
    case 'f32x4':
      return vector(
        lanes,
        Float32Array.from({ length: 4 }, () => value),
      );
    case 'f64x2':
      return vector(
        lanes,
        Float64Array.from({ length: 2 }, () => value),
      );
  }
}

function vector(lanes: Lanes, values: { buffer: ArrayBufferLike; toString(): string }): Expr {
  const bytes = [...new Uint8Array(values.buffer)];
  return makeExpr(`v128.const ${lanes} ${values.toString()}`, 'v128', [0xfd, 12], [], {
    kind: 'bytes',
    bytes,
  });
}

/** A vector constant of four int32 lanes. */
export const lanesOf = (values: Int32Array): Expr => vector('i32x4', values);

/** A vector constant of one 64-bit integer in both lanes. */
export const lanes64 = (value: bigint): Expr => vector('i64x2', BigInt64Array.from([value, value]));

export const asExpr = (operand: Operand, lanes: Lanes): Expr =>
  typeof operand === 'number' ? constant(lanes, operand) : operand;

// ------------------------------------------------------------------ tables of plain instructions

export const typeOf = (lanes: Lanes): ValueType => (lanes.includes('x') ? 'v128' : (lanes as ValueType));
export const opcode = (prefix: number | undefined, code: number): readonly number[] =>
  prefix === undefined ? [code] : [prefix, ...unsigned(code)];

/** LEB128, as all integers behind opcodes are written. */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? low | 128 : low);
  } while (rest > 0);
  return bytes;
}

export type Table<Name extends string> = Readonly<Record<Name, number>>;

/** Turns { add: 0x6a } into { add: (a, b) => node }; plain numbers become constants of the operand's lanes. */
function define<Name extends string, Arguments extends Operand[]>(
  lanes: Lanes,
  table: Table<Name>,
  result: ValueType,
  operandLanes: readonly Lanes[],
): Record<Name, (...operands: Arguments) => Expr> {
  const prefix = typeOf(lanes) === 'v128' ? 0xfd : undefined;
  const entries = Object.entries<number>(table).map(([name, code]) => {
    const bytes = opcode(prefix, code);
    const make = (...operands: Arguments) =>
      makeExpr(
        `${lanes}.${name}`,
        result,
        bytes,
        operands.map((operand, i) => asExpr(operand, operandLanes[i] ?? lanes)),
      );
    return [name, make];
  });
  return Object.fromEntries(entries) as Record<Name, (...operands: Arguments) => Expr>;
}

export const binary = <Name extends string>(
  lanes: Lanes,
  table: Table<Name>,
  result: ValueType = typeOf(lanes),
  operandLanes: readonly Lanes[] = [lanes, lanes],
) => define<Name, [a: Operand, b: Operand]>(lanes, table, result, operandLanes);

export const unary = <Name extends string>(
  lanes: Lanes,
  table: Table<Name>,
  result: ValueType = typeOf(lanes),
  operandLanes: readonly Lanes[] = [lanes],
) => define<Name, [a: Operand]>(lanes, table, result, operandLanes);

export const ternary = <Name extends string>(lanes: Lanes, table: Table<Name>) =>
  define<Name, [a: Operand, b: Operand, mask: Operand]>(lanes, table, typeOf(lanes), [lanes, lanes, lanes]);

/** Reads a lane number after the opcode. */
export const lane =
  (name: string, code: number, result: ValueType) =>
  (value: Expr, index: number): Expr =>
    makeExpr(name, result, [0xfd, ...unsigned(code)], [value], { kind: 'byte', value: index });

export const splat = (lanes: Lanes, code: number, from: ValueType) => (value: Operand) =>
  makeExpr(`${lanes}.splat`, 'v128', [0xfd, code], [asExpr(value, from)]);
