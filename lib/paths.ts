// lib/paths.ts: where the project's folders are, whatever the working directory and however the code was started.
// In: this module's own place and the environment -> out: absolute paths. Nothing is created here.
// Source: XDG Base Directory Specification 0.8 for the cache.

import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Name in the root's package.json; no other folder above this file carries it. */
const PROJECT_NAME = 'llm-response-time-optimizer';

/** Environment variables as node:process gives them. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Folder that holds README.md, data and results: the nearest one above `from` with the project's package.json.
 * @param from a file or folder inside the project; by default this module, in lib or in lib/dist
 * @throws Error if no folder above belongs to the project (gives the start)
 */
export function projectRoot(from: string = fileURLToPath(import.meta.url)): string {
  for (let folder = resolve(from); ; folder = dirname(folder)) {
    if (packageName(join(folder, 'package.json')) === PROJECT_NAME) return folder;
    if (dirname(folder) === folder) {
      throw new Error(
        `project root: expected a package.json named ${PROJECT_NAME} above ${from}, found none`,
      );
    }
  }
}

/** Embedded models, datasets and prompts. */
export function dataFolder(): string {
  return join(projectRoot(), 'data');
}

/** Embedded models, one folder each. */
export function modelsFolder(): string {
  return join(dataFolder(), 'models');
}

/**
 * Where your own runs write: RESPONSE_TIME_RESULTS (relative to the working directory), else results/latest.
 */
export function resultsFolder(environment: Environment = process.env): string {
  const chosen = environment.RESPONSE_TIME_RESULTS;
  return chosen ? resolve(chosen) : join(projectRoot(), 'results', 'latest');
}

/** The committed results; each says on which machine it was measured. */
export function referenceResultsFolder(): string {
  return join(projectRoot(), 'results', 'reference');
}

/**
 * Where downloads, random checkpoints and the native backend live: RESPONSE_TIME_CACHE, else the system's cache
 * folder (XDG_CACHE_HOME or ~/.cache; ~/Library/Caches on macOS; LOCALAPPDATA on Windows) and response-time in it.
 */
export function cacheFolder(
  environment: Environment = process.env,
  platform: NodeJS.Platform = process.platform,
): string {
  if (environment.RESPONSE_TIME_CACHE) return resolve(environment.RESPONSE_TIME_CACHE);
  return join(systemCacheFolder(environment, platform), 'response-time');
}

function systemCacheFolder(environment: Environment, platform: NodeJS.Platform): string {
  const home = environment.HOME ?? homedir();
  if (platform === 'darwin') return join(home, 'Library', 'Caches');
  if (platform === 'win32') return environment.LOCALAPPDATA ?? join(home, 'AppData', 'Local');
  const chosen = environment.XDG_CACHE_HOME;
  // The specification: a relative path is invalid and must be ignored.
  return chosen && isAbsolute(chosen) ? chosen : join(home, '.cache');
}

function packageName(file: string): string | undefined {
  if (!existsSync(file)) return undefined;
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { name?: string }).name;
  } catch {
    return undefined; // a broken package.json above the project is none of our business
  }
}
