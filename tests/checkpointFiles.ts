// Files for the tests of the file stages: folders that vanish after the test, and safetensors written by hand.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A new empty folder, removed when the test ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'response-time-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes of a safetensors file with exactly this header, unpadded. */
export function safetensorsBytes(header: unknown, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

/** Writes such a file; tensors are given as float32 values and shapes. */
export function writeTensors(
  path: string,
  tensors: Readonly<Record<string, readonly [number[], number[]]>>,
): void {
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, [shape, values]] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + 4 * values.length] };
    offset += 4 * values.length;
  }
  const values = Float32Array.from(Object.values(tensors).flatMap(([, values]) => values));
  writeFileSync(path, safetensorsBytes(header, new Uint8Array(values.buffer)));
}

/** The message that a rejected promise has; fails if it does not reject. */
export async function messageOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => {
      throw new Error('expected an error, received none');
    },
    (error: Error) => error.message,
  );
}
