// lib/cli/benchmarkPlan.ts: options and a --config file -> what to measure, every field checked.

import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { evaluationFile } from '../dataset.js';
import type { Mode } from '../jit/jit.js';
import { type SchemeName, schemeNames } from '../quantize.js';
import { count, flag, InvalidValue, list, object, oneOf, optional, text } from '../results/validate.js';
import {
  BACKEND_CHOICES,
  type BackendChoice,
  MODE_CHOICES,
  TARGET_CHOICES,
  type TargetChoice,
} from './load.js';

/** Fields of a --config file, and options of the same names; an option goes before the file. */
export interface Settings {
  readonly samples?: number | undefined;
  readonly configurations?: readonly string[] | undefined;
  readonly dataset?: string | undefined;
  readonly new?: number | undefined;
  readonly promptTokens?: number | undefined;
  readonly repeats?: number | undefined;
  readonly ignoreEos?: boolean | undefined;
  readonly backend?: BackendChoice | undefined;
  readonly output?: string | undefined;
}

const settingsCheck = object<Settings>({
  samples: optional(count(1)),
  configurations: optional(list(text)),
  dataset: optional(text),
  new: optional(count(1)),
  promptTokens: optional(count(1)),
  repeats: optional(count(1)),
  ignoreEos: optional(flag),
  backend: optional(oneOf(...BACKEND_CHOICES)),
  output: optional(text),
});

export const DEFAULT_CONFIGURATIONS = [
  'eager-uncached-f32',
  'eager-cached-f32',
  'eager-cached-int8',
] as const;

export interface Plan {
  readonly samples: number;
  readonly configurations: readonly PlannedConfiguration[];
  readonly dataset: string;
  readonly newTokens: number;
  readonly promptTokens: number;
  readonly repeats: number;
  readonly ignoreEos: boolean;
  readonly backend: BackendChoice;
  readonly output: string | null;
}

export interface PlannedConfiguration {
  readonly label: string;
  readonly target: TargetChoice;
  readonly cache: boolean;
  readonly weights: SchemeName;
  readonly mode: Mode;
  /** Texts generated at once. */
  readonly batch: number;
}

/**
 * @param options those that were given
 * @param config path of the --config file
 * @throws Error naming the file and the field, or the configuration that is none
 */
export async function makePlan(options: Settings, config?: string): Promise<Plan> {
  const file = config === undefined ? {} : await readSettings(config);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const settings: Settings = { ...file, ...given };
  if (settings.configurations?.length === 0) {
    throw new RangeError(
      `${config ?? '--configurations'}: configurations: expected one or more, received none`,
    );
  }
  return {
    samples: settings.samples ?? 100,
    configurations: [...new Set(settings.configurations ?? DEFAULT_CONFIGURATIONS)].map(parseConfiguration),
    dataset: settings.dataset ?? evaluationFile(),
    newTokens: settings.new ?? 64,
    promptTokens: settings.promptTokens ?? 32,
    repeats: settings.repeats ?? 1,
    ignoreEos: settings.ignoreEos ?? false,
    backend: settings.backend ?? 'auto',
    output: settings.output === undefined ? null : resolve(settings.output),
  };
}

async function readSettings(file: string): Promise<Settings> {
  const content = await readFile(file, 'utf8');
  try {
    return settingsCheck(JSON.parse(content), '');
  } catch (error) {
    const isOurs = error instanceof InvalidValue;
    throw new Error(`${file}: ${isOurs ? error.message : `expected JSON: ${(error as Error).message}`}`);
  }
}

/** 'eager-cached-int8', 'webgpu-cached-int8-fast', 'wasm-cached-f32-x4' -> its parts. @throws RangeError that says which names there are */
export function parseConfiguration(name: string): PlannedConfiguration {
  const parts = /^([a-z]+)-(cached|uncached)-(.+?)(?:-(fast))?(?:-x([1-9]\d?))?$/.exec(name) ?? [];
  const [, target, cache, weights, mode = 'exact', batch = '1'] = parts;
  const isKnown =
    isOneOf(TARGET_CHOICES, target) && isOneOf(schemeNames, weights) && isOneOf(MODE_CHOICES, mode);
  const isOneText = batch === '1' || (target !== 'eager' && cache === 'cached');
  if (isKnown && isOneText) {
    return { label: name, target, cache: cache === 'cached', weights, mode, batch: Number(batch) };
  }
  throw new RangeError(
    `configuration ${JSON.stringify(name)}: expected TARGET-cached-WEIGHTS or TARGET-uncached-WEIGHTS, ` +
      `TARGET one of ${TARGET_CHOICES.join(', ')}, WEIGHTS one of ${schemeNames.join(', ')}, ` +
      'then -fast for the mode of that name, and -x2 to -x99 for that many texts at once, compiled and cached',
  );
}

function isOneOf<Name extends string>(names: readonly Name[], name: string | undefined): name is Name {
  return (names as readonly (string | undefined)[]).includes(name);
}
