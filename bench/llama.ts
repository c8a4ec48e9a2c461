// bench/llama.ts: node-llama-cpp as a contender, from the folder that bench/peers.sh made.
//   node llama.js PEERS_FOLDER FILE.gguf

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { serve, syntheticPrompt, timeTokens } from './protocol.js';

/** What is used of node-llama-cpp 3.21; it is no dependency, so its own types are not here. */
interface LlamaCpp {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel> }>;
}
interface LlamaModel {
  createContext(options: object): Promise<{ getSequence(): LlamaSequence }>;
}
interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: object): AsyncIterable<number>;
}

const VOCABULARY = { gpt2: 50257, smollm2: 49152 } as const;
const CONTEXT = 512;

async function main(): Promise<void> {
  const [folder, file] = process.argv.slice(2) as [string, string];
  const main = createRequire(join(folder, 'package.json')).resolve('node-llama-cpp');
  const { getLlama } = (await import(pathToFileURL(main).href)) as LlamaCpp;
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    maxThreads: 0,
    logLevel: 'error',
    progressLogs: false,
  });
  const model = await llama.loadModel({ modelPath: file });
  const sequences = new Map<number, LlamaSequence>();
  const vocabulary = file.includes('smollm2') ? VOCABULARY.smollm2 : VOCABULARY.gpt2;
  await serve({ name: file }, async (work) => {
    if (work.kind !== 'generate') throw new Error(`expected to generate, received ${work.kind}`);
    const { promptTokens, newTokens, threads = 1 } = work;
    let sequence = sequences.get(threads);
    if (!sequence) {
      const context = await model.createContext({ threads, contextSize: CONTEXT, batchSize: CONTEXT });
      sequence = context.getSequence();
      sequences.set(threads, sequence);
    }
    await sequence.clearHistory();
    const prompt = syntheticPrompt(0, promptTokens, vocabulary);
    const tokens = sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true });
    return { ...(await timeTokens(tokens, newTokens)), threads };
  });
  process.exit(0); // its threads would keep the process
}

await main();
