// Mends tslab's compiler: it ignores tsconfig.json, so cells would be unchecked in the places that matter.
// In: a require that finds tslab, before tslab is loaded. Out: the same modules with other compiler options.
// Source: tslab 1.0.22 dist/converter.js.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { spellShorthand, type TypeScriptSyntax } from './shorthand.js';
import { type NamedHost, namesOf, offerNames, withNames } from './tslab-names.js';

type Require = ReturnType<typeof createRequire>;

/** What is used of TypeScript's compiler. */
interface Compiler {
  createWatchCompilerHost(
    files: unknown,
    options: { lib: string[] },
    system: System,
    ...rest: unknown[]
  ): NamedHost;
}

/** What is used of TypeScript's file system. */
interface System {
  watchDirectory(path: string, changed: unknown, recursive?: boolean, options?: unknown): unknown;
  setTimeout(callback: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

/** A module that a cell imports by a relative path, compiled. */
interface SideOutput {
  readonly path: string;
}

interface Converter {
  convert(declarations: string, source: string): { sideOutputs?: SideOutput[] };
}

const LIBRARIES = ['es2023', 'dom', 'dom.iterable', 'dom.asynciterable'];

/**
 * Lets a second timer wait. The compiler has two, but tslab holds one and throws at the other: a new file anywhere near
 * a failed import would fail the next cell.
 */
function allowLookupTimer(system: System): void {
  const { setTimeout: hold, clearTimeout: release } = system;
  const lookups = new Set<unknown>();
  system.setTimeout = (callback, ms) => {
    if (callback.name !== 'invalidateResolutionsOfFailedLookup') return hold(callback, ms);
    const timer = setTimeout(() => {
      lookups.delete(timer);
      callback();
    }, ms).unref();
    lookups.add(timer);
    return timer;
  };
  system.clearTimeout = (timer) =>
    lookups.delete(timer) ? clearTimeout(timer as NodeJS.Timeout) : release(timer);
}

/**
 * Checks cells with `strict`, and lets them use what Node 20 has of ES2023 and of the DOM (fetch, AbortSignal).
 * @param require finds tslab; called before tslab is loaded
 */
export function compileStrictly(require: Require): void {
  const path = createRequire(require.resolve('tslab/package.json')).resolve('@tslab/typescript-for-tslab');
  const compiler = require(path) as Compiler;
  const known = LIBRARIES.map((name) => `lib.${name}.d.ts`).filter((file) =>
    existsSync(join(dirname(path), file)),
  );
  const createWatchCompilerHost: Compiler['createWatchCompilerHost'] = (files, options, system, ...rest) => {
    allowLookupTimer(system);
    const { watchDirectory } = system;
    // Whole trees would be thousands of watched folders: this project's packages and results.
    system.watchDirectory = (path, changed, _recursive, ...others) =>
      path.includes('node_modules') ? { close() {} } : watchDirectory(path, changed, false, ...others);
    const lib = [...options.lib, ...known];
    // A catch variable stays `any`, as short cells print `error.message`.
    const strict = { ...options, lib, strict: true, useUnknownInCatchVariables: false };
    return offerNames(compiler.createWatchCompilerHost(files, strict, system, ...rest));
  };
  // Its properties are read-only, so the module is replaced as a whole.
  const loaded = require.cache[path];
  if (loaded) loaded.exports = { ...compiler, createWatchCompilerHost };
}

/**
 * Makes a cell's awaits plain to see: tslab takes `await (x)` for a call of a function named await, and does not see
 * `for await`, so that a cell with no other await would not compile. Lines keep their numbers.
 */
export function showAwait(source: string): string {
  return /\bawait\s*\(|\bfor\s+await\b/.test(source) ? `await null; ${source}` : source;
}

/**
 * Loads all local modules anew when one of them changed; tslab alone leaves those that import it as they were.
 * Spells shorthand properties out, too: tslab overlooks them. Tells the compiler which names a cell declares.
 * @param require finds tslab
 */
export function refreshDependents(require: Require): void {
  const syntax = createRequire(require.resolve('tslab/package.json'))(
    '@tslab/typescript-for-tslab',
  ) as TypeScriptSyntax & Parameters<typeof namesOf>[0];
  const module = require('tslab/dist/converter.js') as { createConverter(options: unknown): Converter };
  const { createConverter } = module;
  module.createConverter = (options) => {
    const converter = createConverter(options);
    const { convert } = converter;
    const loaded = new Map<string, SideOutput>();
    converter.convert = (declarations, source) => {
      const cell = spellShorthand(syntax, showAwait(source));
      const converted = withNames(namesOf(syntax, cell), () => convert(declarations, cell));
      const fresh = converted.sideOutputs ?? [];
      const changed = fresh.some(({ path }) => loaded.has(path));
      for (const output of fresh) loaded.set(output.path, output);
      if (changed) converted.sideOutputs = [...loaded.values()];
      return converted;
    };
    return converter;
  };
}
