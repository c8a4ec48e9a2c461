// lib/results/files.ts: text -> a file that is either whole or not there, and errors that say what to do.

import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeFolder } from '../folders.js';

/**
 * Writes a file by way of a temporary one beside it: readers see the old content or the new, never a part.
 * Its folder is made when missing.
 * @throws Error that names the file and says what to do: disk full, no permission, a folder in its place
 */
export async function writeTextAtomically(file: string, content: string): Promise<void> {
  const temporary = `${file}.${process.pid}-${Math.random().toString(36).slice(2, 8)}.tmp`;
  let handle: FileHandle | undefined;
  await refuseDevice(file);
  try {
    await makeFolder(dirname(file));
    handle = await open(temporary, 'wx');
    await handle.writeFile(content);
    await handle.sync(); // else a power cut after the rename can leave an empty file
    await handle.close();
    await rename(temporary, file);
  } catch (error) {
    await handle?.close().catch(() => undefined);
    await rm(temporary, { force: true }).catch(() => undefined);
    throw writeError(file, error);
  }
}

/** A rename would put a plain file in the place of a device or a pipe, such as /dev/stdout. */
async function refuseDevice(file: string): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (!found || found.isFile() || found.isDirectory()) return; // a folder: rename says it
  throw new Error(`${file}: could not write, it is a device or a pipe: give the name of a file`);
}

/** An error of the file system in words: the file, what was wrong, what to do. Nothing of the file was changed. */
export function writeError(file: string, error: unknown): Error {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const advice =
    new Map([
      ['ENOSPC', 'the disk is full: free some space and run it again'],
      ['EDQUOT', 'your disk quota is used up: free some space and run it again'],
      ['EACCES', 'no permission to write there: choose another folder with RESPONSE_TIME_RESULTS'],
      ['EPERM', 'no permission to write there: choose another folder with RESPONSE_TIME_RESULTS'],
      ['EROFS', 'the disk is read-only: choose another folder with RESPONSE_TIME_RESULTS'],
      ['EISDIR', 'a folder has that name: move it or choose another name'],
      ['ENOTDIR', 'a part of the path is a file, not a folder: choose another folder'],
    ]).get(code) ?? String(error instanceof Error ? error.message : error);
  return new Error(`${file}: could not write, ${advice}`, { cause: error });
}
