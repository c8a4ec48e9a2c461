// lib/adapterFiles.ts: what was found out about a GPU, kept in the cache folder: an adapter's name and driver and a topic ->
// text. Losing it costs the time to find it out again, so nothing here fails.

import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from './folders.js';
import { cacheFolder } from './paths.js';

/** One file an adapter, driver and topic. */
function fileOf(adapter: string, topic: string): string {
  const name = adapter.toLowerCase().replace(/[^a-z0-9.]+/g, '-');
  return join(cacheFolder(), 'webgpu', `${name.slice(0, 120)}.${topic}.json`);
}

/** What was kept; undefined where nothing was or it cannot be read. */
export async function readAdapterFile(adapter: string, topic: string): Promise<string | undefined> {
  return readFile(fileOf(adapter, topic), 'utf8').catch(() => undefined);
}

/** Keeps a text, whole or not at all: another process may write at the same time. */
export async function writeAdapterFile(adapter: string, topic: string, text: string): Promise<void> {
  const file = fileOf(adapter, topic);
  try {
    await makeFolder(join(cacheFolder(), 'webgpu'));
    const written = `${file}.${process.pid}`;
    await writeFile(written, text);
    await rename(written, file);
  } catch {
    // A read-only or full cache: it will be found out again.
  }
}
