import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { runCli } from './fixture.js';

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'cli-results-'));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(scratch, { recursive: true });
});

describe('results', () => {
  test('says so when there are none; --json has both lists', async () => {
    vi.stubEnv('RESPONSE_TIME_RESULTS', join(scratch, 'results'));
    expect((await runCli(['results'])).stdout).toMatch(/^Yours .*\nNo results yet/);
    const { yours, committed } = JSON.parse((await runCli(['results', '--json'])).stdout);
    expect(yours).toEqual([]);
    expect(Array.isArray(committed)).toBe(true);
  });

  test('a file of another schema is refused by name', async () => {
    const results = join(scratch, 'results');
    await mkdir(results);
    await writeFile(join(results, 'old.run.json'), JSON.stringify({ schemaVersion: 99 }));
    vi.stubEnv('RESPONSE_TIME_RESULTS', results);
    const { exitCode, stderr } = await runCli(['results']);
    expect(stderr).toMatch(/^error: .*old\.run\.json: schemaVersion: expected 1, found 99[^\n]*\n$/);
    expect(exitCode).toBe(1);
  });
});
