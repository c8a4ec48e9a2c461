// lib/compile/decode.ts: the loop that writes tokens, as one program: forward, sample, note the token, all inside the
// target. A row that has ended waits for the others: it writes nothing to its cache and its tokens are not told.
import * as tf from '@tensorflow/tfjs-core';
import { disposeCache, type KVCache } from '../cache.js';
import type { DecodeRequest, DecodeRow, ForwardFunction } from '../forward.js';
import { type Jitted, scan } from '../jit/jit.js';
import { type Sampling, sampleToken } from '../sample.js';
import type { ParamTree } from '../tensor.js';
import { emptyCache } from './prompt.js';

/** Rounds of the decode program; its outputs take 4 bytes a row each. Longer texts run it again. */
const ROUNDS = 1024;

/** What one round of the decode loop gives to the next. */
interface Carry {
  readonly token: tf.Tensor1D; // [batch] int32, not yet in the cache
  readonly position: tf.Tensor1D; // [batch] int32, its place
  readonly left: tf.Tensor1D; // [batch] int32, tokens still to write
  readonly ended: tf.Tensor1D; // [batch] bool, an end of sequence was written
  readonly cache: KVCache;
}

type Loop = ReturnType<typeof decodeLoop>;
export type DecodeProgram = Jitted<Parameters<Loop>, ReturnType<Loop>>;

/** The function that a DecodeProgram is compiled from. Only shapes and the sampling are fixed in it. */
export function decodeLoop(forward: ForwardFunction) {
  return (
    params: ParamTree,
    begun: Carry,
    key: tf.Tensor1D,
    eosIds: tf.Tensor1D,
    sampling: Sampling,
    rounds: number,
  ) =>
    scan(
      ({ token, position, left, ended, cache }: Carry) => {
        const batch = token.shape[0];
        const active = activeRows(left, ended);
        const input = {
          tokens: tf.reshape(token, [batch, 1]) as tf.Tensor2D,
          start: position,
          count: active,
        };
        const output = forward(params, input, cache);
        const next = tf.add(position, active) as tf.Tensor1D;
        const id = tf.cast(sampleToken(output.logits, sampling, key, next), 'int32');
        const isEnd = tf.any(tf.equal(tf.reshape(id, [batch, 1]), tf.reshape(eosIds, [1, -1])), 1);
        return {
          carry: {
            token: id,
            position: next,
            left: tf.sub(left, active) as tf.Tensor1D,
            ended: (batch === 1 ? isEnd : tf.logicalOr(ended, isEnd)) as tf.Tensor1D,
            cache: output.cache,
          },
          output: id,
        };
      },
      begun,
      rounds,
      { until: ({ left, ended }) => tf.all(tf.logicalOr(ended, tf.lessEqual(left, 0))) },
    );
}

/** [batch] int32: 1 for a row that still writes. One row alone does until the loop ends. */
function activeRows(left: tf.Tensor1D, ended: tf.Tensor1D): tf.Tensor1D {
  if (left.shape[0] === 1) return tf.tensor1d([1], 'int32');
  return tf.cast(tf.logicalAnd(tf.greater(left, 0), tf.logicalNot(ended)), 'int32') as tf.Tensor1D;
}

/** Runs the program until every row has ended, met its limit, or the signal says stop. @returns the cache */
export async function decodeInRounds(
  decode: DecodeProgram,
  params: ParamTree,
  request: DecodeRequest,
  cache: KVCache,
): Promise<KVCache> {
  const rows = request.rows.map(newRow);
  const sampling = { ...request.sampling, seed: 0 }; // the seed is in the key: another one needs no new program
  let held = cache;
  const eosIds = tf.tensor1d(request.eosIds.length > 0 ? [...request.eosIds] : [-1], 'int32');
  const onRound = (_: number, [ids]: readonly ArrayLike<number>[]) => {
    for (const [at, row] of rows.entries()) {
      if (!isActive(row)) continue;
      row.token = ids![at]!;
      row.position += 1;
      row.limit -= 1;
      row.ended = request.eosIds.includes(row.token);
      request.onToken(row.token, at);
    }
  };
  try {
    while (rows.some(isActive) && !request.signal.aborted) {
      const fields = carryOf(rows);
      const result = await decode.run(
        [params, { ...fields, cache: held }, request.key, eosIds, sampling, ROUNDS],
        {
          onRound,
          expectedRounds: Math.max(...rows.filter(isActive).map(({ limit }) => limit)),
          signal: request.signal,
        },
      );
      tf.dispose(Object.values(fields));
      disposeCache(held);
      const { cache: next, ...rest } = result.carry;
      tf.dispose([...Object.values(rest), result.outputs, result.steps]);
      held = next;
    }
  } catch (error) {
    disposeCache(held);
    if (!request.signal.aborted) throw error;
    return emptyCache(cache.spec); // what was written so far has been told; the cache went with the program
  } finally {
    eosIds.dispose();
  }
  return held;
}

/** A DecodeRow as it goes on. */
type WritingRow = { -readonly [Key in keyof DecodeRow]: DecodeRow[Key] } & { ended: boolean };

const newRow = (row: DecodeRow): WritingRow => ({ ...row, ended: false });
const isActive = ({ limit, ended }: WritingRow): boolean => limit > 0 && !ended;

function carryOf(rows: readonly WritingRow[]): Omit<Carry, 'cache'> {
  const column = (value: (row: WritingRow) => number) => tf.tensor1d(rows.map(value), 'int32');
  return {
    token: column(({ token }) => token),
    position: column(({ position }) => position),
    left: column(({ limit }) => limit),
    ended: tf.tensor1d(
      rows.map(({ ended }) => ended),
      'bool',
    ),
  };
}
