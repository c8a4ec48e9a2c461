// lib/jit/targets/wasm/instructions.ts: WebAssembly's instructions as typed functions that build expression trees:
// f32x4.add(a, b) is a tree of three nodes; encoder.ts turns trees into bytes, listing.ts into text.
// Only what the kernels use is listed. Plain numbers stand for constants of the operand's type.
// Source: WebAssembly core specification 2.0, chapter 5.4, and its threads proposal (opcodes behind 0xfe).

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

function node(
  op: string,
  type: ValueType | undefined,
  code: readonly number[],
  operands: readonly Node[],
  ...immediates: Immediate[]
): Node {
  return { op, type, code, immediates, operands };
}

const expr = node as (
  op: string,
  type: ValueType,
  code: readonly number[],
  operands: readonly Node[],
  ...immediates: Immediate[]
) => Expr;

export { expr as makeExpr, node as makeNode };

// ------------------------------------------------------------------ constants

/** How a plain number is written where an operand of this interpretation is expected. */
type Lanes = ValueType | 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2' | 'f32x4' | 'f64x2';

/** A constant of the type; for vectors the number in every lane. */
export function constant(lanes: Lanes, value: number): Expr {
  switch (lanes) {
    case 'i32':
      return expr('i32.const', 'i32', [0x41], [], { kind: 'signed', value: value | 0 });
    case 'i64':
      return expr('i64.const', 'i64', [0x42], [], { kind: 'signed64', value });
    case 'f32':
      return expr('f32.const', 'f32', [0x43], [], { kind: 'f32', value });
    case 'f64':
      return expr('f64.const', 'f64', [0x44], [], { kind: 'f64', value });
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
  return expr(`v128.const ${lanes} ${values.toString()}`, 'v128', [0xfd, 12], [], { kind: 'bytes', bytes });
}

/** A vector constant of four int32 lanes. */
export const lanesOf = (values: Int32Array): Expr => vector('i32x4', values);

/** A vector constant of one 64-bit integer in both lanes. */
export const lanes64 = (value: bigint): Expr => vector('i64x2', BigInt64Array.from([value, value]));

const asExpr = (operand: Operand, lanes: Lanes): Expr =>
  typeof operand === 'number' ? constant(lanes, operand) : operand;

// ------------------------------------------------------------------ tables of plain instructions

const typeOf = (lanes: Lanes): ValueType => (lanes.includes('x') ? 'v128' : (lanes as ValueType));
const opcode = (prefix: number | undefined, code: number): readonly number[] =>
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

type Table<Name extends string> = Readonly<Record<Name, number>>;

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
      expr(
        `${lanes}.${name}`,
        result,
        bytes,
        operands.map((operand, i) => asExpr(operand, operandLanes[i] ?? lanes)),
      );
    return [name, make];
  });
  return Object.fromEntries(entries) as Record<Name, (...operands: Arguments) => Expr>;
}

const binary = <Name extends string>(
  lanes: Lanes,
  table: Table<Name>,
  result: ValueType = typeOf(lanes),
  operandLanes: readonly Lanes[] = [lanes, lanes],
) => define<Name, [a: Operand, b: Operand]>(lanes, table, result, operandLanes);

const unary = <Name extends string>(
  lanes: Lanes,
  table: Table<Name>,
  result: ValueType = typeOf(lanes),
  operandLanes: readonly Lanes[] = [lanes],
) => define<Name, [a: Operand]>(lanes, table, result, operandLanes);

const ternary = <Name extends string>(lanes: Lanes, table: Table<Name>) =>
  define<Name, [a: Operand, b: Operand, mask: Operand]>(lanes, table, typeOf(lanes), [lanes, lanes, lanes]);

/** Reads a lane number after the opcode. */
const lane =
  (name: string, code: number, result: ValueType) =>
  (value: Expr, index: number): Expr =>
    expr(name, result, [0xfd, ...unsigned(code)], [value], { kind: 'byte', value: index });

const splat = (lanes: Lanes, code: number, from: ValueType) => (value: Operand) =>
  expr(`${lanes}.splat`, 'v128', [0xfd, code], [asExpr(value, from)]);

export const i32 = {
  ...binary('i32', integerBinary(0x6a)),
  ...binary('i32', integerComparison(0x46)),
  ...unary('i32', { eqz: 0x45 }),
  ...unary('i32', { clz: 0x67, ctz: 0x68, popcnt: 0x69 }),
  ...unary('i32', { wrap_i64: 0xa7 }, 'i32', ['i64']),
  ...unary('i32', { trunc_f32_s: 0xa8 }, 'i32', ['f32']),
  ...unary('i32', { reinterpret_f32: 0xbc }, 'i32', ['f32']),
  trunc_sat_f32_s: (value: Operand) => expr('i32.trunc_sat_f32_s', 'i32', [0xfc, 0], [asExpr(value, 'f32')]),
};

export const i64 = {
  ...binary('i64', integerBinary(0x7c)),
  ...binary('i64', integerComparison(0x51), 'i32'),
  ...unary('i64', { extend_i32_s: 0xac, extend_i32_u: 0xad }, 'i64', ['i32']),
};

type IntegerBinary =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div_s'
  | 'div_u'
  | 'rem_s'
  | 'rem_u'
  | 'and'
  | 'or'
  | 'xor'
  | 'shl'
  | 'shr_s'
  | 'shr_u'
  | 'rotl'
  | 'rotr';
type IntegerComparison = 'eq' | 'ne' | 'lt_s' | 'lt_u' | 'gt_s' | 'gt_u' | 'le_s' | 'le_u' | 'ge_s' | 'ge_u';

/** The fifteen integer operations stand in one order for both widths. */
function integerBinary(first: number): Table<IntegerBinary> {
  const names: readonly IntegerBinary[] = [
    'add',
    'sub',
    'mul',
    'div_s',
    'div_u',
    'rem_s',
    'rem_u',
    'and',
    'or',
    'xor',
    'shl',
    'shr_s',
    'shr_u',
    'rotl',
    'rotr',
  ];
  return numbered(names, first);
}

function integerComparison(first: number): Table<IntegerComparison> {
  return numbered(['eq', 'ne', 'lt_s', 'lt_u', 'gt_s', 'gt_u', 'le_s', 'le_u', 'ge_s', 'ge_u'], first);
}

function numbered<Name extends string>(names: readonly Name[], first: number): Table<Name> {
  return Object.fromEntries(names.map((name, i) => [name, first + i])) as Table<Name>;
}

type FloatComparison = 'eq' | 'ne' | 'lt' | 'gt' | 'le' | 'ge';
type FloatBinary = 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max' | 'copysign';
type FloatUnary = 'abs' | 'neg' | 'ceil' | 'floor' | 'trunc' | 'nearest' | 'sqrt';
const floatComparisons: readonly FloatComparison[] = ['eq', 'ne', 'lt', 'gt', 'le', 'ge'];
const floatBinaries: readonly FloatBinary[] = ['add', 'sub', 'mul', 'div', 'min', 'max', 'copysign'];
const floatUnaries: readonly FloatUnary[] = ['abs', 'neg', 'ceil', 'floor', 'trunc', 'nearest', 'sqrt'];

export const f32 = {
  ...unary('f32', numbered(floatUnaries, 0x8b)),
  ...binary('f32', numbered(floatBinaries, 0x92)),
  ...binary('f32', numbered(floatComparisons, 0x5b), 'i32'),
  ...unary('f32', { convert_i32_s: 0xb2, convert_i32_u: 0xb3 }, 'f32', ['i32']),
  ...unary('f32', { reinterpret_i32: 0xbe }, 'f32', ['i32']),
  ...unary('f32', { demote_f64: 0xb6 }, 'f32', ['f64']),
};

export const f64 = {
  ...unary('f64', numbered(floatUnaries, 0x99)),
  ...binary('f64', numbered(floatBinaries, 0xa0)),
  ...unary('f64', { promote_f32: 0xbb }, 'f64', ['f32']),
};

// ------------------------------------------------------------------ vectors

export const v128 = {
  ...binary('v128', { and: 78, andnot: 79, or: 80, xor: 81 }),
  ...unary('v128', { not: 77 }),
  ...unary('v128', { any_true: 83 }, 'i32'),
  /** Lane by lane: bits of `a` where the mask is 1, of `b` where it is 0. */
  ...ternary('v128', { bitselect: 82 }),
};

export const i8x16 = {
  ...binary('i8x16', { add: 110, sub: 113, swizzle: 14, eq: 35 }),
  ...binary('i8x16', { shl: 107, shr_s: 108, shr_u: 109 }, 'v128', ['i8x16', 'i32']),
  /** The 16 bytes chosen from the 32 of both operands. */
  shuffle: (a: Expr, b: Expr, lanes: readonly number[]) =>
    expr('i8x16.shuffle', 'v128', [0xfd, 13], [a, b], { kind: 'bytes', bytes: lanes }),
  splat: splat('i8x16', 15, 'i32'),
};

export const i16x8 = {
  ...binary('i16x8', {
    add: 142,
    sub: 145,
    mul: 149,
    eq: 45,
    narrow_i32x4_s: 133,
  }),
  ...unary('i16x8', {
    extend_low_i8x16_s: 135,
    extend_high_i8x16_s: 136,
    extend_low_i8x16_u: 137,
    extend_high_i8x16_u: 138,
  }),
  ...binary('i16x8', { shl: 139, shr_s: 140, shr_u: 141 }, 'v128', ['i16x8', 'i32']),
  splat: splat('i16x8', 16, 'i32'),
};

export const i32x4 = {
  ...binary('i32x4', {
    add: 174,
    sub: 177,
    mul: 181,
    min_s: 182,
    max_s: 184,
    dot_i16x8_s: 186,
    eq: 55,
    ne: 56,
    lt_s: 57,
    gt_s: 59,
    gt_u: 60,
    le_s: 61,
    ge_s: 63,
  }),
  ...unary('i32x4', {
    abs: 160,
    neg: 161,
    trunc_sat_f32x4_s: 248,
    trunc_sat_f64x2_s_zero: 252,
    extend_low_i16x8_s: 167,
    extend_high_i16x8_s: 168,
  }),
  ...unary('i32x4', {
    extend_low_i16x8_u: 169,
    extend_high_i16x8_u: 170,
  }),
  ...binary('i32x4', { shl: 171, shr_s: 172, shr_u: 173 }, 'v128', ['i32x4', 'i32']),
  splat: splat('i32x4', 17, 'i32'),
  extractLane: lane('i32x4.extract_lane', 27, 'i32'),
  replaceLane: (vector: Expr, index: number, value: Operand) =>
    expr('i32x4.replace_lane', 'v128', [0xfd, 28], [vector, asExpr(value, 'i32')], {
      kind: 'byte',
      value: index,
    }),
};

export const f32x4 = {
  ...binary('f32x4', numbered(floatComparisons, 65)),
  ...binary('f32x4', {
    add: 228,
    sub: 229,
    mul: 230,
    div: 231,
    min: 232,
    max: 233,
    pmin: 234,
    pmax: 235,
  }),
  ...unary('f32x4', {
    abs: 224,
    neg: 225,
    sqrt: 227,
    ceil: 103,
    floor: 104,
    trunc: 105,
    nearest: 106,
    convert_i32x4_s: 250,
  }),
  ...unary('f32x4', { demote_f64x2_zero: 94 }),
  splat: splat('f32x4', 19, 'f32'),
  extractLane: lane('f32x4.extract_lane', 31, 'f32'),
};

export const f64x2 = {
  ...binary('f64x2', numbered(floatComparisons, 71)),
  ...binary('f64x2', {
    add: 240,
    sub: 241,
    mul: 242,
    div: 243,
    min: 244,
    max: 245,
  }),
  ...unary('f64x2', {
    abs: 236,
    neg: 237,
    sqrt: 239,
    floor: 117,
    nearest: 148,
  }),
  ...unary('f64x2', {
    promote_low_f32x4: 95,
    convert_low_i32x4_s: 254,
  }),
};

export const i64x2 = {
  ...binary('i64x2', { add: 206, sub: 209, eq: 214 }),
  ...binary('i64x2', { shl: 203, shr_s: 204, shr_u: 205 }, 'v128', ['i64x2', 'i32']),
  ...unary('i64x2', { extend_low_i32x4_s: 199 }),
};

// ------------------------------------------------------------------ memory

const log2OfBytes = { 1: 0, 2: 1, 4: 2, 8: 3, 16: 4 } as const;
type Width = keyof typeof log2OfBytes;

const load =
  (op: string, type: ValueType, code: readonly number[], width: Width) =>
  (address: Operand, offset = 0): Expr =>
    expr(op, type, code, [asExpr(address, 'i32')], { kind: 'memory', align: log2OfBytes[width], offset });

const store =
  (op: string, code: readonly number[], width: Width, lanes: Lanes) =>
  (address: Operand, value: Operand, offset = 0): Node =>
    node(op, undefined, code, [asExpr(address, 'i32'), asExpr(value, lanes)], {
      kind: 'memory',
      align: log2OfBytes[width],
      offset,
    });

/** Loads: (address, constant offset) -> value. */
export const loads = {
  i32: load('i32.load', 'i32', [0x28], 4),
  i64: load('i64.load', 'i64', [0x29], 8),
  f32: load('f32.load', 'f32', [0x2a], 4),
  f64: load('f64.load', 'f64', [0x2b], 8),
  i8: load('i32.load8_s', 'i32', [0x2c], 1),
  u8: load('i32.load8_u', 'i32', [0x2d], 1),
  i16: load('i32.load16_s', 'i32', [0x2e], 2),
  u16: load('i32.load16_u', 'i32', [0x2f], 2),
  v128: load('v128.load', 'v128', [0xfd, 0], 16),
  /** Eight int8 to eight int16. */
  i8ToI16x8: load('v128.load8x8_s', 'v128', [0xfd, 1], 8),
  u8ToI16x8: load('v128.load8x8_u', 'v128', [0xfd, 2], 8),
  /** Four 16-bit integers to four int32. */
  i16ToI32x4: load('v128.load16x4_s', 'v128', [0xfd, 3], 8),
  u16ToI32x4: load('v128.load16x4_u', 'v128', [0xfd, 4], 8),
  /** One 32-bit value in all four lanes. */
  splat32: load('v128.load32_splat', 'v128', [0xfd, 9], 4),
  /** One 64-bit value in both halves. */
  splat64: load('v128.load64_splat', 'v128', [0xfd, 10], 8),
  /** One 32-bit value in lane 0, zeros above. */
  zero32: load('v128.load32_zero', 'v128', [0xfd, 92], 4),
};

/** Stores: (address, value, constant offset). */
export const stores = {
  i32: store('i32.store', [0x36], 4, 'i32'),
  i64: store('i64.store', [0x37], 8, 'i64'),
  f32: store('f32.store', [0x38], 4, 'f32'),
  u8: store('i32.store8', [0x3a], 1, 'i32'),
  u16: store('i32.store16', [0x3b], 2, 'i32'),
  v128: store('v128.store', [0xfd, 11], 16, 'v128'),
  f64: store('f64.store', [0x39], 8, 'f64'),
};

/** Stores eight bytes: the low half of a vector. */
export const storeLow64 = (address: Operand, value: Expr, offset = 0): Node =>
  node(
    'v128.store64_lane',
    undefined,
    [0xfd, 91],
    [asExpr(address, 'i32'), value],
    { kind: 'memory', align: 3, offset },
    { kind: 'byte', value: 0 },
  );

/** Replaces one 32-bit lane of a vector by what lies at the address. */
export const loadLane32 = (address: Operand, vector: Expr, index: number, offset = 0): Expr =>
  expr(
    'v128.load32_lane',
    'v128',
    [0xfd, 86],
    [asExpr(address, 'i32'), vector],
    { kind: 'memory', align: 2, offset },
    { kind: 'byte', value: index },
  );

/** Stores one 32-bit lane of a vector. */
export const storeLane32 = (address: Operand, vector: Expr, index: number, offset = 0): Node =>
  node(
    'v128.store32_lane',
    undefined,
    [0xfd, 90],
    [asExpr(address, 'i32'), vector],
    { kind: 'memory', align: 2, offset },
    { kind: 'byte', value: index },
  );

/** Copies bytes; the ranges may overlap. */
export const copyMemory = (to: Operand, from: Operand, bytes: Operand): Node =>
  node(
    'memory.copy',
    undefined,
    [0xfc, 10],
    [to, from, bytes].map((operand) => asExpr(operand, 'i32')),
    { kind: 'bytes', bytes: [0, 0] },
  );

/** Fills bytes with one value. */
export const fillMemory = (to: Operand, value: Operand, bytes: Operand): Node =>
  node(
    'memory.fill',
    undefined,
    [0xfc, 11],
    [to, value, bytes].map((operand) => asExpr(operand, 'i32')),
    { kind: 'bytes', bytes: [0] },
  );

const atomic =
  (op: string, code: number, lanes: readonly Lanes[], result: ValueType | undefined = 'i32', align = 2) =>
  (...operands: Operand[]): Expr =>
    expr(
      op,
      // A store leaves nothing; its callers use it as a statement only.
      result as ValueType,
      [0xfe, code],
      operands.map((operand, i) => asExpr(operand, lanes[i]!)),
      { kind: 'memory', align, offset: 0 },
    );

/** Atomic accesses to int32 in shared memory. */
export const atomics = {
  load: atomic('i32.atomic.load', 0x10, ['i32']),
  store: atomic('i32.atomic.store', 0x17, ['i32', 'i32'], undefined),
  add: atomic('i32.atomic.rmw.add', 0x1e, ['i32', 'i32']),
  exchange: atomic('i32.atomic.rmw.xchg', 0x41, ['i32', 'i32']),
  /** (address, expected, replacement) -> old value. */
  compareExchange: atomic('i32.atomic.rmw.cmpxchg', 0x48, ['i32', 'i32', 'i32']),
  /** (address, most waiters to wake) -> woken. */
  notify: atomic('memory.atomic.notify', 0x00, ['i32', 'i32']),
  /** (address, expected, timeout in nanoseconds) -> 0 woken, 1 other value, 2 timed out. */
  wait: atomic('memory.atomic.wait32', 0x01, ['i32', 'i32', 'i64']),
};

/** Evaluates and forgets: as a statement, a load only brings its cache line in. */
export const drop = (value: Expr): Node => node('drop', undefined, [0x1a], [value]);

/** `a` where the condition is not zero, else `b`; both are evaluated. */
export const select = (a: Operand, b: Operand, condition: Expr, type: ValueType): Expr =>
  expr('select', type, [0x1b], [asExpr(a, type), asExpr(b, type), condition]);
