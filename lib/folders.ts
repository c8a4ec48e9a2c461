// lib/folders.ts: a path -> the folder at it, made with its parents.
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Makes a folder and what is missing above it. Node's own recursive mkdir never returns where a file system answers
 * "not found" to a folder that it will not make, as Linux's /proc does; this one fails.
 * @returns the topmost folder that was made; undefined if all were there
 * @throws the system's error, or Error naming the folder, if it cannot be made
 */
export async function makeFolder(folder: string): Promise<string | undefined> {
  try {
    await mkdir(folder);
    return folder;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && (await isFolder(folder))) return undefined;
    if (code !== 'ENOENT') throw error;
    if (await isFolder(dirname(folder))) {
      throw new Error(`${folder}: no folder can be made here; choose another place`, { cause: error });
    }
  }
  const made = await makeFolder(dirname(folder));
  await mkdir(folder);
  return made ?? folder;
}

function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (entry) => entry.isDirectory(),
    () => false,
  );
}
