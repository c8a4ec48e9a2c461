// lib/jit/targets/reference/attention.ts: rotary positions, the key/value cache and attention on plain arrays.

import type { ElementValues } from '../../graph.js';
import type { Kernel, Tensor } from './tensors.js';
import { forEachIndex, rowOf } from './tensors.js';

/** Writes sum of softmax(scores)[i] * row(i) into `output`. */
function mix(scores: readonly number[], row: (i: number) => ElementValues, output: ElementValues): void {
  const max = scores.reduce((held, score) => Math.max(held, score), Number.NEGATIVE_INFINITY);
  const weights = scores.map((score) => Math.exp(score - max));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  for (let d = 0; d < output.length; d++) {
    output[d] = weights.reduce((sum, weight, i) => sum + weight * row(i)[d]!, 0) / total;
  }
}

function dot(a: ElementValues, b: ElementValues): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

const rotary: Kernel<'Rotary'> = ({ inverseFrequencies, scale, layout }, [x, positions], [output]) => {
  const [, heads, query, headDim] = x!.shape as [number, number, number, number];
  const half = headDim / 2;
  forEachIndex(x!.shape.slice(0, 3), [], (row) => {
    const batch = Math.floor(row / (heads * query));
    const position = positions!.values[batch * query + (row % query)]!;
    for (let i = 0; i < half; i++) {
      // As in f32: the frequency and the angle are rounded before cosine and sine are taken.
      const angle = Math.fround(position * Math.fround(inverseFrequencies[i]!));
      const [cosine, sine] = [Math.cos(angle) * scale, Math.sin(angle) * scale];
      const first = row * headDim + (layout === 'halves' ? i : 2 * i);
      const second = layout === 'halves' ? first + half : first + 1;
      const [a, b] = [x!.values[first]!, x!.values[second]!];
      output!.values[first] = a * cosine - b * sine;
      output!.values[second] = b * cosine + a * sine;
    }
  });
};

const cacheAppend: Kernel<'CacheAppend'> = (_, [cache, update, start, count], [output]) => {
  output!.values.set(cache!.values);
  const [batch, kvHeads, capacity] = cache!.shape as [number, number, number];
  const query = update!.shape[2]!;
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < kvHeads; head++) {
      for (let i = 0; i < Math.min(count!.values[b]!, query); i++) {
        const row = b * kvHeads + head;
        const slot = (start!.values[b]! + i) % capacity;
        rowOf(output!, row * capacity + slot).set(rowOf(update!, row * query + i));
      }
    }
  }
};

const cachedAttention: Kernel<'CachedAttention'> = ({ scale, window }, inputs, [output]) => {
  const [q, keys, values, start, count] = inputs as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const [batch, heads, query] = q.shape as [number, number, number];
  const [, kvHeads, capacity] = keys.shape as [number, number, number];
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      const kvRow = b * kvHeads + Math.floor(head / (heads / kvHeads));
      for (let i = 0; i < Math.min(query, count.values[b]!); i++) {
        const row = (b * heads + head) * query + i;
        const last = start.values[b]! + i;
        const first = Math.max(0, last + 1 - (window ?? last + 1));
        const slots = Array.from(
          { length: last + 1 - first },
          (_, p) => kvRow * capacity + ((first + p) % capacity),
        );
        const scores = slots.map((slot) => scale * dot(rowOf(q, row), rowOf(keys, slot)));
        mix(scores, (p) => rowOf(values, slots[p]!), rowOf(output!, row));
      }
    }
  }
};

const attention: Kernel<'Attention'> = ({ scale, mask }, inputs, [output]) => {
  const [q, k, v, maskTensor] = inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
  const query = q.shape.at(-2)!;
  const keys = k.shape.at(-2)!;
  const scoreShape = [...q.shape.slice(0, -1), keys];
  const scores: number[] = [];
  forEachIndex(scoreShape, mask ? [mask] : [], (at, [element]) => {
    const row = Math.floor(at / keys);
    const key = Math.floor(row / query) * keys + (at % keys);
    const masked = maskTensor ? maskTensor.values[element!]! : 0;
    // In f32, where a mask of -1e9 swallows the score: a row that sees nothing is an even mixture.
    scores.push(Math.fround(Math.fround(scale * dot(rowOf(q, row), rowOf(k, key))) + masked));
    if (at % keys < keys - 1) return;
    mix(scores.splice(0), (i) => rowOf(v, Math.floor(row / query) * keys + i), rowOf(output!, row));
  });
};

export const attentionKernels = {
  Rotary: rotary,
  CacheAppend: cacheAppend,
  CachedAttention: cachedAttention,
  Attention: attention,
};
