// Runs the course headless. In: the notebooks. Out: executed notebooks, their results and one HTML report, all in the
// results folder, so that the clone stays clean.
import { readdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { Presets, SingleBar } from 'cli-progress';
import { projectRoot, resultsFolder } from '../paths.js';
import { parameterNames, readNotebook } from './document.js';
import { writeReport } from './report.js';
import { type NotebookRun, type RunNotebookOptions, runNotebook } from './run.js';

/** Options of `runCourse`. */
export interface CourseOptions extends Omit<RunNotebookOptions, 'output' | 'onProgress'> {
  /** Paths of the notebooks, in order; notebooks/00 to 07 unless told. */
  readonly notebooks?: readonly string[];
  /** Starts of names, such as `03` or `03_quantization`; all unless told. */
  readonly only?: readonly string[];
  /** As `parameters`, for those notebooks that have the name; none need have it, and `parameters` goes before it. */
  readonly defaults?: Readonly<Record<string, unknown>>;
  /** Results folder of this run: `notebooks/` and `report.html` go there; RESPONSE_TIME_RESULTS or results/latest. */
  readonly outputFolder?: string;
  /** Where progress is shown; standard error unless told. */
  readonly stream?: NodeJS.WriteStream;
}

/** What a course run leaves. */
export interface CourseRun {
  readonly runs: readonly (NotebookRun & { readonly name: string })[];
  readonly report: string;
}

const nameOf = (path: string) => basename(path, '.ipynb');

/** The notebooks of the course, in order. */
export function courseNotebooks(folder = join(projectRoot(), 'notebooks')): string[] {
  const names = readdirSync(folder).filter((name) => /^\d\d_.*\.ipynb$/.test(name));
  return names.sort().map((name) => join(folder, name));
}

/** Those whose name starts with one of `only`. @throws RangeError if one of them fits none (lists all) */
function select(paths: readonly string[], only: readonly string[] | undefined): readonly string[] {
  if (!only || only.length === 0) return paths;
  for (const start of only)
    if (!paths.some((path) => nameOf(path).startsWith(start)))
      throw new RangeError(`notebook ${start}: expected one of ${paths.map(nameOf).join(', ')}`);
  return paths.filter((path) => only.some((start) => nameOf(path).startsWith(start)));
}

/** Each notebook gets the parameters that it declares. @throws RangeError if none declares a name (lists all) */
function shareParameters(
  paths: readonly string[],
  parameters: Readonly<Record<string, unknown>>,
  defaults: Readonly<Record<string, unknown>>,
) {
  const known = paths.map((path) => parameterNames(readNotebook(path)));
  const all = [...new Set(known.flat())];
  const unknown = Object.keys(parameters).filter((name) => !all.includes(name));
  if (unknown.length > 0)
    throw new RangeError(`unknown parameter ${unknown.join(', ')}; known: ${all.join(', ') || 'none'}`);
  return known.map((names) =>
    Object.fromEntries(
      Object.entries({ ...defaults, ...parameters }).filter(([name]) => names.includes(name)),
    ),
  );
}

/** A bar for one notebook on a terminal; elsewhere only the line at its end. */
function startBar(name: string, stream: NodeJS.WriteStream) {
  const format = `${name.padEnd(20)} {bar} {value}/{total} {cell}`;
  const bar = new SingleBar(
    { format, stream, clearOnComplete: true, hideCursor: true, barsize: 20 },
    Presets.rect,
  );
  bar.start(1, 0, { cell: 'starting' });
  return bar;
}

/**
 * Runs the course's notebooks one after the other and writes the report, also when one fails.
 * @returns the executed notebooks and the report
 * @throws RangeError for an unknown notebook or parameter (nothing is run)
 * @throws NotebookError of the first notebook that fails; those after it are not run
 */
export async function runCourse(options: CourseOptions = {}): Promise<CourseRun> {
  const { stream = process.stderr, only, parameters = {}, defaults = {}, env, ...runOptions } = options;
  const outputFolder = resolve(options.outputFolder ?? resultsFolder());
  const paths = select(options.notebooks ?? courseNotebooks(), only);
  const shares = shareParameters(paths, parameters, defaults);
  const report = join(outputFolder, 'report.html');
  const outputs: string[] = [];
  const runs: (NotebookRun & { name: string })[] = [];
  try {
    for (const [index, path] of paths.entries()) {
      const name = nameOf(path);
      const output = join(outputFolder, 'notebooks', basename(path));
      outputs.push(output);
      const bar = startBar(name, stream);
      try {
        const run = await runNotebook(path, {
          ...runOptions,
          output,
          parameters: shares[index] ?? {},
          env: { RESPONSE_TIME_RESULTS: outputFolder, ...env },
          onProgress: ({ done, total, cell }) => {
            bar.setTotal(total);
            bar.update(done, { cell });
          },
        });
        runs.push({ name, ...run });
      } finally {
        bar.stop();
      }
      stream.write(`${name.padEnd(20)} ${runs.at(-1)!.seconds.toFixed(1).padStart(6)} s\n`);
    }
  } finally {
    if (outputs.length > 0) await writeReport(outputs, report);
  }
  return { runs, report };
}
