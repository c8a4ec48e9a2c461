// A model's name in a notebook's parameters -> its folder; a random checkpoint of a real shape is made when missing.

import { existsSync } from 'node:fs';
import { randomModelFolder, resolveModel } from '../cli/models.js';
import { formatBytes } from '../cli/units.js';
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
