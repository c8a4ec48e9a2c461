// lib/cli/terminal.ts: what a command may talk to: results go to `output`, all else to `errors`, and `signal` says
// that the user, or the reader of the output, wants no more.

import { formatError, Interrupted } from './errors.js';

export interface Terminal {
  /** Results only, so that they can be piped. */
  readonly output: NodeJS.WritableStream;
  /** Messages and progress. */
  readonly errors: NodeJS.WritableStream & { readonly isTTY?: boolean };
  /** Aborted by Ctrl-C, or when the reader of the output has gone. */
  readonly signal: AbortSignal;
  /** What the process ends with when the command returns; 0 unless a command sets it. */
  exitCode: number;
  /** How SIGTERM ends the command, if not at once with the shell's code for it: a command may set it. */
  termination?: Termination;
}

export interface Termination {
  readonly exitCode: number;
  /** After this long without an end, the process goes with that code all the same. */
  readonly patienceMs: number;
}

/** A second Ctrl-C, or this long after the first, ends the process however busy it is. */
const PATIENCE_MS = 5_000;

/** The process's own streams and signals. */
export function processTerminal(): Terminal {
  const controller = new AbortController();
  const terminal: Terminal = {
    output: process.stdout,
    errors: process.stderr,
    signal: controller.signal,
    exitCode: 0,
  };
  const interrupt = ({ exitCode, patienceMs }: Termination) => {
    if (controller.signal.aborted) process.exit(exitCode);
    controller.abort(new Interrupted('interrupted', exitCode));
    setTimeout(() => process.exit(exitCode), patienceMs).unref();
  };
  process.on('SIGINT', () => interrupt({ exitCode: 130, patienceMs: PATIENCE_MS }));
  process.on('SIGTERM', () => interrupt(terminal.termination ?? { exitCode: 143, patienceMs: PATIENCE_MS }));
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // `response-time ... | head`: the reader has all that it wanted.
    if (error.code === 'EPIPE') controller.abort(new Interrupted('', 0));
    else controller.abort(error);
  });
  process.stderr.on('error', () => {});
  return terminal;
}

/** Says one line on stderr: figures, hints. */
export function note(terminal: Terminal, line: string): void {
  terminal.errors.write(`${line}\n`);
}

/** Writes one line, or one JSON object, of the result. */
export function print(terminal: Terminal, line: string): void {
  terminal.output.write(`${line}\n`);
}

/**
 * Tells the user what went wrong, in one line; with RT_DEBUG set, the stack too.
 * @returns the exit code
 */
export function reportFailure(terminal: Terminal, error: unknown): number {
  const reason: unknown = terminal.signal.aborted ? terminal.signal.reason : error;
  if (reason instanceof Interrupted) {
    if (reason.message) note(terminal, reason.message);
    return reason.exitCode;
  }
  note(terminal, `error: ${formatError(reason)}`);
  const debug = process.env.RT_DEBUG;
  if (debug && debug !== '0' && reason instanceof Error) note(terminal, reason.stack ?? '');
  return terminal.exitCode === 0 ? 1 : terminal.exitCode; // a command may know better what kind of failure it is
}
