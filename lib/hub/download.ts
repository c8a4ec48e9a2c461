// lib/hub/download.ts: one file of the hub -> a blob in the cache, its checksum verified.
// A download that breaks goes on where it was, in this run or the next: the part lies in <blob>.incomplete, where
// older versions of huggingface_hub leave theirs too.

import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeFolder } from '../folders.js';
import { type HubClient, maxTries } from './client.js';

export interface RemoteFile {
  readonly name: string;
  readonly url: string;
  readonly bytes: number;
  /** sha256 of the contents, or git's sha1 of a small file. */
  readonly digest: string;
}

interface DownloadOptions {
  readonly onBytes?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Downloads a file.
 * @param path where it appears when it is complete and its checksum is right
 * @param options onBytes is called with the bytes that are there, those of an earlier run included
 * @throws Error naming the file if its checksum is wrong (the part is then removed), or as the client does
 */
export async function downloadFile(
  client: HubClient,
  file: RemoteFile,
  path: string,
  options: DownloadOptions = {},
): Promise<void> {
  await makeFolder(dirname(path));
  const part = `${path}.incomplete`;
  const resumedAt = (await stat(part).catch(() => undefined))?.size ?? 0;
  let received = await completePart(client, file, part, options);
  // What an earlier run left may have been another file's: once more from the beginning.
  if (received !== file.digest && resumedAt > 0) {
    await rm(part);
    received = await completePart(client, file, part, options);
  }
  if (received !== file.digest) {
    await rm(part);
    throw wrongChecksum(client, file, received);
  }
  await rename(part, path);
}

/** Opens the part of a file and fills it. @returns the digest of the whole */
async function completePart(
  client: HubClient,
  file: RemoteFile,
  part: string,
  options: DownloadOptions,
): Promise<string> {
  const handle = await open(part, 'a+');
  try {
    return await fill(client, file, handle, options);
  } catch (error) {
    throw diskError(error as NodeJS.ErrnoException, file, part);
  } finally {
    await handle.close();
  }
}

/** Appends what is missing, as often as the connection breaks. @returns the digest of the whole */
async function fill(
  client: HubClient,
  file: RemoteFile,
  handle: FileHandle,
  { onBytes, signal }: DownloadOptions,
): Promise<string> {
  let have = (await handle.stat()).size;
  if (have > file.bytes) {
    await handle.truncate(0);
    have = 0;
  }
  let hash = await hashOf(handle, file, have);
  for (let failures = 0; have < file.bytes; ) {
    const before = have;
    const response = await client.fetch(file.url, { headers: rangeFrom(have) });
    if (have > 0 && response.status !== 206) {
      // The server knows no ranges: from the beginning again.
      await handle.truncate(0);
      have = 0;
      hash = newHash(file);
    }
    try {
      for await (const chunk of response.body ?? []) {
        if (have + chunk.length > file.bytes) return `more than its ${file.bytes} bytes`;
        hash.update(chunk);
        await handle.appendFile(chunk);
        have += chunk.length;
        onBytes?.(have);
      }
    } catch (error) {
      if (signal?.aborted || !isConnectionError(error as Error)) throw error;
    }
    if (have === file.bytes) break;
    failures = have > before ? 1 : failures + 1;
    if (failures === maxTries) throw brokeOff(client, file, have);
    await sleep(client.retryDelayMs * 2 ** (failures - 1), undefined, { signal });
  }
  return hash.digest('hex');
}

function rangeFrom(have: number): Record<string, string> {
  const identity = { 'accept-encoding': 'identity' };
  return have > 0 ? { ...identity, range: `bytes=${have}-` } : identity;
}

function newHash({ digest, bytes }: RemoteFile): Hash {
  if (digest.length === 64) return createHash('sha256');
  return createHash('sha1').update(`blob ${bytes}\0`); // as git names a file's contents
}

async function hashOf(handle: FileHandle, file: RemoteFile, bytes: number): Promise<Hash> {
  const hash = newHash(file);
  const buffer = new Uint8Array(2 ** 20);
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - at), at);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  return hash;
}

/** undici's error for a connection that broke while the body came. */
function isConnectionError(error: Error): boolean {
  return error instanceof TypeError && error.message === 'terminated';
}

function brokeOff({ endpoint }: HubClient, { name, bytes }: RemoteFile, have: number): Error {
  const state = `the connection to ${endpoint} broke at byte ${have} of ${bytes}, and again ${maxTries - 1} times`;
  return new Error(`${name}: ${state}; run the command again, it goes on from there`);
}

function wrongChecksum({ endpoint }: HubClient, { name, digest }: RemoteFile, received: string): Error {
  const sums = `expected checksum ${digest}, received ${received}`;
  return new Error(`${name}: ${sums}; what came from ${endpoint} is not the file, it was removed: try again`);
}

function diskError(error: NodeJS.ErrnoException, { bytes }: RemoteFile, path: string): Error {
  if (error.code !== 'ENOSPC') return error;
  return new Error(
    `${path}: the disk is full; the file needs ${bytes} bytes: free some, or set HF_HOME elsewhere`,
  );
}
