// A notebook as a file: read, parameters put in, cells named, outputs tidied, saved.
// In: .ipynb (nbformat 4). Out: the same, nbformat 4.5.
// Source: nbformat 4.5's schema; papermill for parameters; nbclient for carriage returns.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** Data by MIME type: text or parsed JSON. */
export type MimeBundle = Record<string, unknown>;

/** An output of a code cell. */
export type Output =
  | { output_type: 'stream'; name: string; text: string }
  | { output_type: 'display_data'; data: MimeBundle; metadata: object }
  | { output_type: 'execute_result'; data: MimeBundle; metadata: object; execution_count: number | null }
  | { output_type: 'error'; ename: string; evalue: string; traceback: readonly string[] };

/** A cell; in memory its text is one string. */
export interface NotebookCell {
  cell_type: 'code' | 'markdown' | 'raw';
  id: string;
  metadata: { tags?: string[]; name?: string; [key: string]: unknown };
  source: string;
  outputs?: Output[];
  execution_count?: number | null;
}

/** A notebook. */
export interface Notebook {
  nbformat: number;
  nbformat_minor: number;
  metadata: Record<string, unknown>;
  cells: NotebookCell[];
}

/** nbformat writes a long text as a list of lines. */
const joinLines = (text: unknown): string => (Array.isArray(text) ? text.join('') : String(text ?? ''));
const splitLines = (text: string): string[] => text.split(/(?<=\n)/).filter((line) => line !== '');

const hasTag = (cell: NotebookCell, tag: string) => cell.metadata.tags?.includes(tag) ?? false;

/** Whether data of this MIME type is text, kept in lines; JSON is kept parsed, pictures as base64. */
const isText = (mime: string) => !/^image\/(?!svg)/.test(mime) && !/[/+]json$/.test(mime);

/** An output as the file has it -> as this program wants it. */
function readOutput(output: Output): Output {
  if (output.output_type === 'stream') return { ...output, text: joinLines(output.text) };
  if (output.output_type === 'error') return output;
  const data = Object.entries(output.data).map(([mime, value]) => [
    mime,
    isText(mime) || typeof value !== 'object' ? joinLines(value) : value,
  ]);
  return { ...output, data: Object.fromEntries(data) as MimeBundle };
}

/**
 * Reads a notebook.
 * @param path an .ipynb file
 * @throws Error if it is missing or not a notebook of nbformat 4 (names the file)
 */
export function readNotebook(path: string): Notebook {
  let parsed: Partial<Notebook>;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8')) as Partial<Notebook>;
  } catch (error) {
    throw new Error(`${path}: expected a notebook, received ${(error as Error).message}`);
  }
  if (parsed.nbformat !== 4 || !Array.isArray(parsed.cells))
    throw new Error(`${path}: expected a notebook of nbformat 4, received nbformat ${parsed.nbformat}`);
  const cells = parsed.cells.map((cell) => ({
    ...cell,
    id: cell.id ?? randomUUID().slice(0, 8),
    metadata: cell.metadata ?? {},
    source: joinLines(cell.source),
    ...(cell.outputs && { outputs: cell.outputs.map(readOutput) }),
  }));
  return { metadata: {}, ...parsed, nbformat: 4, nbformat_minor: 5, cells };
}

/** What a terminal would show of text with carriage returns: the last version of each line. */
export function collapseCarriageReturns(text: string): string {
  const visible = (line: string) =>
    line.includes('\r') ? line.replace(/\r+$/, '').split('\r').at(-1)!.trimEnd() : line;
  return text.split('\n').map(visible).join('\n');
}

/** An output as this program has it -> as the file wants it. */
function writeOutput(output: Output): object {
  if (output.output_type === 'stream')
    return {
      ...output,
      text: splitLines(collapseCarriageReturns(output.text)),
    };
  if (output.output_type === 'error') return output;
  const data = Object.entries(output.data).map(([mime, value]) => [
    mime,
    isText(mime) && typeof value === 'string' ? splitLines(value) : value,
  ]);
  return { ...output, data: Object.fromEntries(data) };
}

/** The notebook as text of a file. */
export function formatNotebook(notebook: Notebook): string {
  const cells = notebook.cells.map((cell) => ({
    ...cell,
    source: splitLines(cell.source),
    ...(cell.outputs && { outputs: cell.outputs.map(writeOutput) }),
  }));
  return `${JSON.stringify({ ...notebook, cells }, null, 1)}\n`;
}

/**
 * Names a cell for people: its metadata name, else its tag, else the nearest heading before it; and its number.
 * @param index counted from 0 over all cells, shown from 1
 */
export function cellName(notebook: Notebook, index: number): string {
  const cell = notebook.cells[index];
  const headings = notebook.cells
    .slice(0, index + 1)
    .filter(({ cell_type }) => cell_type === 'markdown')
    .flatMap(({ source }) => [...source.matchAll(/^#{1,6}\s+(.+)$/gm)].map(([, heading]) => heading!.trim()));
  const name = cell?.metadata.name ?? cell?.metadata.tags?.[0] ?? headings.at(-1);
  return name ? `cell ${index + 1} (${name})` : `cell ${index + 1}`;
}

/** The names that a notebook's parameters cell declares with `let`. */
export function parameterNames(notebook: Notebook): string[] {
  const sources = notebook.cells.filter((cell) => hasTag(cell, 'parameters')).map(({ source }) => source);
  return sources.flatMap((source) =>
    [...source.matchAll(/^\s*let\s+([\p{L}_$][\p{L}\p{N}_$]*)/gmu)].map(([, name]) => name!),
  );
}

/**
 * Adds a cell that assigns parameters right after the cell tagged `parameters` (in place of an earlier one).
 * @param parameters name -> JSON value
 * @returns a new notebook
 * @throws RangeError if a name is not declared there (lists those that are)
 */
export function injectParameters(
  notebook: Notebook,
  parameters: Readonly<Record<string, unknown>>,
  path = 'notebook',
): Notebook {
  const cells = notebook.cells.filter((cell) => !hasTag(cell, 'injected-parameters'));
  const names = Object.keys(parameters);
  if (names.length === 0) return { ...notebook, cells };
  const known = parameterNames(notebook);
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    const list =
      known.length > 0 ? known.join(', ') : 'none (no cell tagged "parameters" declares one with let)';
    throw new RangeError(`${path}: unknown parameter ${unknown.join(', ')}; known: ${list}`);
  }
  const source = names.map((name) => `${name} = ${JSON.stringify(parameters[name])};`).join('\n');
  const injected: NotebookCell = {
    cell_type: 'code',
    id: randomUUID().slice(0, 8),
    metadata: { tags: ['injected-parameters'] },
    source: `// Parameters of this run\n${source}\nvoid 0;`, // no echo of the last assignment
    outputs: [],
    execution_count: null,
  };
  const at = cells.findIndex((cell) => hasTag(cell, 'parameters'));
  return { ...notebook, cells: [...cells.slice(0, at + 1), injected, ...cells.slice(at + 1)] };
}

/**
 * Puts each folded solution into its starter cell: the code of the first fenced block of the next cell tagged
 * `solution` becomes the source of the code cell tagged `exercise` before it.
 * @returns a new notebook
 * @throws Error if an exercise has no solution after it (names the cell)
 */
export function solveExercises(notebook: Notebook): Notebook {
  const cells = notebook.cells.map((cell, index) => {
    if (cell.cell_type !== 'code' || !hasTag(cell, 'exercise')) return cell;
    const solution = notebook.cells.slice(index + 1).find((later) => hasTag(later, 'solution'));
    const code = solution && /^```\w*\n([\s\S]*?)^```/m.exec(solution.source)?.[1];
    if (!code)
      throw new Error(`${cellName(notebook, index)}: expected a cell tagged "solution" with a code block`);
    return { ...cell, source: code.trimEnd() };
  });
  return { ...notebook, cells };
}
