// lib/generate/decodeByCalls.ts: many texts at once, a forward call a token of each: for models without a compiled loop.
import * as tf from '@tensorflow/tfjs-core';
import { type Decode, type Forward, forwardInput } from '../forward.js';
import { nextTurn } from '../generate.js';
import { sampleNext } from '../sample.js';

/** What a compiled loop does, by calls. A row that has ended waits for the others: it writes nothing to its cache. */
export function decodeByCalls(forward: Forward): Decode {
  return async (params, { rows, sampling, key, eosIds, signal, onToken }, begun) => {
    const texts = rows.map(({ token, position, limit }) => ({ token, position, limit }));
    let cache = begun;
    while (!signal.aborted && texts.some(({ limit }) => limit > 0)) {
      const input = forwardInput(
        texts.map(({ token, limit }) => (limit > 0 ? [token] : [])),
        texts.map(({ position }) => position),
      );
      const output = await forward(params, input, cache);
      cache = output.cache;
      const choice = sampleNext(output.logits, input, sampling, key);
      const ids = await choice.data();
      tf.dispose([choice, output.logits, input.tokens, input.start, input.count]);
      for (const [at, text] of texts.entries()) {
        if (text.limit === 0) continue;
        const id = ids[at]!;
        text.token = id;
        text.position += 1;
        text.limit = eosIds.includes(id) ? 0 : text.limit - 1;
        onToken(id, at);
      }
      await nextTurn();
    }
    return cache;
  };
}
