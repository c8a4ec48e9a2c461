// lib/results/machine.ts: on what and with what a Run was measured.
// this process and its host -> Machine, Runtime, commit.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, hostname, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { projectRoot } from '../paths.js';
import type { Machine, Runtime } from '../results.js';

/**
 * This machine; the host's name only as a hash.
 * @param gpu name of the GPU that computes, where one does
 */
export function machineFacts(gpu?: string): Machine {
  return {
    id: createHash('sha256').update(hostname()).digest('hex').slice(0, 12),
    cpu: cpus()[0]?.model.trim() || process.arch, // some virtual machines name no processor
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    os: `${process.platform} ${release()}`,
    ...(gpu ? { gpu } : {}),
  };
}

const PACKAGES = [
  '@tensorflow/tfjs-core',
  '@tensorflow/tfjs-backend-cpu',
  '@tensorflow/tfjs-backend-wasm',
  '@tensorflow/tfjs-backend-webgpu',
  'webgpu',
];

/** This Node and the packages that compute. */
export function runtimeFacts(): Runtime {
  const resolve = createRequire(import.meta.url).resolve;
  const packages = PACKAGES.flatMap((name) => {
    try {
      return [[name, versionOf(resolve(name), name)]];
    } catch {
      return []; // optional on some systems
    }
  });
  return { name: 'node', version: process.versions.node, packages: Object.fromEntries(packages) };
}

/** Version in the package.json above a package's main file; the main field may point into any depth of it. */
function versionOf(main: string, name: string): string {
  for (let folder = dirname(main); folder !== dirname(folder); folder = dirname(folder)) {
    try {
      const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
        name?: string;
        version?: string;
      };
      if (manifest.name === name && manifest.version) return manifest.version;
    } catch {} // no package.json in this folder: the next one up
  }
  throw new Error(`${name}: expected a package.json above ${main}, found none`);
}

/**
 * Commit of this project, ending in -dirty when tracked files were changed since. Outside git, as where the source was
 * copied to a rented machine without its history, what RESPONSE_TIME_COMMIT says; else null.
 */
export function projectCommit(): string | null {
  const git = (...parameters: string[]) =>
    execFileSync('git', parameters, {
      cwd: projectRoot(),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') ? '-dirty' : '');
  } catch {
    return process.env.RESPONSE_TIME_COMMIT || null;
  }
}
