// bench/plan.ts: what is measured: contenders (a process each) and the work that each is given.
// settings -> Plan for one model. Pure: nothing is started here.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from 'response-time/paths';
import type { Command } from './contender.js';
import type { GenerateWork, Work } from './protocol.js';

/** A contender, or why it cannot be one. */
export interface PlannedContender {
  readonly id: string;
  readonly start: Command | { readonly missing: string };
}

export interface Measurement {
  /** What bars call it: model/contender/work. */
  readonly id: string;
  readonly contender: string;
  readonly work: Work;
  /** Fewer than the others, for what takes minutes; and no warm-up. */
  readonly once?: boolean;
}

export interface Plan {
  readonly contenders: readonly PlannedContender[];
  readonly measurements: readonly Measurement[];
}

export interface Sizes {
  readonly promptTokens: number;
  readonly newTokens: number;
  /** The short run, where a cache buys little. */
  readonly shortPromptTokens: number;
  readonly shortNewTokens: number;
  /** Cached tokens between which the cost of the cache is measured, and how many tokens are timed at each. */
  readonly depths: readonly [number, number];
  readonly depthTokens: number;
  readonly loopSteps: number;
}

export const FULL: Sizes = {
  promptTokens: 128,
  newTokens: 128,
  shortPromptTokens: 32,
  shortNewTokens: 15,
  depths: [16, 1000],
  depthTokens: 24,
  loopSteps: 64,
};

/** For trying the bench itself; its figures mean nothing. */
export const QUICK: Sizes = {
  promptTokens: 16,
  newTokens: 8,
  shortPromptTokens: 8,
  shortNewTokens: 4,
  depths: [16, 200],
  depthTokens: 8,
  loopSteps: 8,
};

export interface Places {
  /** Of the model. */
  readonly folder: string;
  readonly python: string | undefined;
  /** As bench/peers.sh made it. */
  readonly peers: string | undefined;
}

export type ModelName = 'gpt2' | 'smollm2';
export const THREADS = [1, 2] as const;

/** @param shape what PyTorch calls the model: a random shape's name, or its folder */
export function planOf(model: ModelName, places: Places, shape: string, sizes: Sizes): Plan {
  const own = ownPlan(model, places.folder, sizes);
  const parts = [own, pytorchPlan(model, places.python, shape, sizes), llamaPlan(model, places.peers, sizes)];
  if (model === 'smollm2') parts.push(transformersJsPlan(places.peers, sizes));
  return {
    contenders: parts.flatMap(({ contenders }) => contenders),
    measurements: parts.flatMap(({ measurements }) => measurements),
  };
}

const benchFolder = join(projectRoot(), 'bench');

function node(
  name: string,
  parameters: readonly string[],
  environment: Record<string, string> = {},
): Command {
  return {
    program: process.execPath,
    parameters: [join(benchFolder, 'dist', name), ...parameters],
    environment,
  };
}

function request({ promptTokens, newTokens }: Sizes, more: Partial<GenerateWork> = {}): GenerateWork {
  return { kind: 'generate', promptTokens, newTokens, ...more };
}

function ownPlan(model: ModelName, folder: string, sizes: Sizes): Plan {
  const short = { promptTokens: sizes.shortPromptTokens, newTokens: sizes.shortNewTokens };
  const eager = `${model}/eager-f32`;
  const schemes =
    model === 'gpt2' ? ['f32', 'int8', 'int8-group', 'int4'] : ['stored', 'f32', 'int8', 'int4'];
  const compiled = schemes.flatMap((scheme) => THREADS.map((threads) => ({ scheme, threads })));
  const idOf = (scheme: string, threads: number): string => `${model}/${scheme}/${threads}`;
  const depths = sizes.depths.map((depth): GenerateWork => {
    // Tokens timed around that depth: half of them before it.
    return request(sizes, { promptTokens: depth - sizes.depthTokens / 2, newTokens: sizes.depthTokens + 1 });
  });
  const atDepths = ['f32', 'int8'].flatMap((scheme) =>
    depths.map((work, i) => ({
      id: `${idOf(scheme, 2)}/depth${sizes.depths[i]}`,
      contender: idOf(scheme, 2),
      work,
    })),
  );
  const batches = [1, 4].map((batch): Measurement => {
    const work: Work = { kind: 'batch', batch, depth: sizes.shortPromptTokens, steps: sizes.loopSteps };
    return { id: `${idOf('f32', 2)}/batch${batch}`, contender: idOf('f32', 2), work };
  });
  const only: Measurement[] = [
    { id: `${eager}/uncached`, contender: eager, work: request(sizes, { cache: false }), once: true },
    { id: `${eager}/uncached-short`, contender: eager, work: request(sizes, { ...short, cache: false }) },
    { id: `${idOf('int8', 2)}/short`, contender: idOf('int8', 2), work: request(sizes, short) },
    ...atDepths,
    ...batches,
  ];
  return {
    contenders: [
      { id: 'bandwidth', start: node('bandwidth.js', []) },
      { id: eager, start: node('own.js', [folder, 'f32', 'eager']) },
      ...compiled.map(({ scheme, threads }) => {
        const environment = { RT_THREADS: String(threads) };
        return { id: idOf(scheme, threads), start: node('own.js', [folder, scheme, 'wasm'], environment) };
      }),
    ],
    measurements: [
      ...THREADS.map((threads): Measurement => {
        return {
          id: `${model}/bandwidth/${threads}`,
          contender: 'bandwidth',
          work: { kind: 'bandwidth', threads },
        };
      }),
      { id: eager, contender: eager, work: request(sizes) },
      ...compiled.map(({ scheme, threads }) => {
        return { id: idOf(scheme, threads), contender: idOf(scheme, threads), work: request(sizes) };
      }),
      ...(model === 'gpt2' ? only : []),
    ],
  };
}

function pytorchPlan(model: ModelName, python: string | undefined, shape: string, sizes: Sizes): Plan {
  const contender = `${model}/pytorch`;
  const start = python
    ? { program: python, parameters: [join(benchFolder, 'pytorch.py'), shape] }
    : { missing: 'no Python with torch and transformers; RESPONSE_TIME_PYTHON names one' };
  const modes = ['generate', 'int8'] as const;
  return {
    contenders: [{ id: contender, start }],
    measurements: modes.flatMap((mode) =>
      THREADS.map((threads) => {
        return { id: `${contender}-${mode}/${threads}`, contender, work: request(sizes, { mode, threads }) };
      }),
    ),
  };
}

/** A peer's start, or which of its files is missing. */
function peer(peers: string | undefined, needed: readonly string[], start: (folder: string) => Command) {
  if (!peers) return { missing: 'RESPONSE_TIME_PEERS names no folder; sh bench/peers.sh FOLDER makes one' };
  const absent = needed.find((name) => !existsSync(join(peers, name)));
  return absent ? { missing: `${absent} is not in the folder of the peers` } : start(peers);
}

function llamaPlan(model: ModelName, peers: string | undefined, sizes: Sizes): Plan {
  const kinds = ['Q8_0', 'Q4_0'].map((kind) => {
    const file = `${model}-${kind}.gguf`;
    const start = peer(peers, ['node_modules/node-llama-cpp', file], (folder) =>
      node('llama.js', [folder, join(folder, file)]),
    );
    return { id: `${model}/llama-${kind}`, start };
  });
  return {
    contenders: kinds,
    measurements: kinds.flatMap(({ id }) =>
      THREADS.map((threads) => ({
        id: `${id}/${threads}`,
        contender: id,
        work: request(sizes, { threads }),
      })),
    ),
  };
}

function transformersJsPlan(peers: string | undefined, sizes: Sizes): Plan {
  const contenders = THREADS.map((threads) => {
    const needed = ['node_modules/@huggingface/transformers', 'smollm2-onnx/onnx/model_quantized.onnx'];
    const start = peer(peers, needed, (folder) =>
      node('transformersJs.js', [folder, join(folder, 'smollm2-onnx'), String(threads)]),
    );
    return { id: `smollm2/transformers.js-q8/${threads}`, start };
  });
  return {
    contenders,
    measurements: contenders.map(({ id }) => ({ id, contender: id, work: request(sizes) })),
  };
}
