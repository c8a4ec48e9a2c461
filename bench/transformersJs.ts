// bench/transformersJs.ts: transformers.js (ONNX Runtime) as a contender, from the folder that bench/peers.sh made.
//   node transformersJs.js PEERS_FOLDER MODEL_FOLDER THREADS

import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { serve, syntheticPrompt } from './protocol.js';

/** What is used of @huggingface/transformers; it is no dependency, so its own types are not here. */
interface TransformersJs {
  readonly env: { localModelPath: string; allowRemoteModels: boolean };
  readonly AutoModelForCausalLM: {
    from_pretrained(name: string, options: object): Promise<{ generate(options: object): Promise<unknown> }>;
  };
  readonly Tensor: new (type: string, values: BigInt64Array, shape: readonly number[]) => object;
}

const VOCABULARY = 49152; // SmolLM2

async function main(): Promise<void> {
  const [folder, model, threads] = process.argv.slice(2) as [string, string, string];
  const main = createRequire(join(folder, 'package.json')).resolve('@huggingface/transformers');
  const library = (await import(pathToFileURL(main).href)) as TransformersJs & {
    readonly default?: TransformersJs;
  };
  const { env, AutoModelForCausalLM, Tensor } = library.default ?? library;
  env.localModelPath = dirname(model);
  env.allowRemoteModels = false;
  const options = {
    ...{ dtype: 'q8', device: 'cpu', local_files_only: true },
    session_options: { intraOpNumThreads: Number(threads), interOpNumThreads: 1 },
  };
  const loaded = await AutoModelForCausalLM.from_pretrained(basename(model), options);
  await serve({ name: 'transformers.js q8' }, async (work) => {
    if (work.kind !== 'generate') throw new Error(`expected to generate, received ${work.kind}`);
    const { promptTokens, newTokens } = work;
    const ids = BigInt64Array.from(syntheticPrompt(0, promptTokens, VOCABULARY), BigInt);
    const ones = new BigInt64Array(promptTokens).fill(1n);
    const moments: number[] = [];
    const begun = performance.now();
    const streamer = { put: () => void moments.push(performance.now() - begun), end: () => {} };
    await loaded.generate({
      inputs: new Tensor('int64', ids, [1, promptTokens]),
      attention_mask: new Tensor('int64', ones, [1, promptTokens]),
      ...{ max_new_tokens: newTokens, min_new_tokens: newTokens, do_sample: false, streamer },
    });
    const totalMs = performance.now() - begun;
    // The first call is the prompt itself.
    return {
      totalMs,
      firstTokenMs: moments[1] ?? totalMs,
      newTokens: moments.length - 1,
      threads: Number(threads),
    };
  });
  process.exit(0);
}

await main();
