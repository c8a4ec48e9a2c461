// tests/built.ts: the built library, for tests that start a process of their own: source name -> path in lib/dist.

import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('..', import.meta.url));

/** Path of lib/dist/<name>.js; the library is built first when that file is older than its source. */
export function built(name: string): string {
  const source = `${repository}lib/${name}.ts`;
  const output = `${repository}lib/dist/${name}.js`;
  if (!existsSync(output) || statSync(output).mtimeMs < statSync(source).mtimeMs) {
    // A type error elsewhere makes tsc exit with 1 after it wrote every file: `npm run check` is what judges types.
    spawnSync('node', ['node_modules/typescript/bin/tsc', '-p', 'lib'], { cwd: repository });
  }
  return output;
}
