// lib/compile.ts: a loaded model -> the same model compiled: one program for the prompt, one for the whole decode.
// The joint between models and jit, which know nothing of each other. generate takes the result like any model.
import { type DecodeProgram, decodeInRounds, decodeLoop } from './compile/decode.js';
import { forcedLogits, forcedLoop } from './compile/force.js';
import { beginPrompt, emptyCache, inBuckets, roundedSpec } from './compile/prompt.js';
import type { GenerativeModel } from './generate.js';
import { bind, jit, type Mode, type TargetName, targetDevice, targetRows, unbind } from './jit/jit.js';
import type { Model } from './model.js';
import { cacheSpecOf } from './models/layers.js';

/** What `generate --json` says of a compiled model. */
export interface CompileReport {
  readonly target: TargetName;
  readonly mode: Mode;
  /** Name of the GPU; null where the target is none. */
  readonly device: string | null;
  /** Programs made so far: one a prompt bucket and cache capacity, one for decode. */
  readonly compilations: number;
  /** Fused kernels of the decode program, one round. */
  readonly kernels: number;
  readonly compileMs: number;
  /** Calls from the last decode program back into JavaScript, by the tokens that it wrote. */
  readonly hostCallsPerToken: number;
  readonly threads: number | null;
  /** How the last decoding loop was sent to a GPU; null on other targets. */
  readonly loop: {
    readonly hostMicrosecondsPerToken: number;
    readonly tokensPerSubmission: number;
    readonly gpuIdleShare: number | null;
  } | null;
  /** Scratch memory, planned once. */
  readonly arenaBytes: number;
}

export interface CompiledModel extends GenerativeModel {
  readonly decodeProgram: DecodeProgram;
  report(): CompileReport;
  /** Frees programs and the Weights in the target; the loaded model stays usable unless its Weights were moved. */
  dispose(): Promise<void>;
}

export interface CompileOptions {
  readonly target: TargetName;
  /** `fast` lets the target round what integer Weights are multiplied with; default `exact`. */
  readonly mode?: Mode | undefined;
  /** Moves the Weights into the target, each freed here at once: the loaded model cannot be used any more. */
  readonly moveWeights?: boolean;
}

/**
 * Compiles a model for a target; programs are made when first needed.
 * @throws RangeError if the Weights do not fit into the target (says what would)
 */
export async function compileModel(
  model: Model,
  { target, mode, moveWeights = false }: CompileOptions,
): Promise<CompiledModel> {
  if (moveWeights) await bind(model.params, target);
  const forward = model.forwardFunction;
  const begin = jit(beginPrompt(forward), { target, mode, name: 'prompt' });
  const goOn = jit(forward, { target, mode, donate: [2], name: 'prompt, continued' });
  const decode = jit(decodeLoop(forward), { target, mode, donate: [1], name: 'decode' });
  const forced = jit(forcedLoop(forward), { target, mode, donate: [1], name: 'given text' });
  const prompts = { begin, goOn, mostTokens: targetRows[target] };
  let written = 0;
  return {
    params: model.params,
    vocabSize: model.vocabSize,
    maxPositions: model.maxPositions,
    tokenizer: model.tokenizer,
    eosIds: model.eosIds,
    newCache: (capacity) => emptyCache(roundedSpec(cacheSpecOf(model.config, capacity), model.maxPositions)),
    forward: (params, input, cache) => inBuckets(prompts, params, input, cache),
    decode: async (params, request, cache) => {
      written = 0;
      const count = (id: number, row: number) => {
        written += 1;
        request.onToken(id, row);
      };
      return decodeInRounds(decode, params, { ...request, onToken: count }, cache);
    },
    forcedLogits: (params, ...rest) => forcedLogits(forced, params, ...rest),
    decodeProgram: decode,
    report: () => {
      const programs = [begin, goOn, decode, forced].map((program) => program.report());
      const last = programs[2]!;
      return {
        target,
        mode: mode ?? 'exact',
        device: targetDevice(target),
        compilations: programs.reduce((sum, { compilations }) => sum + compilations, 0),
        kernels: last.kernels || programs[0]!.kernels,
        compileMs: programs.reduce((sum, { compileMs }) => sum + compileMs, 0),
        hostCallsPerToken: (last.hostCalls ?? 0) / Math.max(1, written),
        threads: last.threads,
        loop: last.loop && {
          hostMicrosecondsPerToken: last.loop.hostMicrosecondsPerRound,
          tokensPerSubmission: last.loop.roundsPerSubmission,
          gpuIdleShare: last.loop.gpuIdleShare,
        },
        arenaBytes: programs.reduce((sum, { arenaBytes }) => sum + arenaBytes, 0),
      };
    },
    dispose: async () => {
      for (const program of [begin, goOn, decode, forced]) program.dispose();
      await unbind(model.params, target);
    },
  };
}
