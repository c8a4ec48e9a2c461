// lib/sample.ts: logits -> the next token: greedy, or drawn at random with temperature, top-k and top-p.
// All of it is tfjs, so the same function runs eagerly and inside a compiled loop, and draws the same tokens.
import * as tf from '@tensorflow/tfjs-core';

export interface Sampling {
  /** 0: always the most likely token. Above: logits are divided by it. */
  readonly temperature: number;
  /** Only the k most likely tokens; null: all. */
  readonly topK: number | null;
  /** Only the most likely tokens whose probabilities reach p together; null: all. */
  readonly topP: number | null;
  /** 0 to 2^48 - 1. The same seed gives the same text. */
  readonly seed: number;
}

export const GREEDY: Sampling = { temperature: 0, topK: null, topP: null, seed: 0 };

/** @throws RangeError that names the setting, what it may be and what it was */
export function checkSampling({ temperature, topK, topP, seed }: Sampling): void {
  const demand = (valid: boolean, name: string, expected: string, received: unknown) => {
    if (!valid) throw new RangeError(`${name}: expected ${expected}, received ${received}`);
  };
  demand(temperature >= 0 && temperature < 1e6, 'temperature', 'a number from 0', temperature);
  demand(topK === null || (Number.isInteger(topK) && topK > 0), 'top-k', 'a positive integer', topK);
  demand(topP === null || (topP > 0 && topP <= 1), 'top-p', 'a number above 0, at most 1', topP);
  demand(
    Number.isSafeInteger(seed) && seed >= 0 && seed < 2 ** 48,
    'seed',
    'an integer from 0 to 2^48 - 1',
    seed,
  );
}

/**
 * Chooses each row's next token.
 * @param logits [batch, vocab]
 * @param key randomKey(sampling.seed); not read when the temperature is 0
 * @param position [batch] int32: place of the new token in its row; each place has random numbers of its own
 * @returns [batch] int32
 */
export function sampleToken(
  logits: tf.Tensor2D,
  sampling: Sampling,
  key: tf.Tensor1D,
  position: tf.Tensor1D,
): tf.Tensor1D {
  if (sampling.temperature === 0) return tf.argMax(logits, -1);
  const all: tf.Tensor2D = tf.mul(logits, 1 / sampling.temperature);
  const vocab = logits.shape[1];
  const best = sampling.topK !== null && sampling.topK < vocab ? tf.topk(all, sampling.topK) : undefined;
  let scores = best ? best.values : all; // [batch, candidates]
  if (sampling.topP !== null && sampling.topP < 1) scores = keepTopP(scores, sampling.topP);
  // Gumbel's trick: the largest of scores + noise falls on a token with that token's softmax probability.
  const random = best ? uniformAt(key, position, best.indices) : uniform(key, position, vocab);
  const noise = tf.neg(tf.log(tf.neg(tf.log(random))));
  const drawn = tf.argMax(tf.add(scores, noise), -1) as tf.Tensor1D;
  return best ? ofRow(best.indices, drawn) : drawn;
}

/** The same after a forward call that read `count` [batch] tokens from place `start` [batch] on. */
export function sampleNext(
  logits: tf.Tensor2D,
  { start, count }: { readonly start: tf.Tensor1D; readonly count: tf.Tensor1D },
  sampling: Sampling,
  key: tf.Tensor1D,
): tf.Tensor1D {
  return tf.tidy(() => sampleToken(logits, sampling, key, tf.add(start, count) as tf.Tensor1D));
}

/** What `sampleToken` chooses at temperature 0, of one row of logits that are here: the first of the largest. */
export function greedyToken(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}

/** values[row, places[row]] of values [batch, n] int32. */
function ofRow(values: tf.Tensor2D, places: tf.Tensor1D): tf.Tensor1D {
  const [batch, n] = values.shape;
  const isIt = tf.equal(tf.range(0, n, 1, 'int32'), tf.reshape(places, [batch, 1]));
  return tf.sum(tf.where(isIt, values, tf.zerosLike(values)), -1);
}

/** The best tokens stay until their probabilities sum to p; the one that reaches p stays too. */
function keepTopP(scores: tf.Tensor2D, p: number): tf.Tensor2D {
  const sorted = tf.topk(scores, scores.shape[1]).values; // [batch, vocab], best first
  const before = tf.cumsum(tf.softmax(sorted), 1, true); // probability of all better tokens
  const stays = tf.less(before, p);
  return keepFrom(scores, tf.min(tf.where(stays, sorted, tf.fill(sorted.shape, RULED_OUT_ABOVE)), -1, true));
}

const RULED_OUT = -1e30;
const RULED_OUT_ABOVE = 1e30;

function keepFrom(scores: tf.Tensor2D, threshold: tf.Tensor): tf.Tensor2D {
  return tf.where(tf.greaterEqual(scores, threshold), scores, tf.fill(scores.shape, RULED_OUT));
}

/** A seed as the four 12-bit words that `uniform` mixes: [4] float32. */
export function randomKey(seed: number): tf.Tensor1D {
  return tf.tensor1d([0, 12, 24, 36].map((shift) => Math.floor(seed / 2 ** shift) % 4096));
}

/**
 * Random numbers that depend on nothing but (key, position, column): a counter-based generator.
 *
 * A Feistel cipher on 24 bits. Halves have 12 bits, so that every product stays below 2^24 and is exact in float32:
 * each backend and each compiled target draws the same bits, with no integer operations.
 * @param key [4] float32 from randomKey
 * @param position [batch] int32, below 2^24
 * @param width columns, below 2^24
 * @returns [batch, width] float32 above 0 and below 1, in steps of 2^-23
 * @source Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", for the idea
 */
export function uniform(key: tf.Tensor1D, position: tf.Tensor1D, width: number): tf.Tensor2D {
  return uniformAt(key, position, tf.reshape(tf.range(0, width), [1, width]));
}

/** The same for some columns alone, [batch, n] or [1, n]: n random numbers a row. */
function uniformAt(key: tf.Tensor1D, position: tf.Tensor1D, columns: tf.Tensor): tf.Tensor2D {
  const words = tf.split(key, 4) as tf.Tensor[];
  const place = cipher(halves(tf.reshape(tf.cast(position, 'float32'), [-1, 1])), words); // [batch, 1] each
  const [left, right] = cipher(halves(tf.cast(columns, 'float32')), place); // [batch, n] each
  const bits = tf.floor(tf.mul(tf.add(tf.mul(left, 4096), right), 0.5)); // 23 of the 24
  return tf.mul(tf.add(bits, 0.5), 2 ** -23) as tf.Tensor2D;
}

type Halves = readonly [left: tf.Tensor, right: tf.Tensor];

function halves(number: tf.Tensor): Halves {
  const left = tf.floor(tf.mul(number, 1 / 4096));
  return [left, tf.sub(number, tf.mul(left, 4096))];
}

/** Odd and unlike: what they are does not matter, that they differ by round does. */
const ROUND_CONSTANTS = [2741, 1103, 3343, 577, 1933, 3701, 911, 2213] as const;

/** Eight rounds, the keys taken in turn. A Feistel network is one-to-one: no two columns share a state. */
function cipher(state: Halves, keys: readonly tf.Tensor[]): Halves {
  let [left, right] = state;
  ROUND_CONSTANTS.forEach((constant, round) => {
    const mixed = modulo4096(tf.add(tf.add(tf.mul(right, 1365), keys[round % keys.length]!), constant));
    const squared = tf.floor(tf.mul(tf.square(mixed), 1 / 64)); // the middle of a square is its best mixed part
    const next = modulo4096(tf.add(tf.add(left, squared), mixed));
    left = right;
    right = next;
  });
  return [left, right];
}

function modulo4096(x: tf.Tensor): tf.Tensor {
  return tf.sub(x, tf.mul(tf.floor(tf.mul(x, 1 / 4096)), 4096));
}
