// The golden cases of tests/golden: what PyTorch says of a checkpoint. README there describes the files.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../lib/checkpoint.js';
import type { States } from '../lib/diagnose.js';
import { float32Values } from '../lib/tensor.js';

const goldenFolder = fileURLToPath(new URL('golden', import.meta.url));

export interface GoldenCase {
  readonly name: string;
  readonly note: string;
  /** Where the checkpoint lies. */
  readonly folder: string;
  /** The same weights as torch.save writes them, where the case has them. */
  readonly pickled: string | null;
  readonly expectedFiles: readonly string[];
}

export interface Expected {
  readonly promptIds: readonly number[];
  /** hidden.0 to hidden.N, final_norm and logits of every position. */
  readonly states: States;
  readonly greedyIds: readonly number[];
}

export const goldenCases: readonly GoldenCase[] = readdirSync(goldenFolder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => {
    const folder = join(goldenFolder, name);
    const { note, checkpoint, expected } = JSON.parse(readFileSync(join(folder, 'case.json'), 'utf8'));
    const pickled = readdirSync(folder).includes('pickled') ? join(folder, 'pickled') : null;
    const expectedFiles = (expected as string[]).map((file) => join(folder, file));
    return { name, note, folder: join(folder, checkpoint), pickled, expectedFiles };
  });

export async function readExpected(file: string): Promise<Expected> {
  const checkpoint = await openCheckpoint(file);
  try {
    const integers = async (name: string) => {
      const bytes = await checkpoint.readBytes(name);
      return [...new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)];
    };
    const layers = checkpoint.names().filter((name) => name.startsWith('hidden.')).length;
    const names = [...Array(layers).keys()].map((i) => `hidden.${i}`).concat('final_norm', 'logits');
    const states = new Map<string, Float32Array>();
    for (const name of names) states.set(name, float32Values(await checkpoint.read(name)));
    return { promptIds: await integers('input_ids'), states, greedyIds: await integers('greedy') };
  } finally {
    await checkpoint.close();
  }
}

export function readAllExpected({ expectedFiles }: GoldenCase): Promise<Expected[]> {
  return Promise.all(expectedFiles.map(readExpected));
}
