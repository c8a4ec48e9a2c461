// lib/cache.ts: keys and values of the tokens seen so far. New keys and values -> a cache that holds them, attention.
// Values never change: append gives a new cache, and the old one is donated: reading it again throws.
//
// Two layouts, same results:
//   growing  the slots of all tokens so far, joined by concat: the fastest that plain tfjs has
//   fixed    `capacity` slots, written in place by a compiled target; a position's slot is position % capacity
import * as tf from '@tensorflow/tfjs-core';
import { attention, runNative } from './ops.js';

export interface CacheSpec {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Most tokens a row may hold; in the fixed layout also the slots. */
  readonly capacity: number;
  /** A query sees this many last positions, itself included; null: all. */
  readonly window: number | null;
}

export interface KVCache {
  readonly spec: CacheSpec;
  readonly layout: 'growing' | 'fixed';
  /** One tensor a layer, [batch, kvHeads, slots, headDim]. */
  readonly keys: readonly tf.Tensor4D[];
  readonly values: readonly tf.Tensor4D[];
  /** Growing only: [batch, slots] int32, the position that each slot holds, -1 for padding. */
  readonly positions: tf.Tensor2D | null;
  /** Growing only: slots that padding may have taken, of which a window must keep as many more. */
  readonly padding: number;
}

/** One call's view of a cache: what each layer appends to and reads, and the mask all layers share. */
export interface CacheStep {
  readonly cache: KVCache;
  readonly start: tf.Tensor1D;
  readonly count: tf.Tensor1D;
  readonly query: number;
  readonly keys: tf.Tensor4D[];
  readonly values: tf.Tensor4D[];
  /** Growing only: as in KVCache, with this call's tokens joined. */
  readonly positions: tf.Tensor2D | null;
  /** [batch, query] int32: the position of each token of this call. */
  readonly asked: tf.Tensor2D;
  /** Made when the first layer needs it; null: every slot is seen. */
  mask: tf.Tensor | null | undefined;
}

const MASKED = -1e9;
const donated = new WeakSet<KVCache>();

/** A window's slots in the fixed layout: a bucket is written before its first query reads `window` keys back. */
export function ringSlots(window: number, bucket: number): number {
  return window + bucket - 1;
}

/**
 * An empty cache.
 * @param layout fixed allocates all of its memory now: layers * 2 * batch * kvHeads * capacity * headDim float32
 * @throws RangeError if a size is not a positive integer (names it)
 */
export function allocate(spec: CacheSpec, batch: number, layout: KVCache['layout'] = 'growing'): KVCache {
  for (const [name, size] of Object.entries({ ...spec, window: spec.window ?? 1, batch })) {
    if (!Number.isInteger(size) || size < 1) {
      throw new RangeError(`cache ${name}: expected a positive integer, received ${size}`);
    }
  }
  const slots = layout === 'fixed' ? spec.capacity : 0;
  const empty = () =>
    Array.from(
      { length: spec.layers },
      () => tf.fill([batch, spec.kvHeads, slots, spec.headDim], 0) as tf.Tensor4D,
    );
  const positions = layout === 'fixed' ? null : tf.tensor2d([], [batch, 0], 'int32');
  return { spec, layout, keys: empty(), values: empty(), positions, padding: 0 };
}

/**
 * Takes a cache over for one call: it may not be read again.
 * @param start [batch] int32: tokens that each row holds already
 * @param count [batch] int32: real tokens among `query` of this call; the rest is padding at the end
 * @param query tokens of this call, padding included (the bucket)
 * @throws Error if the cache was donated to an earlier call
 */
export function openStep(cache: KVCache, start: tf.Tensor1D, count: tf.Tensor1D, query: number): CacheStep {
  if (donated.has(cache)) {
    throw new Error('cache: it was donated to an earlier call; use the cache which that call returned');
  }
  donated.add(cache);
  const column = tf.reshape(start, [start.shape[0], 1]);
  const asked = tf.add(column, tf.range(0, query, 1, 'int32')) as tf.Tensor2D;
  const positions = cache.positions && appendPositions(cache.positions, asked, count);
  return { cache, start, count, query, keys: [], values: [], positions, asked, mask: undefined };
}

/**
 * Appends one layer's keys and values and attends over all that the layer holds.
 * @param q [batch, heads, query, headDim]
 * @param k [batch, kvHeads, query, headDim]
 * @param v [batch, kvHeads, query, headDim]
 * @returns [batch, heads, query, headDim]; rows of padding queries mean nothing
 */
export function cachedAttention(
  step: CacheStep,
  layer: number,
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  scale: number,
): tf.Tensor4D {
  const { cache, start, count } = step;
  const keys = append(cache.keys[layer]!, k, step);
  const values = append(cache.values[layer]!, v, step);
  step.keys[layer] = keys;
  step.values[layer] = values;
  const { window } = cache.spec;
  const native =
    cache.layout === 'fixed' && // the kernel takes slot s for position s, modulo the capacity
    runNative('CachedAttention', { q, keys, values, start, count }, { scale, window });
  if (native) return native as tf.Tensor4D;
  if (step.mask === undefined) step.mask = attentionMask(step, keys.shape[2]);
  return attention(q, keys, values, step.mask, scale);
}

/**
 * The cache after a call, with what its layers appended; a window's older slots are dropped.
 * @throws Error if a layer appended nothing (gives its number)
 */
export function closeStep(step: CacheStep): KVCache {
  const { cache, keys, values, positions } = step;
  for (let layer = 0; layer < cache.spec.layers; layer++) {
    if (!keys[layer]) throw new Error(`cache: layer ${layer} appended nothing in this call`);
  }
  if (!positions) return { ...cache, keys, values };
  const [batch, slots] = positions.shape;
  // One row alone has no padding. Rows of unequal lengths may each have up to query - 1 slots of it.
  const padding = cache.padding + (batch > 1 ? step.query - 1 : 0);
  const keep = cache.spec.window === null ? slots : cache.spec.window - 1 + padding;
  const drop = Math.max(0, slots - keep);
  if (drop === 0) return { ...cache, keys, values, positions, padding };
  const newest = (t: tf.Tensor4D) => tf.slice(t, [0, 0, drop, 0]);
  return {
    ...cache,
    keys: keys.map(newest),
    values: values.map(newest),
    positions: tf.slice(positions, [0, drop]),
    padding,
  };
}

/**
 * Takes the newest tokens back, for example those that a draft got wrong. The old cache is donated.
 * @param from tokens that every row holds; to: tokens that it keeps
 * @throws RangeError if `to` is not in 0..from, or if a sliding window has dropped what the rest would need
 */
export function rollback(cache: KVCache, from: number, to: number): KVCache {
  if (donated.has(cache))
    throw new Error('cache: it was donated to an earlier call and cannot be rolled back');
  if (!(to >= 0 && to <= from))
    throw new RangeError(`rollback: expected 0..${from} tokens to keep, received ${to}`);
  const slots = cache.keys[0]!.shape[2];
  const oldest = from - slots;
  const needed = Math.max(0, to - (cache.spec.window ?? to) + 1);
  if (to > 0 && needed < oldest) {
    throw new RangeError(
      `rollback: keeping ${to} tokens needs position ${needed}, but the window has dropped all before ${oldest}`,
    );
  }
  donated.add(cache);
  if (cache.layout === 'fixed') return { ...cache }; // later positions are overwritten before they are read
  const kept = slots - (from - to);
  const older = (t: tf.Tensor4D) => tf.slice(t, [0, 0, 0, 0], [-1, -1, kept, -1]);
  return {
    ...cache,
    keys: cache.keys.map(older),
    values: cache.values.map(older),
    positions: cache.positions && tf.slice(cache.positions, [0, 0], [-1, kept]),
  };
}

/** Bytes that a cache's keys and values take as float32, positions left out. */
export function cacheBytes(cache: KVCache): number {
  return 4 * [...cache.keys, ...cache.values].reduce((total, tensor) => total + tensor.size, 0);
}

/** Frees a cache's tensors. Safe on one that was donated: what a later cache holds is not shared. */
export function disposeCache(cache: KVCache): void {
  donated.add(cache);
  tf.dispose([...cache.keys, ...cache.values, ...(cache.positions ? [cache.positions] : [])]);
}

/** One layer's tensor with the step's tokens in it. */
function append(held: tf.Tensor4D, update: tf.Tensor4D, step: CacheStep): tf.Tensor4D {
  if (step.cache.layout === 'growing') return tf.concat([held, update], 2);
  const { start, count } = step;
  const native = runNative('CacheAppend', { cache: held, update, start, count }, {});
  if (native) return native as tf.Tensor4D;
  const [batch, kvHeads, slots, headDim] = held.shape;
  const query = update.shape[2];
  const slot = tf.range(0, slots, 1, 'int32');
  const index = tf.mod(tf.sub(slot, tf.reshape(start, [batch, 1])), slots); // [batch, slots]: which new token
  const written = tf.less(index, tf.reshape(count, [batch, 1]));
  const first = tf.reshape(tf.range(0, batch * query, query, 'int32'), [batch, 1]);
  const source = tf.add(first, tf.cast(tf.minimum(index, query - 1), 'int32')) as tf.Tensor2D;
  const tokens = tf.reshape(tf.transpose(update, [0, 2, 1, 3]), [batch * query, kvHeads, headDim]);
  const spread = tf.transpose(tf.gather(tokens, source), [0, 2, 1, 3]); // [batch, kvHeads, slots, headDim]
  return tf.where(tf.reshape(written, [batch, 1, slots, 1]), spread, held) as tf.Tensor4D;
}

/** [batch, slots + query] int32: the positions held, with this call's joined, padding as -1. */
function appendPositions(held: tf.Tensor2D, asked: tf.Tensor2D, count: tf.Tensor1D): tf.Tensor2D {
  const [batch, query] = asked.shape;
  const real = tf.less(tf.range(0, query, 1, 'int32'), tf.reshape(count, [batch, 1])); // [batch, query]
  const padded = tf.where(real, asked, tf.fill([batch, query], -1, 'int32'));
  return tf.concat([held, tf.cast(padded, 'int32') as tf.Tensor2D], 1);
}

/** [batch, 1, query, slots]: 0 where a query may see a slot, -1e9 where not; null where all is seen. */
function attentionMask(step: CacheStep, slots: number): tf.Tensor | null {
  const { asked, query, cache } = step;
  const [batch] = asked.shape;
  const { window } = cache.spec;
  if (cache.layout === 'growing' && batch === 1 && query === 1 && window === null) return null;
  const held = step.positions ?? fixedPositions(step, slots);
  const slotPosition = tf.reshape(held, [batch, 1, 1, slots]);
  const distance = tf.sub(tf.reshape(asked, [batch, 1, query, 1]), slotPosition); // [batch, 1, query, slots]
  let seen = tf.logicalAnd(tf.greaterEqual(distance, 0), tf.greaterEqual(slotPosition, 0));
  if (window !== null) seen = tf.logicalAnd(seen, tf.less(distance, window));
  return tf.mul(tf.sub(1, tf.cast(seen, 'float32')), MASKED);
}

/** [batch, slots]: in the fixed layout a slot holds the newest position that falls on it; negative: nothing yet. */
function fixedPositions({ start, count }: CacheStep, slots: number): tf.Tensor2D {
  const [batch] = start.shape;
  const last = tf.sub(tf.add(start, count), 1);
  const column = tf.reshape(last, [batch, 1]);
  return tf.sub(column, tf.mod(tf.sub(column, tf.range(0, slots, 1, 'int32')), slots)) as tf.Tensor2D;
}
