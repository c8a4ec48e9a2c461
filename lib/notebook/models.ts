// A model's name in a notebook's parameters -> its folder; a random checkpoint of a real shape is made when missing.

import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { randomModelFolder, resolveModel } from '../cli/models.js';
import { formatBytes } from '../cli/units.js';
import { parameterCount, parametersOf } from '../forecast.js';
import { readArchitecture } from '../model.js';
import { modelsFolder } from '../paths.js';
import { type RandomShapeName, randomShapeNames, writeRandomCheckpoint } from '../randomModel.js';
import { interruptSignal, progressBar } from './display.js';

/**
 * Finds the folder of a model, and makes it first if it is a published shape that is to have random weights.
 * @param name embedded model ('tiny-gpt2'), real shape with random weights ('gpt2'), or a folder
 * @throws Error if there is no such model (lists those that there are)
 */
export async function prepareModel(name: string): Promise<string> {
  const isShape = randomShapeNames.includes(name as RandomShapeName);
  if (!isShape || existsSync(randomModelFolder(name))) return resolveModel(name);
  const bar = progressBar(`Writing ${name} with random weights`, 100);
  await writeRandomCheckpoint(randomModelFolder(name), name as RandomShapeName, {
    signal: interruptSignal(),
    onProgress: (done, total) => bar.update(Math.round((100 * done) / total), `% of ${formatBytes(total)}`),
  });
  bar.end();
  return resolveModel(name);
}

/**
 * What `check` takes as `soft` for a claim that the embedded models were made to fulfil: they have to.
 * @returns of any other model, why its figure is only shown
 */
export function unlessEmbedded(folder: string): string | false {
  if (dirname(folder) === modelsFolder()) return false;
  return 'promised of the embedded models only: another is larger, or was trained on other answers';
}

/** Whether a model has so many parameters that a notebook measures less of it. */
export async function isLarge(folder: string): Promise<boolean> {
  const { weightMap } = await readArchitecture(folder);
  return parameterCount(parametersOf(weightMap, 'f32')) > LARGE_PARAMETERS;
}

const LARGE_PARAMETERS = 50_000_000;

/** Parameters of the model that the notebooks' numbers of samples were chosen for. */
const SMALL_MODEL = 3_200_000;

/**
 * How many samples a notebook measures: as many as it is told, else fewer of a larger model, so that it ends in minutes.
 * @param wanted the notebook's parameter
 * @param most of a model as small as the embedded ones
 * @param least of any model
 */
export function sampleCount(
  wanted: number | 'auto',
  parameterCount: number,
  { most, least }: { readonly most: number; readonly least: number },
): number {
  if (wanted !== 'auto') return wanted;
  return Math.max(least, Math.min(most, Math.round((most * SMALL_MODEL) / parameterCount)));
}
