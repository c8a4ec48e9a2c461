import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Tests import the library by its source, so that no build stands between an edit and its test.
export default defineConfig({
  resolve: {
    alias: [
      {
        find: /^response-time\/jit$/,
        replacement: fileURLToPath(new URL('./lib/jit/jit.ts', import.meta.url)),
      },
      { find: /^response-time\/(.*)$/, replacement: fileURLToPath(new URL('./lib/$1.ts', import.meta.url)) },
    ],
  },
  test: {
    include: ['tests/**/*.test.ts'],
    reporters: ['default', './tests/summary.ts'],
    testTimeout: 120_000, // for what hangs: a busy machine makes no test fail
    hookTimeout: 180_000,
    pool: 'forks',
    maxWorkers: 2,
    minWorkers: 1,
  },
});
