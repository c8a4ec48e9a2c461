// lib/cli/models.ts: what the user calls a model -> its folder.
// A known name is an embedded model's, or a checkpoint's in the cache folder; anything else is a path.

import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
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
 * @param model a known name or a folder; write ./name for a folder that is called as a known model
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
  const names = known.map(({ name }) => name).join(', ') || 'none yet';
  throw new Error(
    `model ${model}: expected a folder or a known model (${names}); GPT-2's real shape with random weights is made ` +
      'by `response-time model --random gpt2`, a model of the hub is fetched by `response-time model OWNER/NAME`',
  );
}

/** Where a model folder's weights came from, for the records. */
export function sourceOf(folder: string): string {
  const parent = dirname(folder);
  if (parent === modelsFolder()) return 'embedded';
  if (parent === join(cacheFolder(), 'random')) return `response-time model --random ${basename(folder)}`;
  return folder;
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
