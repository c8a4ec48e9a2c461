// Values -> aligned plain text, which GitHub, JupyterLab, VS Code and a terminal all show the same way.
// Source: own.

/** A record of a table: column name -> cell. */
type Row = Readonly<Record<string, unknown>>;

/** Whether a value is an object with plain fields (no array, no class such as Date or Map). */
function isRecord(value: unknown): value is Row {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Whether a value looks like a danfojs DataFrame: column names and rows of cells. */
function isFrame(value: unknown): value is { columns: string[]; values: unknown[][] } {
  const frame = value as { columns?: unknown; values?: unknown };
  return (
    typeof value === 'object' && value !== null && Array.isArray(frame.columns) && Array.isArray(frame.values)
  );
}

/** A number as a reader wants it: integers whole, others with four significant digits. */
export function formatNumber(value: number): string {
  if (Number.isInteger(value) || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3
    ? value.toExponential(3)
    : String(Number(value.toPrecision(size >= 1000 ? 6 : 4)));
}

/** One value in one line. */
export function formatValue(value: unknown): string {
  if (typeof value === 'number') return formatNumber(value);
  if (typeof value === 'string') return value;
  if (value === undefined || value === null) return '-';
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    return formatValue(Array.from(value as unknown as ArrayLike<number>)); // every view but DataView is array-like
  }
  if (Array.isArray(value)) {
    const shown = value.slice(0, 16).map(formatValue).join(', ');
    return `[${shown}${value.length > 16 ? `, ... ${value.length} in all` : ''}]`;
  }
  if (isRecord(value)) {
    const fields = Object.entries(value).map(([name, field]) => `${name}: ${formatValue(field)}`);
    return `{ ${fields.join(', ')} }`;
  }
  return String(value);
}

/** Aligned columns under a ruled head: numbers to the right, all else to the left. */
function formatColumns(names: readonly string[], rows: readonly (readonly unknown[])[]): string {
  const cells = rows.map((row) => names.map((_, column) => formatValue(row[column])));
  const widths = names.map((name, column) =>
    Math.max(name.length, ...cells.map((row) => row[column]?.length ?? 0)),
  );
  const right = names.map((_, column) =>
    rows.every((row) => typeof row[column] === 'number' || row[column] == null),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (right[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
      .join('  ')
      .trimEnd();
  return [line(names), widths.map((width) => '-'.repeat(width)).join('  '), ...cells.map(line)].join('\n');
}

/**
 * Formats a value: a list of records or a data frame as a table, an object as a list of fields, all else in a line.
 * @param value any value
 * @returns text without a last newline
 */
export function formatTable(value: unknown): string {
  if (isFrame(value)) return formatColumns(value.columns, value.values);
  if (Array.isArray(value) && value.length > 0 && value.every(isRecord)) {
    const names = [...new Set(value.flatMap((row) => Object.keys(row)))];
    return formatColumns(
      names,
      value.map((row) => names.map((name) => row[name])),
    );
  }
  if (isRecord(value) && Object.keys(value).length > 0) {
    const width = Math.max(...Object.keys(value).map((name) => name.length));
    const fields = Object.entries(value).map(
      ([name, field]) => `${name.padEnd(width)}  ${formatValue(field)}`,
    );
    return fields.join('\n');
  }
  return formatValue(value);
}
