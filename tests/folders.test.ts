import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeFolder } from '../lib/folders.js';

describe('makeFolder', () => {
  let base: string;
  beforeAll(async () => {
    base = await mkdtemp(join(tmpdir(), 'folders-'));
  });
  afterAll(() => rm(base, { recursive: true }));

  test('makes what is missing and says what it made first', async () => {
    expect(await makeFolder(join(base, 'a/b/c'))).toBe(join(base, 'a'));
    expect((await stat(join(base, 'a/b/c'))).isDirectory()).toBe(true);
    expect(await makeFolder(join(base, 'a/b/c'))).toBeUndefined();
  });

  test('a file in the way is an error that names it', async () => {
    await writeFile(join(base, 'file'), '');
    await expect(makeFolder(join(base, 'file'))).rejects.toThrow(/EEXIST.*file/);
    await expect(makeFolder(join(base, 'file/x'))).rejects.toThrow(/ENOTDIR.*x/);
  });

  test.runIf(process.platform === 'linux')(
    'ends where the file system answers "not found" (Linux has /proc)',
    async () => {
      await expect(makeFolder('/proc/response-time')).rejects.toThrow(
        /\/proc\/response-time: no folder can be made here/,
      );
    },
  );
});
