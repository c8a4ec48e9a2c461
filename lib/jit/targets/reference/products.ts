// lib/jit/targets/reference/products.ts: matrix products with their epilogues, embedding, on plain arrays. Sums are
// kept in double precision and rounded once.

import type { Weight } from '../../../tensor.js';
import { float32Values } from '../../../tensor.js';
import type { Epilogue, LinearProduct } from '../../graph.js';
import { broadcastView } from '../../graph.js';
import { programFunction } from '../../scalar.js';
import type { Kernel, Tensor } from './tensors.js';
import { forEachIndex, rowsOf } from './tensors.js';

/** Runs an epilogue's program over products (of the output's shape) and operands. */
function applyEpilogue(
  { products, operands, program }: Epilogue,
  all: readonly Float32Array[],
  inputs: readonly Tensor[],
  output: Tensor,
): void {
  const run = programFunction(program);
  const views = operands.map((operand) => operand.view);
  forEachIndex(output.shape, views, (at, elements) => {
    output.values[at] = run([
      ...products.map((product) => all[product]![at]!),
      ...operands.map((operand, which) => inputs[operand.input]!.values[elements[which]!]!),
    ]);
  });
}

const decoded = new WeakMap<Weight, Float32Array>();

/** Values of a Weight, decoded once. */
function valuesOf(weight: Weight): Float32Array {
  const values = decoded.get(weight) ?? float32Values(weight);
  decoded.set(weight, values);
  return values;
}

/** x [rows, in] times a Weight -> [rows, out], its columns cut where the product says so. */
function linearProduct(x: Tensor, product: LinearProduct, weights: readonly Weight[]): Float32Array {
  const weight = weights[product.weight]!;
  const values = valuesOf(weight);
  const inDim = weight.shape[product.transposed ? 1 : 0]!;
  const outDim = weight.shape[product.transposed ? 0 : 1]!;
  const [inStep, outStep] = product.transposed ? [1, inDim] : [outDim, 1];
  const { begin, end } = product.columns ?? { begin: 0, end: outDim };
  const rows = rowsOf(x);
  const result = new Float32Array(rows * (end - begin));
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = begin; column < end; column++, at++) {
      let sum = 0;
      for (let i = 0; i < inDim; i++)
        sum += x.values[row * inDim + i]! * values[i * inStep + column * outStep]!;
      result[at] = sum;
    }
  }
  return result;
}

const batchMatMul: Kernel<'BatchMatMul'> = ({ transposeA, transposeB, epilogue }, inputs, [output]) => {
  const [a, b] = inputs as [Tensor, Tensor];
  const [m, n] = output!.shape.slice(-2) as [number, number];
  const k = a.shape.at(transposeA ? -2 : -1)!;
  const [aRow, aStep] = transposeA ? [1, m] : [k, 1];
  const [bStep, bColumn] = transposeB ? [1, k] : [n, 1];
  const batch = output!.shape.slice(0, -2);
  const views = [a, b].map((each) => broadcastView(each.shape.slice(0, -2), batch));
  const product = new Float32Array(output!.values.length);
  forEachIndex(batch, views, (at, [first, second]) => {
    for (let row = 0; row < m; row++) {
      for (let column = 0; column < n; column++) {
        let sum = 0;
        for (let i = 0; i < k; i++) {
          const left = a.values[first! * m * k + row * aRow + i * aStep]!;
          sum += left * b.values[second! * k * n + i * bStep + column * bColumn]!;
        }
        product[(at * m + row) * n + column] = sum;
      }
    }
  });
  applyEpilogue(epilogue, [product], inputs, output!);
};

const linear: Kernel<'Linear'> = ({ products, epilogues }, inputs, outputs, weights) => {
  const all = products.map((product) => linearProduct(inputs[0]!, product, weights));
  for (const [i, epilogue] of epilogues.entries()) applyEpilogue(epilogue, all, inputs, outputs[i]!);
};

const embed: Kernel<'Embed'> = ({ weight }, [indices], [output], weights) => {
  const values = valuesOf(weights[weight]!);
  const [vocab, dim] = weights[weight]!.shape as [number, number];
  for (const [i, index] of indices!.values.entries()) {
    const valid = index >= 0 && index < vocab;
    for (let k = 0; k < dim; k++) output!.values[i * dim + k] = valid ? values[index * dim + k]! : Number.NaN;
  }
};

const weightTensor: Kernel<'WeightTensor'> = ({ weight }, _, [output], weights) => {
  output!.values.set(valuesOf(weights[weight]!));
};

export const productKernels = {
  BatchMatMul: batchMatMul,
  Linear: linear,
  Embed: embed,
  WeightTensor: weightTensor,
};
