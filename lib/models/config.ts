// lib/models/config.ts: reads fields of a Hugging Face config.json. Unchecked JSON -> typed fields, or an error that
// names the file, the field, what was expected and what was found.

export type ConfigJson = Readonly<Record<string, unknown>>;

/** No published model comes near it; more would be a mistake that fills the memory with names of layers. */
export const MOST_LAYERS = 10_000;

/** The most features of a layer, and heads and features of a head: a mistake of this size would fill the memory too. */
export const MOST_FEATURES = 2 ** 20;

/** Field readers over one config.json; every error begins with the file's name. */
export interface ConfigReader {
  readonly file: string;
  /** A positive integer up to `most`; the fallback where the field is absent or null. */
  size(field: string, fallback?: number, most?: number): number;
  /** A finite number above zero. */
  positive(field: string, fallback?: number): number;
  flag(field: string, fallback: boolean): boolean;
  /** One of the names. */
  choice<Name extends string>(field: string, names: readonly Name[], fallback?: Name): Name;
  /** The raw value, undefined where absent or null. */
  raw(field: string): unknown;
  /** True if the field is there, be it null. */
  has(field: string): boolean;
  /** Refuses an option that would change the result and is not implemented, unless it has a harmless value. */
  refuse(field: string, harmless: readonly unknown[], why: string): void;
  fail(field: string, expected: string): never;
}

/** @throws TypeError if `json` is not an object (names the file) */
export function configReader(json: unknown, file: string): ConfigReader {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new TypeError(`${file}: expected a JSON object, found ${describe(json)}`);
  }
  const raw = (field: string): unknown =>
    Object.hasOwn(json, field) ? ((json as ConfigJson)[field] ?? undefined) : undefined;
  const fail = (field: string, expected: string): never => {
    throw new RangeError(`${file}: ${field}: expected ${expected}, found ${describe(raw(field))}`);
  };
  const read = <T>(
    field: string,
    fallback: T | undefined,
    expected: string,
    valid: (value: unknown) => boolean,
  ): T => {
    const value = raw(field);
    if (value === undefined && fallback !== undefined) return fallback;
    if (!valid(value)) fail(field, expected);
    return value as T;
  };
  const isSize = (value: unknown, most: number) =>
    Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= most;
  return {
    file,
    raw,
    has: (field) => Object.hasOwn(json, field),
    fail,
    size: (field, fallback, most = 2 ** 31 - 1) =>
      read(field, fallback, `a positive integer up to ${most}`, (value) => isSize(value, most)),
    positive: (field, fallback) =>
      read(field, fallback, 'a number above 0', (value) => Number.isFinite(value) && (value as number) > 0),
    flag: (field, fallback) => read(field, fallback, 'true or false', (value) => typeof value === 'boolean'),
    choice: (field, names, fallback) =>
      read(field, fallback, `one of ${names.join(', ')}`, (value) =>
        (names as readonly unknown[]).includes(value),
      ),
    refuse: (field, harmless, why) => {
      const value = raw(field);
      if (value !== undefined && !harmless.includes(value)) {
        throw new RangeError(`${file}: ${field}: ${describe(value)} is not supported: ${why}`);
      }
    },
  };
}

/** A value as error messages show it, cut to a readable length. */
function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
