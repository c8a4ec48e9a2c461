// lib/jit/targets/wasm/memory.ts: loads, stores, copies and atomic accesses.
// Source: WebAssembly core specification 2.0, chapter 5.4.6; atomics (behind 0xfe) from the threads proposal.

import {
  asExpr,
  type Expr,
  type Lanes,
  makeExpr,
  makeNode,
  type Node,
  type Operand,
  type ValueType,
} from './nodes.js';

const log2OfBytes = { 1: 0, 2: 1, 4: 2, 8: 3, 16: 4 } as const;
type Width = keyof typeof log2OfBytes;

const load =
  (op: string, type: ValueType, code: readonly number[], width: Width) =>
  (address: Operand, offset = 0): Expr =>
    makeExpr(op, type, code, [asExpr(address, 'i32')], { kind: 'memory', align: log2OfBytes[width], offset });

const store =
  (op: string, code: readonly number[], width: Width, lanes: Lanes) =>
  (address: Operand, value: Operand, offset = 0): Node =>
    makeNode(op, undefined, code, [asExpr(address, 'i32'), asExpr(value, lanes)], {
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
  makeNode(
    'v128.store64_lane',
    undefined,
    [0xfd, 91],
    [asExpr(address, 'i32'), value],
    { kind: 'memory', align: 3, offset },
    { kind: 'byte', value: 0 },
  );

/** Replaces one 32-bit lane of a vector by what lies at the address. */
export const loadLane32 = (address: Operand, vector: Expr, index: number, offset = 0): Expr =>
  makeExpr(
    'v128.load32_lane',
    'v128',
    [0xfd, 86],
    [asExpr(address, 'i32'), vector],
    { kind: 'memory', align: 2, offset },
    { kind: 'byte', value: index },
  );

/** Stores one 32-bit lane of a vector. */
export const storeLane32 = (address: Operand, vector: Expr, index: number, offset = 0): Node =>
  makeNode(
    'v128.store32_lane',
    undefined,
    [0xfd, 90],
    [asExpr(address, 'i32'), vector],
    { kind: 'memory', align: 2, offset },
    { kind: 'byte', value: index },
  );

/** Copies bytes; the ranges may overlap. */
export const copyMemory = (to: Operand, from: Operand, bytes: Operand): Node =>
  makeNode(
    'memory.copy',
    undefined,
    [0xfc, 10],
    [to, from, bytes].map((operand) => asExpr(operand, 'i32')),
    { kind: 'bytes', bytes: [0, 0] },
  );

/** Fills bytes with one value. */
export const fillMemory = (to: Operand, value: Operand, bytes: Operand): Node =>
  makeNode(
    'memory.fill',
    undefined,
    [0xfc, 11],
    [to, value, bytes].map((operand) => asExpr(operand, 'i32')),
    { kind: 'bytes', bytes: [0] },
  );

const atomic =
  (op: string, code: number, lanes: readonly Lanes[], result: ValueType | undefined = 'i32', align = 2) =>
  (...operands: Operand[]): Expr =>
    makeExpr(
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
