#!/usr/bin/env node
// The command that a kernelspec starts: `node kernel.js --config-path FILE`. It builds lib/dist when a source of lib
// is newer (a plain-JavaScript file, because it must run before there is a build), then starts the kernel.
// In: a connection file. Out: a running kernel. It needs no PATH: as from VS Code, it may be empty.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const lib = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(lib, 'dist');
const buildInfo = join(dist, '.tsbuildinfo');
const lock = join(dist, '.lock');
const LOCK_LIMIT_MS = 120_000; // no build takes that long

/** @param {string} path @returns {number} milliseconds since 1970, 0 where there is no such file */
const modifiedMs = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** Newest TypeScript source of lib. @param {string} folder @returns {number} */
function newestSourceMs(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (path !== dist && entry.name !== 'node_modules') newest = Math.max(newest, newestSourceMs(path));
    } else if (/\.[cm]?ts$|^(tsconfig|package)\.json$/.test(entry.name)) {
      newest = Math.max(newest, modifiedMs(path));
    }
  }
  return newest;
}

/** @param {string} text a process id @returns {boolean} whether that process is still there */
function isAlive(text) {
  try {
    return process.kill(Number(text), 0);
  } catch {
    return false;
  }
}

/** Takes the lock, so that two kernels never write dist at once. @returns {boolean} false where dist is read-only */
function takeLock() {
  for (;;) {
    try {
      mkdirSync(dist, { recursive: true });
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      return true;
    } catch (/** @type {any} */ error) {
      if (error.code !== 'EEXIST') return false;
    }
    try {
      const isOld = Date.now() - modifiedMs(lock) > LOCK_LIMIT_MS;
      if (isOld || !isAlive(readFileSync(lock, 'utf8')))
        rmSync(lock, { force: true }); // a killed kernel's
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    } catch {
      // given back meanwhile
    }
  }
}

/** @returns {boolean} whether a source is newer than the build */
const isStale = () => newestSourceMs(lib) > modifiedMs(buildInfo);

/** @returns {string | undefined} undefined where only what runs was installed: then the build is what it is */
function findCompiler() {
  try {
    return createRequire(import.meta.url).resolve('typescript/bin/tsc');
  } catch {
    return undefined;
  }
}

/** Compiles lib; type errors go to stderr but stop nothing, as JavaScript is written all the same. */
function build() {
  const compiler = findCompiler();
  if (!compiler) return;
  const startMs = Date.now();
  const result = spawnSync(process.execPath, [compiler, '-p', lib], { encoding: 'utf8' });
  if (result.status !== 0) process.stderr.write(`building ${lib}:\n${result.stdout}${result.stderr}\n`);
  // The compiler leaves its record alone when nothing came out differently; the time of the start counts.
  if (modifiedMs(buildInfo)) utimesSync(buildInfo, new Date(startMs), new Date(startMs));
}

if (isStale() && takeLock()) {
  try {
    if (isStale()) build(); // another kernel may have built while this one waited
  } finally {
    rmSync(lock, { force: true });
  }
}
await import('../dist/notebook/kernel.js');
