// lib/checkpoint/writer.ts: tensors -> one safetensors file, streamed, that appears only when it is complete.
// Source: https://github.com/huggingface/safetensors#format.

import { type FileHandle, open, realpath, rename, rm, rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeFolder } from '../folders.js';
import { storedBytes, type TensorEntry } from './entry.js';
import { encodeHeader } from './header.js';

export type TensorToWrite = Pick<TensorEntry, 'name' | 'dtype' | 'shape'>;

/** A tensor's bytes at once, or in pieces. A piece is written before the next is asked for, so one buffer will do. */
export type TensorData = Uint8Array | Promise<Uint8Array> | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes a safetensors file under a temporary name beside `path` and renames it when all of it is on the disk.
 * @param entries in the order in which they are written
 * @param data little-endian bytes of the entry at this index; called once each, in order
 * @throws Error naming the file and the bytes that it needs, if a tensor has another size, the disk is full, or
 *   the signal aborts; the temporary file is removed and `path` is as it was
 */
export async function writeSafetensors(
  path: string,
  entries: readonly TensorToWrite[],
  data: (entry: TensorToWrite, index: number) => TensorData,
  {
    metadata,
    signal,
    onProgress,
  }: {
    readonly metadata?: Readonly<Record<string, string>>;
    readonly signal?: AbortSignal;
    readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  } = {},
): Promise<void> {
  const header = encodeHeader(entries, metadata);
  const bytesTotal = entries.reduce(
    (sum, { dtype, shape }) => sum + storedBytes(dtype, shape),
    header.length,
  );
  await writeInPlace(path, bytesTotal, async (handle) => {
    await writeAll(handle, header);
    let bytesDone = header.length;
    for (const [index, entry] of entries.entries()) {
      let entryBytes = 0;
      for await (const piece of pieces(data(entry, index))) {
        signal?.throwIfAborted();
        await writeAll(handle, piece);
        entryBytes += piece.length;
        bytesDone += piece.length;
        onProgress?.(bytesDone, bytesTotal);
      }
      const expected = storedBytes(entry.dtype, entry.shape);
      if (entryBytes === expected) continue;
      throw new RangeError(`tensor ${entry.name}: expected ${expected} bytes, received ${entryBytes}`);
    }
  });
}

/**
 * @throws Error if `path` is one of the files that are being read: replacing it would destroy the source
 */
export async function refuseSource(path: string, sources: readonly string[]): Promise<void> {
  const real = (file: string) => realpath(file).catch(() => file);
  const files = await Promise.all(sources.map(real));
  if (!files.includes(await real(path))) return;
  throw new Error(`${path}: is the checkpoint that is read; choose another folder`);
}

/**
 * Writes a file under a temporary name beside it, syncs and renames it; on failure nothing is left of it, nor of a
 * folder that was made for it.
 * @param bytesNeeded for the message when the disk is full
 */
async function writeInPlace(
  path: string,
  bytesNeeded: number,
  write: (handle: FileHandle) => Promise<void>,
): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  let handle: FileHandle | undefined;
  let madeFolder: string | undefined;
  try {
    madeFolder = await makeFolder(dirname(path));
    handle = await open(temporary, 'w');
    await write(handle);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
  } catch (error) {
    await handle?.close().catch(() => {});
    await rm(temporary, { force: true }).catch(() => {});
    if (madeFolder !== undefined) await rmdir(dirname(path)).catch(() => {});
    throw explained(error as NodeJS.ErrnoException, path, bytesNeeded);
  }
}

function explained(error: NodeJS.ErrnoException, path: string, bytesNeeded: number): Error {
  if (error.syscall === undefined) return error;
  const advice =
    error.code === 'ENOSPC'
      ? 'free some space, or choose another disk'
      : 'check the folder and who may write to it';
  const message = `${path}: cannot be written (${error.message}): needs ${bytesNeeded} bytes; ${advice}`;
  return new Error(message, { cause: error });
}

async function* pieces(data: TensorData): AsyncGenerator<Uint8Array> {
  const value = await data;
  if (value instanceof Uint8Array) yield value;
  else yield* value;
}

/** One write call moves less than 2 GiB. */
const maxWriteBytes = 2 ** 30;

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, maxWriteBytes));
    done += bytesWritten;
  }
}
