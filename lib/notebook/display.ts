// What a notebook's cells call: show values and figures, check claims, set exercises, report progress.
// In: values of a cell. Out: outputs of that cell (in a plain Node process: text on stdout).
// Source: the Jupyter messaging protocol's display_data, own.
import { isDeepStrictEqual } from 'node:util';
import type { Figure } from './render.js';
import { currentSession } from './session.js';
import { formatTable, formatValue } from './table.js';

/** Sends one output with all its forms; text alone where no kernel listens. */
function display(data: Readonly<Record<string, unknown>> & { readonly 'text/plain': string }): void {
  const session = currentSession();
  if (session) session.display(data);
  else process.stdout.write(`${data['text/plain']}\n`);
}

/**
 * Shows a value as aligned text: a list of records or a danfojs DataFrame as a table, an object field by field.
 * @param value any value; numbers are shown with four significant digits
 * @param title a line above it
 */
export function show(value: unknown, title?: string): void {
  display({ 'text/plain': title ? `${title}\n${formatTable(value)}` : formatTable(value) });
}

/** Sharp enough on a dense screen, and eight pictures stay under a notebook's 1 MB. */
const PNG_SCALE = 1.5;

/**
 * Shows a Plotly figure as one output: a PNG (GitHub, printed pages) and the interactive figure (VS Code, report).
 * Write `await showFigure(figure)`.
 * @param figure Plotly's `{ data, layout }`; layout.width and layout.height in pixels override the size
 * @param size width and height in pixels, 760 x 440 unless told
 * @throws RangeError if a trace type cannot be drawn without a browser (names it)
 */
export async function showFigure(
  figure: Figure,
  size?: { readonly width: number; readonly height: number },
): Promise<void> {
  const session = currentSession(); // before the first await: of the cell that calls
  const { figureTitle, plainFigure, toPng, toSvg } = await import('./render.js'); // Plotly takes a second: only when needed
  const png = toPng(await toSvg(figure, size), PNG_SCALE);
  const text = `[figure: ${figureTitle(plainFigure(figure))}]`;
  if (!session) return display({ 'text/plain': text });
  session.display({
    'image/png': Buffer.from(png).toString('base64'),
    'application/vnd.plotly.v1+json': plainFigure(figure),
    'text/plain': text,
  });
}

/** What `check` asks of a value; give one of the three. */
export interface CheckLimit {
  readonly atMost?: number;
  readonly atLeast?: number;
  /** Compared deeply, so that lists of token ids can be checked too. */
  readonly equals?: unknown;
  /** A failed soft check is shown and recorded but does not stop the notebook; a text says why it may fail. */
  readonly soft?: boolean | string;
}

/** A checkpoint's outcome, plain JSON. */
export interface CheckRecord {
  readonly name: string;
  readonly value: unknown;
  /** Such as `<= 0.01`. */
  readonly expected: string;
  readonly passed: boolean;
}

const checkRecords = new Map<string, CheckRecord>();

/** Holds a value against its limit. */
function judge(value: unknown, limit: CheckLimit): { expected: string; passed: boolean } {
  if ('equals' in limit)
    return { expected: `= ${formatValue(limit.equals)}`, passed: isDeepStrictEqual(value, limit.equals) };
  if (typeof value !== 'number')
    throw new TypeError(`check: expected a number for atMost or atLeast, received ${formatValue(value)}`);
  const { atMost = Number.POSITIVE_INFINITY, atLeast = Number.NEGATIVE_INFINITY } = limit;
  const parts = [
    ...(limit.atLeast === undefined ? [] : [`>= ${formatValue(atLeast)}`]),
    ...(limit.atMost === undefined ? [] : [`<= ${formatValue(atMost)}`]),
  ];
  if (parts.length === 0) throw new TypeError('check: expected atMost, atLeast or equals, received none');
  return { expected: parts.join(' and '), passed: value >= atLeast && value <= atMost }; // NaN passes neither
}

/**
 * Checks a claim, prints PASS or FAIL with the figure, and records it for `checks()`.
 * @param name what is claimed; a rerun cell replaces the record of the same name
 * @param value the measured value
 * @param limit `{ atMost }`, `{ atLeast }` (or both) or `{ equals }`
 * @throws Error on FAIL (after printing and recording it) unless `soft`
 */
export function check(name: string, value: unknown, limit: CheckLimit): void {
  const { expected, passed } = judge(value, limit);
  checkRecords.set(name, { name, value, expected, passed });
  const claim = `${name}: ${formatValue(value)} ${expected}`;
  const reason = typeof limit.soft === 'string' ? ` (${limit.soft})` : '';
  console.log(
    passed ? `PASS ${claim}` : `FAIL ${name}: ${formatValue(value)}, expected ${expected}${reason}`,
  );
  if (!passed && !limit.soft)
    throw new Error(`Check failed: ${name}: expected ${expected}, received ${formatValue(value)}`);
}

/** All checks of this notebook so far, in order, as plain JSON for its results file. */
export function checks(): readonly CheckRecord[] {
  return [...checkRecords.values()];
}

/** Thrown by a starter cell that has nothing to return yet. */
export class NotYet extends Error {
  override name = 'NotYet';
}

/** An exercise's outcome, plain JSON. */
export interface ExerciseRecord {
  readonly name: string;
  readonly outcome: 'not yet' | 'passes' | 'FAIL';
  /** Why it does not pass. */
  readonly reason?: string;
}

const exerciseRecords = new Map<string, ExerciseRecord>();

/** All exercises of this notebook so far, in order, as plain JSON for its results file. */
export function exercises(): readonly ExerciseRecord[] {
  return [...exerciseRecords.values()];
}

/** Set by the runner when it runs the solutions: then an exercise that does not pass is an error. */
const mustBeSolved = () => process.env.RESPONSE_TIME_SOLVED === '1';

/**
 * Judges the reader's answer, says so in a line, and goes on whatever it is. Write `await exercise(...)`.
 * @param name the exercise's name
 * @param solution calls the reader's code; returns undefined or throws NotYet while it is the starter
 * @param verify true when right; false, a reason, or an error (such as one of node:assert) when wrong
 * @throws Error only when the runner runs the solutions and this one does not pass
 */
export async function exercise<Answer>(
  name: string,
  solution: () => Answer | undefined | Promise<Answer | undefined>,
  verify: (answer: Answer) => boolean | string | Promise<boolean | string>,
): Promise<void> {
  const [outcome, reason] = await judgeExercise(solution, verify);
  exerciseRecords.set(name, { name, outcome, ...(reason && { reason }) });
  const line = `Exercise ${name}: ${outcome}${reason ? `: ${reason}` : ''}`;
  console.log(line);
  if (mustBeSolved() && outcome !== 'passes') throw new Error(line);
}

/** Runs the answer and its verification; any error but NotYet makes it wrong. */
async function judgeExercise<Answer>(
  solution: () => Answer | undefined | Promise<Answer | undefined>,
  verify: (answer: Answer) => boolean | string | Promise<boolean | string>,
): Promise<[ExerciseRecord['outcome'], string?]> {
  try {
    const answer = await solution();
    if (answer === undefined) return ['not yet', 'fill in the cell above and run both again'];
    const verdict = await verify(answer);
    if (verdict === true) return ['passes'];
    return ['FAIL', verdict === false ? `received ${formatValue(answer)}` : verdict];
  } catch (error) {
    if (error instanceof NotYet)
      return ['not yet', error.message || 'fill in the cell above and run both again'];
    return ['FAIL', error instanceof Error ? error.message : String(error)];
  }
}

/** A line of progress that overwrites itself. */
export interface ProgressBar {
  /** Reports how many of the total are done. @param note a few words after the count */
  update(done: number, note?: string): void;
  /** Ends the line. @param note a few words in place of the count */
  end(note?: string): void;
}

const BAR_WIDTH = 24;
const MIN_REDRAW_MS = 100;

/**
 * Starts a progress line in the cell's output, redrawn at most ten times a second.
 * @param label what is going on
 * @param total how many steps there are
 */
export function progressBar(label: string, total: number): ProgressBar {
  const startMs = performance.now();
  let lastMs = Number.NEGATIVE_INFINITY;
  return {
    update(done, note = '') {
      const nowMs = performance.now();
      if (nowMs - lastMs < MIN_REDRAW_MS && done < total) return;
      lastMs = nowMs;
      const filled = Math.round((BAR_WIDTH * Math.min(done, total)) / Math.max(total, 1));
      const bar = '#'.repeat(filled).padEnd(BAR_WIDTH, '.');
      process.stdout.write(`\r${label} [${bar}] ${done}/${total} ${note}`.trimEnd().padEnd(79));
    },
    end(note) {
      const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
      process.stdout.write(`\r${`${label}: ${note ?? `${total} of ${total}`} in ${seconds} s`.padEnd(79)}\n`);
    },
  };
}

/**
 * The running cell's signal: aborted when the reader interrupts it (in plain Node: on Ctrl-C).
 * Hand it to everything long, because an interrupt does not stop an async loop by itself.
 * @returns take it once in each cell
 */
export function interruptSignal(): AbortSignal {
  const session = currentSession();
  if (session) return session.signal;
  const controller = new AbortController();
  process.once('SIGINT', () => controller.abort(new Error('Interrupted')));
  return controller.signal;
}
