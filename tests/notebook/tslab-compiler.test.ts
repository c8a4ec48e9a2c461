// tslab's converter, mended as in the kernel. It works on the files of the current directory, so this file changes it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compileStrictly, refreshDependents, showAwait } from '../../lib/notebook/tslab-compiler.js';

const require = createRequire(import.meta.url);
const before = process.cwd();
const folder = mkdtempSync(join(tmpdir(), 'converter-'));
let converter: {
  convert(
    declarations: string,
    source: string,
  ): { output?: string; diagnostics: { messageText: string }[]; declOutput?: string };
  close(): void;
};

beforeAll(() => {
  process.chdir(folder);
  compileStrictly(require);
  refreshDependents(require);
  converter = require('tslab/dist/converter.js').createConverter({});
});
afterAll(() => {
  converter.close();
  process.chdir(before);
  rmSync(folder, { recursive: true });
});

const problems = (source: string, declarations = '') =>
  converter.convert(declarations, source).diagnostics.map(({ messageText }) => messageText);

test('cells are strict', () => {
  expect(problems('const x: string = undefined;')).toHaveLength(1);
  expect(problems('const x: string = "a";')).toEqual([]);
});

test("a shorthand property finds an earlier cell's name", () => {
  const { declOutput } = converter.convert('', 'const a = 1;');
  expect(converter.convert(declOutput!, 'const all = { a };').output).toContain('a: exports.a');
});

test('a file that appears after a failed import does no harm, and is found', async () => {
  const cell = "import { x } from './late'; x;";
  expect(problems(cell)).toHaveLength(1);
  writeFileSync(join(folder, 'late.ts'), 'export const x = 1;\n');
  await sleep(2000); // the compiler looks again 250 ms after the folder changed
  expect(problems(`${cell} x;`)).toEqual([]);
});

test('an await that tslab would take for a call, or not see, is made plain', () => {
  expect(showAwait('await (f())')).toBe('await null; await (f())');
  expect(showAwait('for await (const x of xs) {}')).toMatch(/^await null; /);
  expect(showAwait('await f();')).toBe('await f();');
});
