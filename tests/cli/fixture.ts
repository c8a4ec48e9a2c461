// A terminal that remembers, and a model folder of a few thousand random weights with a byte-level tokenizer.

import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { Terminal } from '../../lib/cli/terminal.js';
import { main } from '../../lib/cli.js';
import { gpt2WeightMap } from '../../lib/models/gpt2.weights.js';
import { writeRandomCheckpoint } from '../../lib/randomModel.js';

export interface Outcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line in this process. */
export async function runCli(
  args: readonly string[],
  options: { signal?: AbortSignal; isTTY?: boolean } = {},
) {
  const [output, errors] = [new PassThrough(), new PassThrough()];
  const terminal: Terminal = {
    output,
    errors: Object.assign(errors, { isTTY: options.isTTY ?? false }),
    signal: options.signal ?? new AbortController().signal,
    exitCode: 0,
  };
  const exitCode = await main(args, terminal);
  return { exitCode, stdout: textOf(output), stderr: textOf(errors) } satisfies Outcome;
}

function textOf(stream: PassThrough): string {
  return (stream.read() as Buffer | null)?.toString('utf8') ?? '';
}

export const FIXTURE_VOCAB = 259;
export const FIXTURE_CONTEXT = 48;

/** Writes a GPT-2 of 2 layers whose vocabulary is the 256 bytes and three special tokens. */
export async function writeModelFolder(folder: string): Promise<void> {
  const sizes = { vocabSize: FIXTURE_VOCAB, maxPositions: FIXTURE_CONTEXT, dim: 16, layers: 2, innerDim: 64 };
  const config = {
    ...{ model_type: 'gpt2', vocab_size: FIXTURE_VOCAB, n_positions: FIXTURE_CONTEXT },
    ...{ n_embd: 16, n_layer: 2, n_head: 2, eos_token_id: 258 },
  };
  await mkdir(dirname(folder), { recursive: true });
  await writeRandomCheckpoint(folder, {
    config,
    map: gpt2WeightMap({ ...sizes, tiedHead: true }),
    dtype: 'f32',
  });
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(byteTokenizer()));
  await writeFile(
    join(folder, 'tokenizer_config.json'),
    JSON.stringify({ chat_template: "{% for m in messages %}[{{ m['content'] }}]{% endfor %}" }),
  );
}

function byteTokenizer(): object {
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  const characters = Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(printable(byte) ? byte : next++),
  );
  const special = ['<s>', '<pad>', '</s>'].map((content, i) => ({ id: 256 + i, content, special: true }));
  return {
    added_tokens: special,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: Object.fromEntries(characters.map((c, id) => [c, id])), merges: [] },
  };
}
