// bench/table.ts: judged bars, figures and profiles -> text.

import type { BarResult, Outcome } from './bars.js';
import { figures } from './bars.js';
import type { KernelTime } from './protocol.js';

/** Columns, padded; numbers to the right, but for the last column. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const isNumber = (cell: string): boolean => /^[-\d]/.test(cell);
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) =>
        isNumber(cell) && i < row.length - 1 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!),
      )
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}

function withUnit(value: number | null, unit: string): string {
  return value === null ? '-' : `${value.toFixed(unit === '%' ? 0 : 2)} ${unit}`;
}

export function barsTable(results: readonly BarResult[]): string {
  const header = ['against', 'ours', 'bar', 'measured', 'a token', ''];
  const rows = results.map((result) => {
    const bound = result.atLeast === undefined ? `<= ${result.atMost}` : `>= ${result.atLeast}`;
    const verdict = result.reason === null ? result.verdict : `${result.verdict}: ${result.reason}`;
    const measured = withUnit(result.value, result.unit);
    return [
      ...[result.against, result.ours, `${bound} ${result.unit}`, measured],
      ...[withUnit(result.perToken, result.unit), verdict],
    ];
  });
  return columns([header, ...rows]);
}

export function figuresTable(outcome: Outcome): string {
  const header = ['measured', 'first token ms', 'a token ms', 'whole ms', 'new tokens', 'threads', 'runs'];
  const rows = figures(outcome).map((figure) => {
    if (figure.missing !== undefined)
      return [figure.id, '-', '-', '-', '-', '-', `missing: ${figure.missing}`];
    const runs = String(figure.runs);
    if (figure.gigabytesPerSecond !== undefined) {
      return [figure.id, '-', '-', `${figure.gigabytesPerSecond.toFixed(1)} GB/s`, '-', '-', runs];
    }
    const numbers = [figure.firstTokenMs!, figure.tokenMs!, figure.totalMs!];
    const [first, token, whole] = [1, 2, 0].map((digits, i) => numbers[i]!.toFixed(digits));
    return [figure.id, first!, token!, whole!, String(figure.newTokens), figure.threads!, runs];
  });
  return columns([header, ...rows]);
}

/** Kernels of one token, the slowest first; shares are of the time, and of the read bandwidth. */
export function profileTable(kernels: readonly KernelTime[], bandwidthGBps: number): string {
  const wholeMs = kernels.reduce((sum, { ms }) => sum + ms, 0);
  const wholeBytes = kernels.reduce((sum, { bytes }) => sum + bytes, 0);
  const row = ({ kernel, count, ms, bytes }: KernelTime): string[] => {
    const speed = ms > 0 ? bytes / 1e6 / ms : 0;
    return [
      ...[kernel, String(count), ms.toFixed(3), `${((100 * ms) / wholeMs).toFixed(0)} %`],
      ...[(bytes / 1e6).toFixed(3), speed.toFixed(1), `${((100 * speed) / bandwidthGBps).toFixed(0)} %`],
    ];
  };
  const header = ['kernel', 'a token', 'ms', 'of the time', 'MB', 'GB/s', 'of the bandwidth'];
  const count = kernels.reduce((sum, kernel) => sum + kernel.count, 0);
  const sum = { kernel: 'all', count, ms: wholeMs, bytes: wholeBytes };
  return columns([header, ...kernels.map(row), row(sum)]);
}
