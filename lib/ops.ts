// lib/ops.ts: the operations that tfjs lacks: reading Weights in their stored type, rotary positions, attention
// over a key/value cache. Tensors and Weights -> tensors.
//
// Each has a plain tfjs implementation that runs on every backend. A backend that registers a kernel under the
// operation's name (jit's `trace` backend does) is given the operation whole instead.
import * as tf from '@tensorflow/tfjs-core';
import type { ParamTree, Weight } from './tensor.js';
import { float32Values, matrixShape, weightEntries } from './tensor.js';

/** Kernel names under which a backend may take an operation whole; inputs and attributes as in each function. */
export type OpName = 'Linear' | 'Embed' | 'WeightTensor' | 'Rotary' | 'CacheAppend' | 'CachedAttention';

/**
 * Runs the current backend's own kernel for an operation, if it has one.
 * @returns undefined where the backend has none: the caller composes the operation from tfjs
 */
export function runNative(
  name: OpName,
  inputs: tf.NamedTensorMap,
  attributes: Readonly<Record<string, unknown>>,
): tf.Tensor | undefined {
  if (!tf.getKernel(name, tf.getBackend())) return undefined;
  // tfjs types attributes as numbers, strings and the like; a Weight travels through unread.
  return tf.engine().runKernel(name, inputs, attributes as unknown as tf.NamedAttrMap) as tf.Tensor;
}

/**
 * Multiplies by a kernel: y = x kernel + bias.
 * @param x [..., in] float32
 * @param kernel [in, out]
 * @param bias [out], optional
 * @returns [..., out]
 * @throws RangeError if x's last axis is not `in` (gives both)
 */
export function linear(x: tf.Tensor, kernel: Weight, bias?: Weight): tf.Tensor {
  const [inDim, outDim] = matrixShape(kernel);
  checkWidth('linear', x, inDim);
  const native = runNative('Linear', { x }, { weight: kernel, transposed: false });
  if (native) return bias ? tf.add(native, vector(bias)) : native;
  return tf.tidy(() => {
    const rows = tf.reshape(x, [-1, inDim]) as tf.Tensor2D;
    const weights = tensorOf(kernel, false) as tf.Tensor2D;
    const product = bias
      ? tf.fused.matMul({ a: rows, b: weights, bias: vector(bias) })
      : tf.matMul(rows, weights);
    return tf.reshape(product, [...x.shape.slice(0, -1), outDim]);
  });
}

/**
 * Turns hidden states into logits with an embedding as the head: y = x embedding^T, its storage shared.
 * @param x [..., dim] float32
 * @param embedding [vocab, dim]
 * @returns [..., vocab]
 */
export function unembed(x: tf.Tensor, embedding: Weight): tf.Tensor {
  const [vocab, dim] = matrixShape(embedding);
  checkWidth('unembed', x, dim);
  const native = runNative('Linear', { x }, { weight: embedding, transposed: true });
  if (native) return native;
  return tf.tidy(() => {
    const rows = tf.reshape(x, [-1, dim]);
    // tfjs multiplies by a transposed matrix five times slower on wasm, so the head is turned once and kept.
    const product = tf.matMul(rows as tf.Tensor2D, tensorOf(embedding, true) as tf.Tensor2D);
    return tf.reshape(product, [...x.shape.slice(0, -1), vocab]);
  });
}

/**
 * Looks rows up in an embedding.
 * @param embedding [vocab, dim]
 * @param indices [...] int32, each below vocab
 * @returns [..., dim] float32
 */
export function embed(embedding: Weight, indices: tf.Tensor): tf.Tensor {
  return (
    runNative('Embed', { indices }, { weight: embedding }) ??
    tf.tidy(() => tf.gather(tensorOf(embedding, false), indices))
  );
}

/** A Weight read whole as a float32 tensor: for norms and biases. */
export function vector(weight: Weight): tf.Tensor1D {
  return (runNative('WeightTensor', {}, { weight }) ?? tensorOf(weight, false)) as tf.Tensor1D;
}

/**
 * Rotates pairs of features by an angle that grows with the position. Feature i is paired with i + headDim / 2,
 * as in Hugging Face's Llama and Mistral.
 * @param x [batch, heads, query, headDim]
 * @param positions [batch, query] int32
 * @param inverseFrequencies headDim / 2 numbers: radians a position
 * @param scale multiplies cosine and sine (1 except for some rope_scaling types)
 * @source Su et al. 2021, arXiv:2104.09864; transformers' modeling_llama.py
 */
export function rotary(
  x: tf.Tensor4D,
  positions: tf.Tensor2D,
  inverseFrequencies: readonly number[],
  scale = 1,
): tf.Tensor4D {
  const native = runNative('Rotary', { x, positions }, { inverseFrequencies, scale });
  if (native) return native as tf.Tensor4D;
  const half = inverseFrequencies.length;
  const [batch, query] = positions.shape;
  const turns = tf.reshape(tf.cast(positions, 'float32'), [batch, 1, query, 1]);
  const angles = tf.mul(turns, tf.tensor1d([...inverseFrequencies])); // [batch, 1, query, headDim / 2]
  const cosine = tf.mul(tf.cos(angles), scale);
  const sine = tf.mul(tf.sin(angles), scale);
  const [first, second] = tf.split(x, [half, half], 3) as [tf.Tensor4D, tf.Tensor4D];
  return tf.concat(
    [
      tf.sub(tf.mul(first, cosine), tf.mul(second, sine)),
      tf.add(tf.mul(second, cosine), tf.mul(first, sine)),
    ],
    3,
  ) as tf.Tensor4D;
}

/**
 * Attention of queries over given keys and values, grouped: heads / kvHeads query heads share a key head.
 * @param q [batch, heads, query, headDim]
 * @param keys [batch, kvHeads, slots, headDim]
 * @param values [batch, kvHeads, slots, headDim]
 * @param mask [batch, 1, query, slots] added to the scores (0 or -1e9); null where every slot is seen
 * @param scale multiplies the scores, usually 1 / sqrt(headDim)
 * @returns [batch, heads, query, headDim]
 * @throws RangeError if heads is not a multiple of kvHeads (gives both)
 * @source Vaswani et al. 2017, section 3.2.1; Ainslie et al. 2023, arXiv:2305.13245
 */
export function attention(
  q: tf.Tensor4D,
  keys: tf.Tensor4D,
  values: tf.Tensor4D,
  mask: tf.Tensor | null,
  scale: number,
): tf.Tensor4D {
  const [batch, heads, query, headDim] = q.shape;
  const [, kvHeads, slots] = keys.shape;
  if (heads % kvHeads !== 0) {
    throw new RangeError(
      `attention: expected heads to be a multiple of kvHeads, received ${heads}, ${kvHeads}`,
    );
  }
  const grouped = [batch, kvHeads, (heads / kvHeads) * query];
  const scores = tf.matMul(tf.reshape(tf.mul(q, scale), [...grouped, headDim]), keys, false, true);
  const byHead = tf.reshape(scores, [batch, heads, query, slots]);
  const weights = tf.softmax(mask ? tf.add(byHead, mask) : byHead);
  const mixed = tf.matMul(tf.reshape(weights, [...grouped, slots]), values);
  return tf.reshape(mixed, [batch, heads, query, headDim]) as tf.Tensor4D;
}

/** Weights as tensors of one tfjs backend; made on first use and kept until releaseTensors. */
const kept = new WeakMap<Weight, Map<string, tf.Tensor>>();

/**
 * The float32 tensor of a Weight on the current backend.
 * A float Weight is decoded once and kept. An integer Weight is decoded anew at each call and belongs to the
 * operation's tidy: its memory stays that of the integers, and its speed is that of decoding (compile it for speed).
 */
function tensorOf(weight: Weight, transposed: boolean): tf.Tensor {
  if (weight.kind !== 'float') return makeTensor(weight, transposed);
  const key = `${tf.getBackend()}${transposed ? ' transposed' : ''}`;
  const tensors = kept.get(weight) ?? new Map<string, tf.Tensor>();
  kept.set(weight, tensors);
  let tensor = tensors.get(key);
  if (!tensor || tensor.isDisposed) {
    // The head of a tied embedding: its rows lie in the backend already, for looking tokens up.
    tensor = transposed ? tf.keep(tf.transpose(tensorOf(weight, false))) : tf.keep(makeTensor(weight, false));
    tensors.set(key, tensor);
  }
  return tensor;
}

function makeTensor(weight: Weight, transposed: boolean): tf.Tensor {
  const straight = tf.tensor(float32Values(weight), [...weight.shape], 'float32');
  return transposed ? tf.transpose(straight) : straight;
}

/** Frees every tensor that tensorOf made for the Weights of a tree; the Weights stay usable. */
export function releaseTensors(params: ParamTree): void {
  for (const [, weight] of weightEntries(params)) {
    for (const tensor of kept.get(weight)?.values() ?? []) tensor.dispose();
    kept.delete(weight);
  }
}

function checkWidth(name: string, x: tf.Tensor, expected: number): void {
  const received = x.shape.at(-1);
  if (received !== expected) {
    throw new RangeError(`${name}: expected a last axis of ${expected}, received [${x.shape.join(', ')}]`);
  }
}
