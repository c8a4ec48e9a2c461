// lib/results/validate.ts: small checks that join into the check of a whole record.
// unknown JSON value -> the same value, typed; else an Error with the path inside the record, expected and found.

/** Returns the value if it fits, else throws an InvalidValue with the path. */
export type Check<T> = (value: unknown, path: string) => T;

/** What does not fit and where; the reader adds the file's name. */
export class InvalidValue extends Error {
  constructor(path: string, expected: string, found: unknown) {
    super(`${path || 'record'}: expected ${expected}, found ${describe(found)}`);
    this.name = 'InvalidValue';
  }
}

/** A value in a few words, for messages. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

export const text: Check<string> = (value, path) => {
  if (typeof value !== 'string' || value === '') throw new InvalidValue(path, 'a text', value);
  return value;
};

/** A text that may be empty. */
export const anyText: Check<string> = (value, path) => {
  if (typeof value !== 'string') throw new InvalidValue(path, 'a text', value);
  return value;
};

export const flag: Check<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw new InvalidValue(path, 'true or false', value);
  return value;
};

/** A finite number from `least` to `most`. */
export function number(least = Number.NEGATIVE_INFINITY, most = Number.POSITIVE_INFINITY): Check<number> {
  const bounds = [
    Number.isFinite(least) ? ` >= ${least}` : '',
    Number.isFinite(most) ? ` and <= ${most}` : '',
  ];
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isFinite(value) || value < least || value > most) {
      throw new InvalidValue(path, `a number${bounds.join('')}`, value);
    }
    return value;
  };
}

/** A whole number from `least` on. */
export function count(least = 0): Check<number> {
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least) {
      throw new InvalidValue(path, `a whole number >= ${least}`, value);
    }
    return value;
  };
}

/** A moment in ISO 8601, UTC, as Date.toISOString writes it. */
export const moment: Check<string> = (value, path) => {
  const written = typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value);
  if (!written || Number.isNaN(Date.parse(value))) {
    throw new InvalidValue(path, 'a UTC time such as 2026-01-31T12:00:00.000Z', value);
  }
  return value;
};

export function oneOf<const T extends string | number>(...values: readonly T[]): Check<T> {
  return (value, path) => {
    if (!values.includes(value as T)) throw new InvalidValue(path, values.map(describe).join(' or '), value);
    return value as T;
  };
}

export function orNull<T>(check: Check<T>): Check<T | null> {
  return (value, path) => (value === null ? null : check(value, path));
}

/** A key that may be absent; null does not stand for it. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, path) => (value === undefined ? undefined : check(value, path));
}

export function list<T>(check: Check<T>): Check<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw new InvalidValue(path, 'a list', value);
    value.forEach((item, i) => {
      check(item, `${path}[${i}]`);
    });
    return value as readonly T[];
  };
}

/** An object with any keys. */
export function dictionary<T>(check: Check<T>): Check<Readonly<Record<string, T>>> {
  return (value, path) => {
    for (const [key, item] of Object.entries(plainObject(value, path))) check(item, `${path}.${key}`);
    return value as Readonly<Record<string, T>>;
  };
}

/** An object with exactly these keys: an unknown one is as wrong as a missing one, since it is most often a misspelling. */
export function object<T extends object>(checks: { readonly [Key in keyof T]-?: Check<T[Key]> }): Check<T> {
  return (value, path) => {
    const record = plainObject(value, path);
    const at = (key: string) => (path ? `${path}.${key}` : key);
    const names = Object.keys(checks);
    for (const key of Object.keys(record)) {
      if (!names.includes(key)) throw new InvalidValue(at(key), `one of ${names.join(', ')}`, `key ${key}`);
    }
    for (const key of names) checks[key as keyof T](record[key], at(key));
    return value as T;
  };
}

function plainObject(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidValue(path, 'an object', value);
  }
  return value as Record<string, unknown>;
}
