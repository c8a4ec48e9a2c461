// lib/jit/targets/wasm/strips.ts: the innermost loop of elementwise work: a program over a run of consecutive output
// elements, four at a time. Used by Elementwise itself and for the epilogues of products.

import type { Program } from '../../graph.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { KernelContext } from './context.js';
import { loadLane32, loads, storeLane32, stores } from './memory.js';
import type { Expr, Operand } from './nodes.js';
import { emitProgram } from './program.js';
import { i32 } from './scalars.js';
import { i8x16 } from './vectors.js';

/** An operand of a strip: where its first element lies, and the step to the next one, in elements. */
export interface StripOperand {
  readonly pointer: Local;
  readonly stride: number;
}

/**
 * Emits the loop. Operands are read in vectors up to three elements past the end; nothing is written there.
 * @param out address of the first output element; kept
 * @param count elements, a number where it is known
 */
export function emitStrip(
  context: KernelContext,
  f: FunctionBuilder,
  program: Program,
  operands: readonly StripOperand[],
  out: Local,
  count: Operand,
): void {
  const at = f.local('i32', 'at'); // bytes from the strip's start
  const bytes = typeof count === 'number' ? count * 4 : f.let('bytes', i32.shl(count, 2));
  // Operands with other strides than 0 and 1 step by themselves.
  const moving = operands.map(({ pointer, stride }) =>
    stride === 0 || stride === 1 ? pointer : f.let('walk', pointer),
  );
  f.loop(at, 0, bytes, 16, () => {
    const result = emitProgram(context, f, program, (index) => {
      const { stride } = operands[index]!;
      return loadFour(f, moving[index]!, stride, at);
    });
    storeFour(f, out, at, result, count, bytes);
    operands.forEach(({ stride }, index) => {
      if (stride !== 0 && stride !== 1) f.increase(moving[index]!, stride * 16);
    });
  });
}

function loadFour(f: FunctionBuilder, pointer: Local, stride: number, at: Local): Expr {
  if (stride === 0) return loads.splat32(pointer);
  if (stride === 1) return loads.v128(i32.add(pointer, at));
  if (stride === -1) {
    const before = f.let('reversed', loads.v128(i32.sub(pointer, 12)));
    return i8x16.shuffle(before, before, [12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]);
  }
  const address = (i: number) => (i === 0 ? pointer : i32.add(pointer, i * stride * 4));
  return [1, 2, 3].reduce<Expr>((vector, i) => loadLane32(address(i), vector, i), loads.zero32(pointer));
}

/** A whole vector, or the lanes before the end. */
function storeFour(
  f: FunctionBuilder,
  out: Local,
  at: Local,
  result: Expr,
  count: Operand,
  bytes: Operand,
): void {
  const address = () => i32.add(out, at);
  if (typeof count === 'number' && count % 4 === 0) {
    f.do(stores.v128(address(), result));
    return;
  }
  const value = f.let('value', result);
  storeLanes(f, address(), value, i32.sub(bytes, at));
}

/** Stores as many of four lanes as `left` bytes hold: all of them for 16 and more. */
export function storeLanes(f: FunctionBuilder, address: Expr, value: Local, left: Expr): void {
  const to = f.let('to', address);
  const rest = f.let('rest', left);
  const partly = () => {
    f.do(storeLane32(to, value, 0));
    f.when(i32.gt_u(rest, 4), () => f.do(storeLane32(to, value, 1, 4)));
    f.when(i32.gt_u(rest, 8), () => f.do(storeLane32(to, value, 2, 8)));
  };
  f.when(i32.ge_u(rest, 16), () => f.do(stores.v128(to, value)), partly);
}
