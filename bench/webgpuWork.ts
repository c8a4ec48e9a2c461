// bench/webgpuWork.ts: what is asked of a model on a GPU: '32+50', '2048+2', '32+50@8000', '32+50x8'.
// Text -> Work; Work -> the words of its label; a compiled model -> the same model that begins deep in a text.

import * as tf from '@tensorflow/tfjs-core';
import type { CompiledModel } from 'response-time/compile';

/** One piece of work. */
export interface Work {
  readonly promptTokens: number;
  readonly newTokens: number;
  /** Position of the token after the prompt; the prompt's length, unless the text is to be deeper. */
  readonly depth: number;
  /** Texts generated at once, all of the same prompt. */
  readonly batch: number;
}

/** What labels leave unsaid. */
const PROMPT_TOKENS = 32;

/**
 * Reads PROMPT+NEW, then @DEPTH and xBATCH where they are wanted.
 * @throws RangeError that says what was expected
 */
export function parseWork(text: string): Work {
  const [, prompt, fresh, depth = prompt, batch = '1'] =
    /^(\d+)\+(\d+)(?:@(\d+))?(?:x(\d+))?$/.exec(text.trim()) ?? [];
  const [promptTokens, newTokens] = [Number(prompt), Number(fresh)];
  const work = { promptTokens, newTokens, depth: Number(depth), batch: Number(batch) };
  if (!(promptTokens > 0 && newTokens > 0 && work.depth >= promptTokens && work.batch > 0)) {
    throw new RangeError(
      `work: expected PROMPT+NEW[@DEPTH][xBATCH] such as 32+50@8000, a depth of at least the prompt, received ${text}`,
    );
  }
  return work;
}

/** Token ids spread over the vocabulary: nobody reads them. */
export function promptOf({ promptTokens }: Work, vocabSize: number): number[] {
  return Array.from({ length: promptTokens }, (_, i) => (i * 7919 + 13) % vocabSize);
}

/** What a label says of the work where it is not the usual one. */
export function describeWork({ promptTokens, depth, batch }: Work): string {
  return [
    promptTokens === PROMPT_TOKENS ? '' : ` prompt ${promptTokens}`,
    depth === promptTokens ? '' : ` depth ${depth}`,
    batch === 1 ? '' : ` x${batch}`,
  ].join('');
}

/** A word on how it was measured, where the Run itself cannot tell. */
export function notesOn({ promptTokens, depth }: Work): string[] {
  if (depth === promptTokens) return [];
  return [
    `the prompt was put at position ${depth - promptTokens}; the keys and values before it are zeros: no text was read`,
  ];
}

/**
 * The same model, whose texts begin at position `skipped`: a cache of that many more tokens, the skipped ones zeros.
 * A token then costs what it costs in a text of that length, without the time to read one.
 */
export function atDepth(compiled: CompiledModel, skipped: number): CompiledModel {
  if (skipped === 0) return compiled;
  return {
    ...compiled,
    newCache: (capacity, batch) => compiled.newCache(capacity + skipped, batch),
    forward: async (params, input, cache) => {
      const start = tf.add(input.start, tf.scalar(skipped, 'int32')) as tf.Tensor1D;
      try {
        return await compiled.forward(params, { ...input, start }, cache);
      } finally {
        start.dispose();
      }
    },
    decode: (params, request, cache) => {
      const rows = request.rows.map((row) => ({ ...row, position: row.position + skipped }));
      return compiled.decode!(params, { ...request, rows }, cache);
    },
  };
}
