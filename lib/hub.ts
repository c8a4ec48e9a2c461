// lib/hub.ts: a model's id on the Hugging Face hub -> a folder on this machine with the files that we need of it.
// In: 'HuggingFaceTB/SmolLM2-135M-Instruct' -> out: config, tokenizer and weights, in the cache shared with Python.
// A dataset's id -> its JSON file, in the same cache.
// Environment: HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, as huggingface_hub reads them.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readFile, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { ListFileEntry } from '@huggingface/hub';
import { hubCacheFolder, ModelCache } from './hub/cache.js';
import { type HubClient, HubUnreachable, hubClient } from './hub/client.js';
import { downloadFile, type RemoteFile } from './hub/download.js';
import type { Environment } from './paths.js';

export interface FetchOptions {
  readonly environment?: Environment;
  /** A branch, a tag, or a commit. */
  readonly revision?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  /** Sees config.json before the weights are fetched; may throw to spare them. */
  readonly checkConfig?: (config: unknown, file: string) => void;
  /** Leaves the weights where they are: the folder then holds config and tokenizer only. */
  readonly withoutWeights?: boolean;
  /** Waits between two tries, doubled each time. */
  readonly retryDelayMs?: number;
}

/** Files beside the weights, fetched where the model has them. */
const companions = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
];

/** Weights, the first kind that a model has. */
const weightFiles = [
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
];

/** True for what looks like owner/name; it may be a relative folder too. */
export function isHubId(text: string): boolean {
  return /^[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95}$/.test(text) && !text.includes('..');
}

/** Whether the environment says to ask nobody. */
export function isOffline({ HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE }: Environment): boolean {
  return isSet(HF_HUB_OFFLINE) || isSet(TRANSFORMERS_OFFLINE);
}

/**
 * Folder of a model that was fetched before, by us or by Python; asks nobody.
 * @returns undefined unless config.json and all weights are there
 */
export function cachedModelFolder(
  id: string,
  { environment = process.env, revision = 'main' }: Pick<FetchOptions, 'environment' | 'revision'> = {},
): string | undefined {
  const folder = new ModelCache(environment, id).latest(revision);
  return folder !== undefined && isComplete(folder) ? folder : undefined;
}

/**
 * Fetches what is missing of a model. Asks the hub for its latest commit, unless HF_HUB_OFFLINE is set or it cannot
 * be reached: then what the cache holds must do.
 * @returns a folder in Hugging Face's layout, as openCheckpoint and loadModel take it
 * @throws Error that names the model or the file and says what to do: no network, no such model, a gated one, a
 *   checksum that is wrong, a full disk; a part that was fetched stays, and the next call goes on from there
 */
export async function fetchModel(id: string, options: FetchOptions = {}): Promise<string> {
  const { environment = process.env, revision = 'main' } = options;
  if (!isHubId(id))
    throw new RangeError(`model: expected owner/name as on the hub, received ${JSON.stringify(id)}`);
  if (!/^[\w][\w./-]*$/.test(revision) || revision.includes('..')) {
    throw new RangeError(
      `revision: expected a branch, a tag or a commit, received ${JSON.stringify(revision)}`,
    );
  }
  const cached = cachedModelFolder(id, options);
  if (isOffline(environment)) {
    if (cached !== undefined) return cached;
    const place = hubCacheFolder(environment);
    throw new Error(
      `${id}: HF_HUB_OFFLINE is set, and ${place} holds no such model; unset it, or copy the model there`,
    );
  }
  try {
    return await fetchFiles(id, revision, hubClient(id, { ...options, environment }), {
      ...options,
      environment,
    });
  } catch (error) {
    if (error instanceof HubUnreachable && cached !== undefined) return cached;
    throw error;
  }
}

async function fetchFiles(
  id: string,
  revision: string,
  client: HubClient,
  options: FetchOptions & { readonly environment: Environment },
): Promise<string> {
  // Loaded here: it takes 80 ms, which a command that finds its model in the cache need not wait for.
  const { listFiles, modelInfo } = await import('@huggingface/hub');
  const cache = new ModelCache(options.environment, id);
  const target = { hubUrl: client.endpoint, fetch: client.fetch };
  const { sha: commit } = await modelInfo({ ...target, name: id, revision, additionalFields: ['sha'] });
  if (!/^[0-9a-f]{40}$/.test(commit))
    throw new Error(`${id}: expected a commit from the hub, received ${commit}`);
  const listing = new Map<string, ListFileEntry>();
  for await (const entry of listFiles({ ...target, repo: id, revision: commit }))
    listing.set(entry.path, entry);
  const get = (names: readonly string[], onProgress?: FetchOptions['onProgress']) => {
    const files = names.map((name) => remoteFile(client, id, commit, name, listing));
    return fetchAll(client, cache, commit, files, { ...options, onProgress });
  };

  if (!listing.has('config.json')) {
    throw new Error(
      `${id}: expected config.json among its files, found ${[...listing.keys()].slice(0, 8).join(', ')}`,
    );
  }
  await get(companions.filter((name) => listing.has(name)));
  const config = join(cache.snapshot(commit), 'config.json');
  options.checkConfig?.(await readJson(config), config);
  if (options.withoutWeights) return cache.snapshot(commit);
  const weights = weightFiles.find((name) => listing.has(name));
  if (weights === undefined) {
    const found = [...listing.keys()].filter((name) => !companions.includes(name)).slice(0, 8);
    throw new Error(
      `${id}: expected ${weightFiles.join(' or ')}, found ${found.join(', ')}; use another model`,
    );
  }
  const isIndex = weights.endsWith('.json');
  await get([weights], isIndex ? undefined : options.onProgress);
  if (isIndex) await get(shardNames(join(cache.snapshot(commit), weights)), options.onProgress);
  if (revision !== commit) await cache.remember(revision, commit);
  return cache.snapshot(commit);
}

/** What `fetchDataset` takes: OWNER/NAME, or one of its files, OWNER/NAME/path/file.json. */
export function parseDatasetId(text: string): { readonly id: string; readonly file?: string } | undefined {
  const [, id, file] = /^([^/]+\/[^/]+)(?:\/(.+\.jsonl?))?$/.exec(text) ?? [];
  if (id === undefined || !isHubId(id) || file?.split('/').some((part) => /^\.*$/.test(part)))
    return undefined;
  return file === undefined ? { id } : { id, file };
}

/**
 * Fetches a dataset's JSON file, if it is not in the cache. Without a network, what the cache holds must do.
 * @param name OWNER/NAME of a dataset with one JSON file, or OWNER/NAME/path/file.json
 * @returns path of the file
 * @throws Error that says what to do: no network, no such dataset, no JSON file or several (lists the files)
 */
export async function fetchDataset(
  name: string,
  options: Pick<FetchOptions, 'environment' | 'signal' | 'onProgress' | 'retryDelayMs'> = {},
): Promise<string> {
  const { environment = process.env } = options;
  const { id, file } = parseDatasetId(name) ?? {};
  if (id === undefined) throw new RangeError(`dataset: expected owner/name as on the hub, received ${name}`);
  const cache = new ModelCache(environment, id, 'dataset');
  const cached = cachedDatasetFile(cache, file);
  if (isOffline(environment)) {
    if (cached !== undefined) return cached;
    throw new Error(
      `${id}: HF_HUB_OFFLINE is set, and ${cache.folder} holds no such dataset; unset it, or give a file`,
    );
  }
  try {
    const client = hubClient(id, { ...options, environment });
    const { listFiles } = await import('@huggingface/hub');
    const target = { hubUrl: client.endpoint, fetch: client.fetch };
    const answer = await client.fetch(`${client.endpoint}/api/datasets/${id}/revision/main`);
    const commit = String(((await answer.json()) as { sha?: unknown }).sha);
    if (!/^[0-9a-f]{40}$/.test(commit))
      throw new Error(`${id}: expected a commit from the hub, received ${commit}`);
    const listing = new Map<string, ListFileEntry>();
    const repo = { type: 'dataset', name: id } as const;
    for await (const entry of listFiles({ ...target, repo, revision: commit, recursive: true }))
      if (entry.type === 'file') listing.set(entry.path, entry);
    const wanted = theJsonFile(id, [...listing.keys()], file);
    const remote = remoteFile(client, `datasets/${id}`, commit, wanted, listing);
    await fetchAll(client, cache, commit, [remote], { ...options, environment });
    await cache.remember('main', commit);
    return join(cache.snapshot(commit), wanted);
  } catch (error) {
    if (error instanceof HubUnreachable && cached !== undefined) return cached;
    throw error;
  }
}

/** The file that was asked for, or the only one that is JSON in a cached snapshot. */
function cachedDatasetFile(cache: ModelCache, file: string | undefined): string | undefined {
  const folder = cache.latest('main');
  if (folder === undefined) return undefined;
  const names = file === undefined ? readdirSync(folder, { recursive: true, encoding: 'utf8' }) : [file];
  const found = names.filter((name) => isDataFile(name) && existsSync(join(folder, name)));
  return found.length === 1 ? join(folder, found[0]!) : undefined;
}

/** JSON that holds samples, not what describes them. */
function isDataFile(name: string): boolean {
  return /\.jsonl?$/.test(name) && !/(^|\/)(dataset_infos?|state|config)\.json$/.test(name);
}

function theJsonFile(id: string, names: readonly string[], file: string | undefined): string {
  const found = file === undefined ? names.filter(isDataFile) : names.filter((name) => name === file);
  if (found.length === 1) return found[0]!;
  const listed = (found.length > 1 ? found : names).slice(0, 8).join(', ');
  throw new Error(
    found.length > 1
      ? `${id}: expected one JSON file, found ${found.length} (${listed}); name one: ${id}/${found[0]}`
      : `${id}: expected ${file ?? 'a .json or .jsonl file'} among its files, found ${listed}; Parquet is not read: convert it, and give the file`,
  );
}

/** Fetches files into the cache, one after the other; those that are there count as done. */
async function fetchAll(
  client: HubClient,
  cache: ModelCache,
  commit: string,
  files: readonly RemoteFile[],
  { onProgress, signal }: FetchOptions,
): Promise<void> {
  const bytesTotal = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let bytesBefore = 0;
  for (const file of files) {
    const path = cache.blob(file.digest);
    const found = await stat(path).catch(() => undefined);
    if (found?.size !== file.bytes) {
      await checkSpace(cache.folder, file);
      const onBytes = (bytes: number) => onProgress?.(bytesBefore + bytes, bytesTotal);
      await downloadFile(client, file, path, { onBytes, signal });
    }
    await cache.link(commit, file.name, file.digest);
    bytesBefore += file.bytes;
    onProgress?.(bytesBefore, bytesTotal);
  }
}

function remoteFile(
  client: HubClient,
  id: string,
  commit: string,
  name: string,
  listing: ReadonlyMap<string, ListFileEntry>,
): RemoteFile {
  const entry = listing.get(name);
  const digest = (entry?.lfs?.oid ?? entry?.oid ?? '').replace(/^sha256:/, '');
  const bytes = entry?.lfs?.size ?? entry?.size;
  if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(digest) || bytes === undefined) {
    throw new Error(
      `${id}: expected ${name} with its checksum among the model's files, found none; tell its author`,
    );
  }
  const url = `${client.endpoint}/${id}/resolve/${commit}/${name.split('/').map(encodeURIComponent).join('/')}`;
  return { name, url, bytes, digest };
}

/** Shards that an index names: plain file names only, so that none leaves the folder. */
function shardNames(indexFile: string): string[] {
  let map: unknown;
  try {
    map = (JSON.parse(readFileSync(indexFile, 'utf8')) as { weight_map?: unknown } | null)?.weight_map;
  } catch {
    map = undefined; // no JSON: the message below says what was expected
  }
  const names = typeof map === 'object' && map !== null ? [...new Set(Object.values(map))] : [];
  const isShard = (name: unknown) => typeof name === 'string' && /^[\w.-]+\.(safetensors|bin)$/.test(name);
  if (names.length > 0 && names.every(isShard)) return names as string[];
  throw new Error(`${indexFile}: expected a weight_map of file names, found another kind; tell its author`);
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new Error(`${file}: expected JSON, received ${(error as Error).message}; tell its author`);
  }
}

function isComplete(folder: string): boolean {
  const has = (name: string) => existsSync(join(folder, name)); // follows links: a blob that is gone counts as missing
  const weights = weightFiles.find(has);
  if (!has('config.json') || weights === undefined) return false;
  return !weights.endsWith('.json') || shardNames(join(folder, weights)).every(has);
}

async function checkSpace(folder: string, { name, bytes }: RemoteFile): Promise<void> {
  const disk = await statfs(folder).catch(() => undefined);
  if (disk === undefined || disk.bavail * disk.bsize >= bytes) return;
  const free = disk.bavail * disk.bsize;
  throw new Error(
    `${folder}: ${name} needs ${bytes} bytes, the disk has ${free}: free some, or set HF_HOME elsewhere`,
  );
}

function isSet(flag: string | undefined): boolean {
  return flag !== undefined && /^(1|on|yes|true)$/i.test(flag);
}
