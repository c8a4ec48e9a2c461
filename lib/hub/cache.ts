// lib/hub/cache.ts: the cache folder that Python's huggingface_hub uses, so that nothing is downloaded twice.
//   models--org--name/refs/main            the commit that `main` was, when last asked
//   models--org--name/snapshots/COMMIT/..  a model's folder: each file a link into blobs
//   models--org--name/blobs/DIGEST         contents by sha256, or by git's sha1 for small files; .incomplete: a part
// Source: huggingface_hub, "Understand caching" and constants.py (the environment variables).

import { existsSync, readFileSync } from 'node:fs';
import { copyFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { makeFolder } from '../folders.js';
import type { Environment } from '../paths.js';

/** HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
export function hubCacheFolder(environment: Environment): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = environment;
  return expandHome(HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(hubHome(environment), 'hub'));
}

/** HF_HOME, else ~/.cache/huggingface: where Python keeps the token as well. */
export function hubHome({ HF_HOME, XDG_CACHE_HOME }: Environment): string {
  return expandHome(HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'));
}

function expandHome(path: string): string {
  return path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path;
}

/** What the hub keeps: each kind has its own addresses and its own folders in the cache. */
export type HubKind = 'model' | 'dataset';

/** The part of the cache that belongs to one model, or one dataset. */
export class ModelCache {
  readonly folder: string;

  constructor(environment: Environment, id: string, kind: HubKind = 'model') {
    this.folder = join(hubCacheFolder(environment), `${kind}s--${id.replace('/', '--')}`);
  }

  blob(digest: string): string {
    return join(this.folder, 'blobs', digest);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** Folder of the commit that a revision last was, if its file names are there; undefined if it was never fetched. */
  latest(revision: string): string | undefined {
    const reference = join(this.folder, 'refs', revision);
    const commit = existsSync(reference) ? readFileSync(reference, 'utf8').trim() : revision;
    if (!/^[0-9a-f]{40}$/.test(commit)) return undefined;
    return existsSync(this.snapshot(commit)) ? this.snapshot(commit) : undefined;
  }

  async remember(revision: string, commit: string): Promise<void> {
    const reference = join(this.folder, 'refs', revision);
    await makeFolder(dirname(reference));
    await writeFile(`${reference}.tmp`, commit);
    await rename(`${reference}.tmp`, reference);
  }

  /** Puts a blob into a snapshot under its file's name: as a relative link, or a copy where links are not allowed. */
  async link(commit: string, name: string, digest: string): Promise<void> {
    const place = join(this.snapshot(commit), name);
    if (existsSync(place)) return;
    await makeFolder(dirname(place));
    await rm(place, { force: true }); // a link to a blob that is gone
    const target = relative(dirname(place), this.blob(digest));
    await symlink(target, place).catch(() => copyFile(this.blob(digest), place));
  }
}
