// lib/cli/clusterOptions.ts: what the commands of `cluster` share: options, and the exit code of a wrong configuration.

import { resolve } from 'node:path';
import { Option } from 'commander';
import { EXIT } from '../cluster/sbatch.js';
import type { Terminal } from './terminal.js';

export const planOption = () =>
  new Option('--plan <file>', 'that `cluster plan` wrote').makeOptionMandatory();
export const folderOption = () =>
  new Option('--folder <folder>', "of the shards' files (default: the plan's name with .shards)");

/** Runs a step whose failure means that the configuration is wrong, which the exit code then says. */
export async function configured<Value>(
  terminal: Terminal,
  step: () => Value | Promise<Value>,
): Promise<Value> {
  const before = terminal.exitCode;
  terminal.exitCode = EXIT.badConfiguration;
  const value = await step();
  terminal.exitCode = before;
  return value;
}

/** Where the shards' files are, unless --folder says. */
export function folderOf(planFile: string, folder: string | undefined): string {
  return resolve(folder ?? `${planFile.replace(/\.json$/, '')}.shards`);
}
