// The library's directions: which source may import which, types included; only cycles of types are let pass, since
// nothing of them is left when the program runs.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const library = fileURLToPath(new URL('../lib', import.meta.url));

interface Source {
  readonly name: string;
  /** Other sources, by name; those that are loaded when needed (`await import`) included. */
  readonly imports: readonly string[];
  /** Those of them that are left when types are gone. */
  readonly loads: readonly string[];
  readonly packages: readonly string[];
  readonly reexportsOnly: boolean;
}

const importedPaths = (code: string) =>
  [...code.matchAll(/(?:\bfrom |\bimport\(|^import )'([^']+)'/gm)].map(([, path]) => path!);

const nameOf = (file: string) => relative(library, file).split(sep).join('/').replace(/\.ts$/, '');

const sources: readonly Source[] = readdirSync(library, { recursive: true, encoding: 'utf8' })
  .map((name) => join(library, name))
  .filter((file) => file.endsWith('.ts') && !/^(dist|node_modules|bin)\//.test(`${nameOf(file)}/`))
  .map((file) => {
    const text = readFileSync(file, 'utf8');
    const namesIn = (code: string) =>
      importedPaths(code)
        .filter((path) => path.startsWith('.'))
        .map((path) => nameOf(resolve(dirname(file), path.replace(/\.js$/, '.ts'))));
    const statements = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '').split(/;\s*/);
    const code = statements.map((statement) => statement.trim()).filter((statement) => statement !== '');
    return {
      name: nameOf(file),
      imports: namesIn(text),
      loads: namesIn(text.replace(/^(import|export) type [^;]*;/gm, '')),
      packages: importedPaths(text).filter((path) => !path.startsWith('.')),
      reexportsOnly: code.length > 0 && code.every((statement) => /^export\b[\s\S]*\bfrom '/.test(statement)),
    };
  });
const byName = new Map(sources.map((source) => [source.name, source]));

/** Imports of sources whose name begins so, that begin so. */
const crossing = (from: RegExp, to: RegExp) =>
  sources
    .filter(({ name }) => from.test(name))
    .flatMap(({ name, imports }) =>
      imports.filter((other) => to.test(other)).map((other) => `${name} -> ${other}`),
    );

/** The first cycle that a source leads to, as a path. */
function cycleFrom(name: string, path: readonly string[], done: Set<string>): string[] | undefined {
  if (path.includes(name)) return [...path.slice(path.indexOf(name)), name];
  if (done.has(name)) return undefined;
  for (const other of byName.get(name)?.loads ?? []) {
    const cycle = cycleFrom(other, [...path, name], done);
    if (cycle) return cycle;
  }
  done.add(name);
  return undefined;
}

describe('imports in lib', () => {
  test('every one is of a source that is there', () => {
    expect(sources.length).toBeGreaterThan(80);
    const missing = sources.flatMap(({ imports }) => imports.filter((name) => !byName.has(name)));
    expect(missing).toEqual([]);
  });

  test('form no cycle', () => {
    const done = new Set<string>();
    const cycles = sources.map(({ name }) => cycleFrom(name, [], done)?.join(' -> '));
    expect(cycles.filter((cycle) => cycle !== undefined)).toEqual([]);
  });

  test('models and jit never meet: the caller joins them', () => {
    expect(crossing(/^models?(\/|$)/, /^jit\//)).toEqual([]);
    expect(crossing(/^jit\//, /^(models?|generate|benchmark|quality|cli|notebook)(\/|$)/)).toEqual([]);
  });

  test('generate cannot tell eager from compiled, nor one model from another', () => {
    expect(crossing(/^(generate|sample)(\/|$)/, /^(models?|jit|compile)(\/|$)/)).toEqual([]);
  });

  test('stages do not know the command or the notebooks', () => {
    expect(crossing(/^(?!cli|notebook)/, /^(cli|notebook)(\/|$)/)).toEqual([]);
    expect(crossing(/^plot/, /^(?!plot|results)/).filter((edge) => !edge.endsWith('-> tensor'))).toEqual([]);
  });

  test('only what reads and writes a stage’s files touches files', () => {
    const stages =
      'adapterFiles|checkpoint|hub|tokenizer|results|paths|folders|dataset|cluster|randomModel|model';
    const allowed = new RegExp(`^(cli|notebook|backend|${stages})(/|$)`);
    const touching = sources.filter(({ packages }) => packages.some((name) => /^(node:)?fs\b/.test(name)));
    expect(touching.map(({ name }) => name).filter((name) => !allowed.test(name))).toEqual([]);
  });

  test('no file only hands on what others export', () => {
    expect(sources.filter(({ reexportsOnly }) => reexportsOnly).map(({ name }) => name)).toEqual([]);
  });
});
