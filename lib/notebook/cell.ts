// One cell on its way through the kernel: its outputs, its error, its interrupt.
// In: what the cell writes. Out: iopub messages, stream text joined so that a chatty loop stays cheap.
// Source: the Jupyter messaging protocol 5.3.
import { AsyncLocalStorage } from 'node:async_hooks';
import { inspect } from 'node:util';

const FLUSH_MS = 50;
const FLUSH_CHARACTERS = 1 << 16;

/** The content of an `error` message. */
export interface ErrorContent {
  readonly ename: string;
  readonly evalue: string;
  readonly traceback: readonly string[];
}

/** Frames of tslab, of vm and of this kernel say nothing to the reader of a cell. */
const FOREIGN_FRAME =
  /[\\/]tslab[\\/]dist[\\/]|node:(vm|internal|async_hooks)|[\\/]notebook[\\/](kernel|cell|tslab-handler)\.js/;

/** Describes whatever was thrown. */
export function describeError(thrown: unknown): ErrorContent {
  if (!(thrown instanceof Error)) {
    const text = typeof thrown === 'string' ? thrown : inspect(thrown);
    return { ename: 'Error', evalue: text, traceback: [text] };
  }
  const lines = inspect(thrown).split('\n');
  const traceback = lines.filter((line) => !(/^\s+at /.test(line) && FOREIGN_FRAME.test(line)));
  return { ename: thrown.name, evalue: thrown.message, traceback };
}

/** A cell that runs or has run; late output still finds its way to it. */
export class Cell {
  /** The first error; a TypeScript error grows by a line for each place. */
  error: ErrorContent | undefined;
  /** Set once the reply is on its way: an error from then on is published at once. */
  finished = false;
  /** Execution count. */
  count = 0;
  private readonly interrupt = new AbortController();
  private stream = 'stdout';
  private text = '';
  private flushedMs = 0;
  private timer: NodeJS.Timeout | undefined;

  /** @param send publishes a message with this cell's request as its parent */
  constructor(private readonly send: (type: string, content: object) => void) {}

  get signal(): AbortSignal {
    return this.interrupt.signal;
  }

  abort(): void {
    this.interrupt.abort(new DOMException('Interrupted', 'AbortError'));
  }

  /** Publishes a message after the text that was written before it. */
  publish(type: string, content: object): void {
    this.flush();
    this.send(type, content);
  }

  /** Adds text to a stream; it goes out within 50 ms. */
  write(stream: string, text: string): void {
    if (stream !== this.stream) this.flush();
    this.stream = stream;
    this.text += text;
    // Not by the timer alone: a synchronous loop would show nothing before its end.
    if (Date.now() - this.flushedMs > FLUSH_MS || this.text.length > FLUSH_CHARACTERS) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  /** Sends the text that waits. */
  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.text) return;
    const text = this.text;
    this.text = '';
    this.flushedMs = Date.now();
    this.send('stream', { name: this.stream, text });
  }

  /** Notes a failure. @returns whether it is the first and the cell still runs */
  fail(error: ErrorContent): boolean {
    if (this.finished) this.publish('error', error);
    else if (this.error) return false;
    else this.error = error;
    return !this.finished;
  }

  /** Adds a place to a TypeScript error. */
  failToCompile(line: string): void {
    const { evalue, traceback } = this.error ?? {
      evalue: line,
      traceback: ['TypeScriptError: the cell was not run'],
    };
    this.error = { ename: 'TypeScriptError', evalue, traceback: [...traceback, line] };
  }
}

/**
 * Which cell runs. It is carried along a cell's asynchronous calls, so that late output and late errors find the cell
 * that they came from.
 */
export class RunningCells {
  private readonly storage = new AsyncLocalStorage<Cell>();
  /** The cell that was started last. */
  latest: Cell | undefined;

  /** The cell whose code is running now, or the latest one. */
  get current(): Cell | undefined {
    return this.storage.getStore() ?? this.latest;
  }

  /** Runs a cell's code. */
  run<Result>(cell: Cell, code: () => Result): Result {
    this.latest = cell;
    return this.storage.run(cell, code);
  }
}
