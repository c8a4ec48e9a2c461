// lib/cli/models.ts: what the user calls a model -> its folder.
// A known name is an embedded model's, or a checkpoint's in the cache folder; anything else is a path.

import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { cachedModelFolder, isHubId } from '../hub.js';
import { cacheFolder, modelsFolder } from '../paths.js';

export interface KnownModel {
  readonly name: string;
  readonly folder: string;
}

/** Where `response-time model --random NAME` writes. */
export function randomModelFolder(name: string): string {
  return join(cacheFolder(), 'random', name);
}

/** Embedded models, then those made here. */
export function listModels(): KnownModel[] {
  return [modelsFolder(), join(cacheFolder(), 'random')].flatMap((parent) =>
    readableNames(parent)
      .map((name) => ({ name, folder: join(parent, name) }))
      .filter(({ folder }) => isModelFolder(folder)),
  );
}

/**
 * Finds the folder of a model.
 * @param model a known name, a hub id that was fetched, or a folder; write ./name for a folder that is called as a
 *   known model
 * @throws Error if there is no such model (lists those that there are)
 */
export function resolveModel(model: string): string {
  const known = listModels();
  const found = known.find(({ name }) => name === model);
  if (found) return found.folder;
  const folder = resolve(model);
  if (isModelFolder(folder)) return folder;
  if (existsSync(folder)) {
    throw new Error(`model ${model}: expected a folder with config.json in it, found none in ${folder}`);
  }
  const fetched = isHubId(model) ? cachedModelFolder(model) : undefined;
  if (fetched !== undefined) return fetched;
  if (isHubId(model)) {
    throw new Error(
      `model ${model}: expected a folder, or a model of the hub that is here, found neither; fetch it: ` +
        `response-time model ${model}`,
    );
  }
  const names = known.map(({ name }) => name).join(', ') || 'none yet';
  throw new Error(
    `model ${model}: expected a folder or a known model (${names}); GPT-2's real shape with random weights is made ` +
      'by `response-time model --random gpt2`, a model of the hub is fetched by `response-time model OWNER/NAME`',
  );
}

/** What the model in a folder is called, and where it came from, for answers and records. */
export function identify(folder: string): { readonly name: string; readonly source: string } {
  const [parent, name] = [dirname(folder), basename(folder)];
  if (parent === modelsFolder()) return { name, source: 'embedded' };
  if (parent === join(cacheFolder(), 'random')) {
    return { name, source: `response-time model --random ${name}` };
  }
  // The hub's cache keeps a model in models--owner--name/snapshots/COMMIT.
  const [, owner, model] = /models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\][^/\\]+$/.exec(folder) ?? [];
  if (owner && model) return { name: `${owner}/${model}`, source: `hub, commit ${name}` };
  return { name, source: folder };
}

/** Whether the folder holds weights: without them a model can still be inspected. */
export function hasWeights(folder: string): boolean {
  return readableNames(folder).some((name) => /\.(safetensors|bin)(\.index\.json)?$/.test(name));
}

function isModelFolder(folder: string): boolean {
  return existsSync(join(folder, 'config.json'));
}

function readableNames(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return []; // not made yet
  }
}
