// Runs a notebook without Jupyter. In: .ipynb, parameters. Out: the executed .ipynb, saved whatever happens.
// Source: nbclient and papermill for the order of things.

import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { resultsFolder } from '../paths.js';
import { writeTextAtomically } from '../results/files.js';
import { type KernelClient, type KernelOptions, startKernelClient } from './client.js';
import {
  cellName,
  formatNotebook,
  injectParameters,
  type Notebook,
  type Output,
  readNotebook,
  solveExercises,
} from './document.js';
import { OutputCollector } from './outputs.js';
import type { WireMessage } from './wire.js';

const CELL_LIMIT_MS = 600_000;
const LATE_ERROR_MS = 100;

/** How far a run is. */
export interface NotebookProgress {
  readonly notebook: string;
  /** The cell that starts now, for people. */
  readonly cell: string;
  /** Code cells done, and in all. */
  readonly done: number;
  readonly total: number;
}

/** Options of `runNotebook`. */
export interface RunNotebookOptions extends KernelOptions {
  /** Where the executed notebook goes; over the input unless told. */
  readonly output?: string;
  /** Values for names that the cell tagged `parameters` declares. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** Limit on each cell, 10 minutes unless told. */
  readonly timeoutMs?: number;
  /** Aborting kills the kernel and saves what there is. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: NotebookProgress) => void;
  /** Runs the folded solutions in place of the starter cells; an exercise that does not pass is then an error. */
  readonly solveExercises?: boolean;
}

/** What a run leaves. */
export interface NotebookRun {
  readonly output: string;
  readonly seconds: number;
}

/** A run that failed: the message has the notebook, the cell's name and the error. */
export class NotebookError extends Error {
  override name = 'NotebookError';
  constructor(
    /** Where the executed part was saved. */
    readonly output: string,
    /** The cell's name and number; undefined when the kernel did not start. */
    readonly cell: string | undefined,
    cause: { readonly name: string; readonly message: string },
  ) {
    super(`${output}: ${cell ? `${cell}: ` : ''}${cause.name}: ${cause.message}`, { cause });
  }
}

/** A failure and the cell that is to blame, within this file. */
class CellFailure extends Error {
  constructor(
    readonly index: number,
    readonly reason: { readonly name: string; readonly message: string },
  ) {
    super(reason.message);
  }
}

/**
 * Runs all cells of a notebook in a kernel of its own and saves it, also when it fails.
 * @param path an .ipynb file
 * @returns where the executed notebook is
 * @throws RangeError for an unknown parameter (nothing is run)
 * @throws NotebookError when a cell fails, runs too long, leaves a rejected promise, or the kernel dies
 * @throws the signal's reason when aborted
 */
export async function runNotebook(path: string, options: RunNotebookOptions = {}): Promise<NotebookRun> {
  const startMs = performance.now();
  const output = resolve(options.output ?? path);
  const prepared = injectParameters(readNotebook(path), options.parameters ?? {}, path);
  const notebook = options.solveExercises ? solveExercises(prepared) : prepared;
  clearOutputs(notebook);
  const env = {
    RESPONSE_TIME_RESULTS: resultsFolder(),
    ...(options.solveExercises && { RESPONSE_TIME_SOLVED: '1' }),
    ...options.env,
  };
  try {
    const { client, info } = await startKernelClient({ cwd: dirname(resolve(path)), ...options, env });
    notebook.metadata.language_info = info.language_info;
    await runCells(client, notebook, path, options);
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    if (!(error instanceof CellFailure)) throw new NotebookError(output, undefined, error as Error);
    throw new NotebookError(output, cellName(notebook, error.index), error.reason);
  } finally {
    await writeTextAtomically(output, formatNotebook(notebook));
  }
  return { output, seconds: (performance.now() - startMs) / 1000 };
}

/** Forgets an earlier run. */
function clearOutputs(notebook: Notebook): void {
  for (const cell of notebook.cells)
    if (cell.cell_type === 'code') Object.assign(cell, { outputs: [], execution_count: null });
}

/** Runs the code cells in order; the kernel is gone afterwards. */
async function runCells(
  client: KernelClient,
  notebook: Notebook,
  path: string,
  options: RunNotebookOptions,
): Promise<void> {
  const indexes = notebook.cells.flatMap(({ cell_type, source }, index) =>
    cell_type === 'code' && source.trim() ? [index] : [],
  );
  const run = new CellRunner(client, notebook, options);
  try {
    for (const [done, index] of indexes.entries()) {
      options.onProgress?.({ notebook: path, cell: cellName(notebook, index), done, total: indexes.length });
      await run.execute(index);
    }
    await sleep(LATE_ERROR_MS); // of promises that the last cell left behind
    run.throwLateFailure();
  } catch (error) {
    await client.close({ kill: true });
    throw error;
  }
  await client.close();
}

/** Runs cells one by one and keeps an eye on those that are over. */
class CellRunner {
  private readonly collector = new OutputCollector();
  private readonly failed = new AbortController();
  private readonly signal: AbortSignal;
  private current = -1;
  private running = false;

  constructor(
    private readonly client: KernelClient,
    private readonly notebook: Notebook,
    private readonly options: RunNotebookOptions,
  ) {
    this.signal = AbortSignal.any([this.failed.signal, ...(options.signal ? [options.signal] : [])]);
  }

  /** @throws CellFailure if this cell fails, or meanwhile a promise that an earlier one left behind */
  async execute(index: number): Promise<void> {
    const cell = this.notebook.cells[index]!;
    const outputs: Output[] = [];
    cell.outputs = outputs;
    this.current = index;
    this.running = true;
    const limits = { timeoutMs: this.options.timeoutMs ?? CELL_LIMIT_MS, signal: this.signal };
    const code = {
      code: cell.source,
      silent: false,
      store_history: true,
      allow_stdin: false,
      stop_on_error: true,
    };
    try {
      const reply = await this.client.request(
        'execute_request',
        code,
        (message) => this.hear(index, message),
        limits,
      );
      cell.execution_count = (reply.execution_count as number) ?? null;
      if (reply.status !== 'ok') throw new CellFailure(index, reportedError(outputs));
      this.throwLateFailure();
    } catch (error) {
      if (error instanceof CellFailure || this.signal.aborted) throw error;
      const { name, message } = error as Error;
      outputs.push({
        output_type: 'error',
        ename: name,
        evalue: message,
        traceback: [`${name}: ${message}`],
      });
      throw new CellFailure(index, { name, message });
    } finally {
      this.running = false;
    }
  }

  /** @throws CellFailure of a cell that was over when its promise was rejected */
  throwLateFailure(): void {
    this.failed.signal.throwIfAborted();
  }

  private hear(index: number, message: WireMessage): void {
    this.collector.add(this.notebook.cells[index]!.outputs!, message, (name, value) => {
      if (!this.running || index !== this.current)
        this.failed.abort(new CellFailure(index, { name, message: value }));
    });
  }
}

/** The error among a cell's outputs. */
function reportedError(outputs: readonly Output[]): { name: string; message: string } {
  const error = outputs.find((output) => output.output_type === 'error');
  return error
    ? { name: error.ename, message: error.evalue }
    : { name: 'Error', message: 'the cell was not run' };
}
