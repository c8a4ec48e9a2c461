#!/usr/bin/env node
import { existsSync } from 'node:fs';

const cli = new URL('../dist/cli.js', import.meta.url);
if (!existsSync(cli)) {
  console.error('error: the library is not built yet: run `npm run build` (npm ci does it, too)');
  process.exit(1);
}
await (await import(cli.href)).run();
