import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import {
  cacheFolder,
  dataFolder,
  modelsFolder,
  projectRoot,
  referenceResultsFolder,
  resultsFolder,
} from '../lib/paths.js';

const repository = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const scratch = realpathSync(mkdtempSync(join(tmpdir(), 'paths-')));
afterAll(() => rmSync(scratch, { recursive: true }));

test('the root is found from the sources, from dist and from the bin, past broken and foreign packages', () => {
  expect(projectRoot()).toBe(repository);
  expect(projectRoot(join(repository, 'lib', 'dist', 'jit', 'jit.js'))).toBe(repository);
  expect(projectRoot(join(repository, 'lib', 'bin', 'response-time.js'))).toBe(repository);
  const inner = join(scratch, 'project', 'broken');
  mkdirSync(inner, { recursive: true });
  writeFileSync(join(inner, 'package.json'), '{ "name": ');
  writeFileSync(join(scratch, 'project', 'package.json'), '{ "name": "llm-response-time-optimizer" }');
  expect(projectRoot(join(inner, 'file.js'))).toBe(join(scratch, 'project'));
});

test('outside the project the error says where the search began', () => {
  expect(() => projectRoot(join(scratch, 'elsewhere', 'file.js'))).toThrow(/elsewhere.*found none/);
});

test('the working directory does not matter', () => {
  const built = join(repository, 'lib', 'dist', 'paths.js');
  if (!existsSync(built))
    execFileSync('node', ['node_modules/typescript/bin/tsc', '-p', 'lib'], { cwd: repository });
  const script = `import('${built}').then((paths) => process.stdout.write(paths.modelsFolder()))`;
  expect(execFileSync(process.execPath, ['-e', script], { cwd: scratch, encoding: 'utf8' })).toBe(
    join(repository, 'data', 'models'),
  );
});

test('folders of the project', () => {
  expect(dataFolder()).toBe(join(repository, 'data'));
  expect(modelsFolder()).toBe(join(repository, 'data', 'models'));
  expect(resultsFolder({})).toBe(join(repository, 'results', 'latest'));
  expect(resultsFolder({ RESPONSE_TIME_RESULTS: 'mine' })).toBe(resolve('mine'));
  expect(referenceResultsFolder()).toBe(join(repository, 'results', 'reference'));
});

test('the cache is where the system keeps caches, unless told otherwise', () => {
  expect(cacheFolder({ RESPONSE_TIME_CACHE: '/big/disk', XDG_CACHE_HOME: '/x' })).toBe('/big/disk');
  expect(cacheFolder({ XDG_CACHE_HOME: '/x', HOME: '/home/me' }, 'linux')).toBe('/x/response-time');
  expect(cacheFolder({ XDG_CACHE_HOME: 'relative', HOME: '/home/me' }, 'linux')).toBe(
    '/home/me/.cache/response-time',
  );
  expect(cacheFolder({ HOME: '/Users/me' }, 'darwin')).toBe('/Users/me/Library/Caches/response-time');
  expect(cacheFolder({ LOCALAPPDATA: '/local', HOME: '/h' }, 'win32')).toBe('/local/response-time');
});
