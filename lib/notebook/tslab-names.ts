// Halves what tslab's compiler does for a cell. tslab makes a whole program of each cell twice: once to learn which names
// it declares, then again with an export of those. For the names a parse of the cell alone is enough.
// In: a cell's source, the compiler's host. Out: the same host, which answers the first time without a new program.
// Source: tslab 1.0.22 dist/converter.js, convert and updateContent; TypeScript 5.0 watchPublic, synchronizeProgram.

/** What is used of TypeScript's compiler; `bindSourceFile` is its own, not public. */
interface Binder {
  readonly ScriptTarget: { readonly Latest: number };
  createSourceFile(name: string, text: string, target: number, setParents?: boolean): BoundFile;
  bindSourceFile(file: BoundFile, options: object): void;
}

/** A parsed file; `locals` has the names that it declares, once bound. */
interface BoundFile {
  readonly path: string;
  readonly text: string;
  readonly locals?: ReadonlyMap<string, unknown>;
}

/** TypeScript's builder of a program. */
interface Builder {
  getProgram(): { getSourceFiles(): readonly BoundFile[] };
  getSourceFile(name: string): BoundFile | undefined;
}

/** What TypeScript's watcher knows of imports that it has to look up again. */
interface Lookups {
  hasInvalidatedResolutions?(path: string): boolean;
  hasChangedAutomaticTypeDirectiveNames?: boolean | (() => boolean);
}

/** The compiler's host, as far as programs are made by it. */
export interface NamedHost {
  createProgram(names: unknown, options: unknown, host?: Lookups, old?: Builder, ...rest: unknown[]): Builder;
}

/** What tslab calls the cell that it compiles. */
const CELL = '__tslab__.ts';

/** The cell's file with its names, for the next program that is asked for; undefined when that has to be a real one. */
let known: BoundFile | undefined;

/** @returns the parsed cell with the names that it declares or imports; undefined if there are none */
export function namesOf(typescript: Binder, source: string): BoundFile | undefined {
  const file = typescript.createSourceFile(
    'cell.ts',
    `export {};\n${source}`,
    typescript.ScriptTarget.Latest,
    true,
  );
  typescript.bindSourceFile(file, {});
  return file.locals && file.locals.size > 0 ? file : undefined;
}

/** Runs a conversion whose first question, for the cell's names, is answered from the parsed file. */
export function withNames<Result>(file: BoundFile | undefined, convert: () => Result): Result {
  known = file;
  try {
    return convert();
  } finally {
    known = undefined;
  }
}

/** Lets a host answer with the program that it has, the cell's file aside, where only names are asked for. */
export function offerNames(host: NamedHost): NamedHost {
  const { createProgram } = host;
  host.createProgram = (names, options, compiler, old, ...rest) => {
    const file = known;
    known = undefined;
    if (!file || !old || isInside(file, old) || mustLookUp(old, compiler))
      return createProgram(names, options, compiler, old, ...rest);
    const getSourceFile = (name: string) => (name.endsWith(CELL) ? file : old.getSourceFile(name));
    return Object.assign(Object.create(old) as Builder, { getSourceFile });
  };
  return host;
}

/** Whether the same cell was compiled last: its export is no news then, and no second program will be asked for. */
function isInside(file: BoundFile, old: Builder): boolean {
  const files = old.getProgram().getSourceFiles();
  return files.some(({ path, text }) => path.endsWith(CELL) && text.startsWith(file.text));
}

/** Whether an import may now lead elsewhere: the compiler says so only once, to the program that it asks for next. */
function mustLookUp(old: Builder, compiler: Lookups | undefined): boolean {
  const types = compiler?.hasChangedAutomaticTypeDirectiveNames;
  if (typeof types === 'function' ? types() : types) return true;
  const files = old.getProgram().getSourceFiles();
  return files.some(({ path }) => compiler?.hasInvalidatedResolutions?.(path));
}
