// lib/jit/targets/wasm/matmul.ts: BatchMatMul: products of two tensors. The second factor is packed panel by panel into
// scratch memory; then as Linear. One unit of work is one panel of one batch.

import { sizeOf } from '../../../tensor.js';
import type { StructuredNode, Value } from '../../graph.js';
import { broadcastView } from '../../graph.js';
import type { KernelStep } from '../../steps.js';
import type { FunctionBuilder, Local } from './builder.js';
import type { Kernel, KernelContext } from './context.js';
import { addStrides, unravel } from './elementwise.js';
import { loads, stores } from './memory.js';
import type { Expr, Operand } from './nodes.js';
import { layoutOf, PANEL } from './pack.js';
import { multiplyPanels, runEpilogue, STRIP_BYTES } from './panels.js';
import { i32 } from './scalars.js';
import { v128 } from './vectors.js';

export function emitBatchMatMul(context: KernelContext, step: KernelStep): Kernel {
  const node = step.node as StructuredNode<'BatchMatMul'>;
  const { transposeA, transposeB, epilogue } = node.attrs;
  const [a, b] = node.inputs as [Value, Value];
  const { shape } = node.outputs[0]!;
  const [m, n] = shape.slice(-2) as [number, number];
  const k = a.shape.at(transposeA ? -2 : -1)!;
  const batch = shape.slice(0, -2);
  const layout = layoutOf({ kind: 'float', dtype: 'f32', shape: [k, n] }, false);
  const panelAt = layout.panelBytes;
  const turnedAt = panelAt + m * STRIP_BYTES;
  const { f, begin, end } = context.kernel('matmul');
  const scratch = f.let('scratch', context.scratch(turnedAt + (transposeA ? m * k * 4 : 0)));
  const unit = f.local('i32', 'unit');
  const [aBase, bBase] = [0, 1].map((i) => f.let('base', context.addresses.place(step.inputs[i]!))) as [
    Local,
    Local,
  ];
  f.loop(unit, begin, end, 1, () => {
    const panel = f.let('panel', i32.rem_u(unit, layout.panels));
    const index = f.let('batch', i32.div_u(unit, layout.panels));
    const indices = unravel(f, index, batch);
    const matrixAt = (base: Local, value: Value) => {
      const view = broadcastView(value.shape.slice(0, -2), batch);
      const matrix = sizeOf(value.shape.slice(-2));
      return f.let(
        'matrix',
        addStrides(
          base,
          indices,
          view.strides.map((stride) => stride * matrix),
        ),
      );
    };
    const [left, right] = [matrixAt(aBase, a), matrixAt(bBase, b)];
    packPanel(f, right, scratch, panel, { k, n, transposed: transposeB });
    if (transposeA) transposeRows(f, left, i32.add(scratch, turnedAt), m, k);
    const inputs = transposeA ? f.let('turned', i32.add(scratch, turnedAt)) : left;
    const sums = f.let('sums', i32.add(scratch, panelAt));
    const inputLayout = { rowBytes: k * 4, scalesAt: 0, sumsAt: 0 };
    multiplyPanels(
      context,
      f,
      { layout, multiplied: layout, decoded: scratch, weights: scratch, inputs, inputLayout, columns: n },
      { stream: scratch, panels: 1, sums, sumsBytes: 0 },
      m,
    );
    const firstRow = f.let('firstRow', i32.mul(index, m));
    runEpilogue(context, f, epilogue, { node, step, index: 0, columns: n }, panel, sums, m, firstRow);
  });
  const batches = sizeOf(batch);
  return context.finish(f, m * n === 0 ? 0 : batches * layout.panels);
}

interface MatrixShape {
  readonly k: number;
  readonly n: number;
  readonly transposed: boolean;
}

/** [k][16] columns of a matrix [k, n], or [n, k] if transposed; zeros beyond n. */
function packPanel(
  f: FunctionBuilder,
  from: Local,
  to: Local,
  panel: Local,
  { k, n, transposed }: MatrixShape,
): void {
  const [rowStep, columnStep] = transposed ? [1, k] : [n, 1];
  const row = f.local('i32', 'row');
  const lane = f.local('i32', 'lane');
  const first = f.let('first', i32.shl(panel, 4));
  const isWhole = i32.le_u(i32.add(first, PANEL), n);
  const source = f.let('source', i32.add(from, i32.mul(first, columnStep * 4)));
  const target = f.let('target', to);
  const rowStart = f.let('rowStart', source);
  const copyLanes = (count: Operand) => {
    f.set(source, rowStart);
    f.loop(lane, 0, count, 1, () => {
      f.do(stores.f32(i32.add(target, i32.shl(lane, 2)), loads.f32(source)));
      f.increase(source, columnStep * 4);
    });
  };
  const copyVectors = () => {
    for (let vector = 0; vector < PANEL / 4; vector++)
      f.do(stores.v128(target, loads.v128(rowStart, vector * 16), vector * 16));
  };
  const partly = () => {
    for (let vector = 0; vector < PANEL / 4; vector++) f.do(stores.v128(target, zero, vector * 16));
    copyLanes(i32.sub(n, first));
  };
  f.loop(row, 0, k, 1, () => {
    f.when(isWhole, columnStep === 1 ? copyVectors : () => copyLanes(PANEL), partly);
    f.increase(target, STRIP_BYTES);
    f.increase(rowStart, rowStep * 4);
  });
}

const zero = v128.xor(0, 0);

/** [k, m] -> [m, k]. */
function transposeRows(f: FunctionBuilder, from: Local, to: Expr, m: number, k: number): void {
  const [row, column] = [f.local('i32', 'row'), f.local('i32', 'column')];
  const target = f.let('target', to);
  const source = f.local('i32', 'source');
  f.loop(row, 0, m, 1, () => {
    f.set(source, i32.add(from, i32.shl(row, 2)));
    f.loop(column, 0, k, 1, () => {
      f.do(stores.f32(target, loads.f32(source)));
      f.increase(target, 4);
      f.increase(source, m * 4);
    });
  });
}
