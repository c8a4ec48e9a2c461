// lib/compile.ts: a loaded model -> the same model compiled: one program for the prompt, one for the whole decode.
// The joint between models and jit, which know nothing of each other. generate takes the result like any model.
import * as tf from '@tensorflow/tfjs-core';
import type { CacheSpec, KVCache } from './cache.js';
import { allocate, disposeCache, ringSlots } from './cache.js';
import type { DecodeRequest, ForwardFunction, ForwardInput, ForwardOutput } from './forward.js';
import type { GenerativeModel } from './generate.js';
import { bind, type Jitted, jit, scan, type TargetName, unbind } from './jit/jit.js';
import type { Model } from './model.js';
import { cacheSpecOf } from './models/layers.js';
import { type Sampling, sampleToken } from './sample.js';
import type { ParamTree } from './tensor.js';

/** What `generate --json` says of a compiled model. */
export interface CompileReport {
  readonly target: TargetName;
  /** Programs made so far: one a prompt bucket and cache capacity, one for decode. */
  readonly compilations: number;
  /** Fused kernels of the decode program, one round. */
  readonly kernels: number;
  readonly compileMs: number;
  /** Calls from the last decode program back into JavaScript, by the tokens that it wrote. */
  readonly hostCallsPerToken: number;
  readonly threads: number | null;
  /** Scratch memory, planned once. */
  readonly arenaBytes: number;
}

export interface CompiledModel extends GenerativeModel {
  readonly decodeProgram: Jitted<[ParamTree, Carry, tf.Tensor1D, tf.Tensor1D, Sampling, number], unknown>;
  report(): CompileReport;
  /** Frees programs and the Weights in the target; the loaded model stays usable unless its Weights were moved. */
  dispose(): Promise<void>;
}

export interface CompileOptions {
  readonly target: TargetName;
  /** Moves the Weights into the target, each freed here at once: the loaded model cannot be used any more. */
  readonly moveWeights?: boolean;
}

/** What one round of the decode loop gives to the next. */
interface Carry {
  readonly token: tf.Tensor1D; // [1] int32, not yet in the cache
  readonly position: tf.Tensor1D; // [1] int32, its place
  readonly left: tf.Tensor1D; // [1] int32, tokens still to write
  readonly ended: tf.Tensor1D; // [1] bool, an end of sequence was written
  readonly cache: KVCache;
}

/** Prompts are padded to one of these, longer ones cut into pieces of the last: few programs serve every length. */
const BUCKETS = [16, 32, 64, 128, 256];
/** A ring of a sliding window is written in pieces of this, so that it need not be much larger than the window. */
const WINDOW_BUCKET = 64;
/** Capacities are rounded up to powers of two from here on, so that a longer text seldom needs a new program. */
const LEAST_CAPACITY = 256;
/** Rounds of the decode program; its outputs take 4 bytes each. Longer texts run it again. */
const ROUNDS = 1024;

/**
 * Compiles a model for a target; programs are made when first needed.
 * @throws RangeError if the Weights do not fit into the target (says what would)
 */
export async function compileModel(
  model: Model,
  { target, moveWeights = false }: CompileOptions,
): Promise<CompiledModel> {
  if (moveWeights) await bind(model.params, target);
  const forward = model.forwardFunction;
  const begin = jit(beginPrompt(forward), { target, name: 'prompt' });
  const goOn = jit(forward, { target, donate: [2], name: 'prompt, continued' });
  const decode = jit(decodeLoop(forward), { target, donate: [1], name: 'decode' });
  let written = 0;
  return {
    params: model.params,
    vocabSize: model.vocabSize,
    maxPositions: model.maxPositions,
    tokenizer: model.tokenizer,
    eosIds: model.eosIds,
    newCache: (capacity) =>
      emptyCache(roundedSpec(cacheSpecOf(model.config, roundedCapacity(capacity, model.maxPositions)))),
    forward: (params, input, cache) => inBuckets(begin, goOn, params, input, cache),
    decode: async (params, request, cache) => {
      written = 0;
      const count = (id: number) => {
        written += 1;
        request.onToken(id);
      };
      return decodeInRounds(decode, params, { ...request, onToken: count }, cache);
    },
    decodeProgram: decode as CompiledModel['decodeProgram'],
    report: () => {
      const programs = [begin, goOn, decode].map((program) => program.report());
      const last = programs[2]!;
      return {
        target,
        compilations: programs.reduce((sum, { compilations }) => sum + compilations, 0),
        kernels: last.kernels || programs[0]!.kernels,
        compileMs: programs.reduce((sum, { compileMs }) => sum + compileMs, 0),
        hostCallsPerToken: (last.hostCalls ?? 0) / Math.max(1, written),
        threads: last.threads,
        arenaBytes: programs.reduce((sum, { arenaBytes }) => sum + arenaBytes, 0),
      };
    },
    dispose: async () => {
      for (const program of [begin, goOn, decode]) program.dispose();
      await unbind(model.params, target);
    },
  };
}

/** A cache that takes memory only when the first program runs: that program makes it, inside the target. */
function emptyCache(spec: CacheSpec): KVCache {
  return { spec, layout: 'fixed', keys: [], values: [], positions: null, padding: 0 };
}

function beginPrompt(forward: ForwardFunction) {
  return (params: ParamTree, input: ForwardInput, spec: CacheSpec): ForwardOutput =>
    forward(params, input, allocate(spec, input.tokens.shape[0], 'fixed'));
}

/** One round: forward, sample, note the token; all inside the target. Only shapes and the sampling are fixed. */
function decodeLoop(forward: ForwardFunction) {
  return (
    params: ParamTree,
    begun: Carry,
    key: tf.Tensor1D,
    eosIds: tf.Tensor1D,
    sampling: Sampling,
    rounds: number,
  ) =>
    scan(
      ({ token, position, left, cache }: Carry) => {
        const one = tf.tensor1d([1], 'int32');
        const input = { tokens: tf.reshape(token, [1, 1]) as tf.Tensor2D, start: position, count: one };
        const output = forward(params, input, cache);
        const next = tf.add(position, one) as tf.Tensor1D;
        const id = tf.cast(sampleToken(output.logits, sampling, key, next), 'int32');
        const ended = tf.reshape(tf.any(tf.equal(id, eosIds)), [1]) as tf.Tensor1D;
        return {
          carry: {
            token: id,
            position: next,
            left: tf.sub(left, one) as tf.Tensor1D,
            ended,
            cache: output.cache,
          },
          output: id,
        };
      },
      begun,
      rounds,
      {
        until: ({ left, ended }) =>
          tf.reshape(tf.logicalOr(ended, tf.lessEqual(left, tf.tensor1d([0], 'int32'))), []),
      },
    );
}

type PromptProgram = Jitted<[ParamTree, ForwardInput, CacheSpec], ForwardOutput>;
type ForwardProgram = Jitted<[ParamTree, ForwardInput, KVCache], ForwardOutput>;

/** Runs one row's tokens in padded pieces; padding is never written to the cache. */
async function inBuckets(
  begin: PromptProgram,
  goOn: ForwardProgram,
  params: ParamTree,
  { tokens, start }: ForwardInput,
  cache: KVCache,
): Promise<ForwardOutput> {
  const ids = await tokens.data();
  const [first] = await start.data();
  const most = cache.spec.window === null ? BUCKETS.at(-1)! : WINDOW_BUCKET;
  let output: ForwardOutput | undefined;
  for (let at = 0; at < ids.length; at += most) {
    const piece = ids.slice(at, at + most);
    const input = paddedInput([...piece], first! + at);
    output?.logits.dispose();
    const held: KVCache = output?.cache ?? cache;
    output = held.keys.length === 0 ? await begin(params, input, held.spec) : await goOn(params, input, held);
    if (held.keys.length > 0) disposeCache(held);
    tf.dispose([input.tokens, input.start, input.count]);
  }
  return output!;
}

function paddedInput(ids: readonly number[], position: number): ForwardInput {
  const bucket = ids.length === 1 ? 1 : BUCKETS.find((size) => size >= ids.length)!;
  const padded = [...ids, ...new Array<number>(bucket - ids.length).fill(0)];
  return {
    tokens: tf.tensor2d(padded, [1, bucket], 'int32'),
    start: tf.tensor1d([position], 'int32'),
    count: tf.tensor1d([ids.length], 'int32'),
  };
}

async function decodeInRounds(
  decode: ReturnType<
    typeof jit<Parameters<ReturnType<typeof decodeLoop>>, ReturnType<ReturnType<typeof decodeLoop>>>
  >,
  params: ParamTree,
  request: DecodeRequest,
  cache: KVCache,
): Promise<KVCache> {
  let { token, position, limit: left } = request;
  const sampling = { ...request.sampling, seed: 0 }; // the seed is in the key: another one needs no new program
  let ended = false;
  let held = cache;
  const eosIds = tf.tensor1d(request.eosIds.length > 0 ? [...request.eosIds] : [-1], 'int32');
  const onRound = (_: number, [ids]: readonly ArrayLike<number>[]) => {
    token = ids![0]!;
    position += 1;
    left -= 1;
    ended = request.eosIds.includes(token);
    request.onToken(token);
  };
  try {
    while (left > 0 && !ended && !request.signal.aborted) {
      const carry: Carry = {
        token: tf.tensor1d([token], 'int32'),
        position: tf.tensor1d([position], 'int32'),
        left: tf.tensor1d([left], 'int32'),
        ended: tf.tensor1d([false], 'bool'),
        cache: held,
      };
      const result = await decode.run([params, carry, request.key, eosIds, sampling, ROUNDS], {
        onRound,
        signal: request.signal,
      });
      tf.dispose([carry.token, carry.position, carry.left, carry.ended]);
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

/** Capacity 256, 512, 1024, ... up to what the model knows. */
function roundedCapacity(tokens: number, maxPositions: number): number {
  return Math.min(maxPositions, Math.max(LEAST_CAPACITY, 2 ** Math.ceil(Math.log2(tokens))));
}

/** A window's ring needs slots for itself and one piece of the prompt, no more. */
function roundedSpec(spec: CacheSpec): CacheSpec {
  return spec.window === null ? spec : { ...spec, capacity: ringSlots(spec.window, WINDOW_BUCKET) };
}
