// lib/checkpoint/entry.ts: what is known of a tensor before it is read: its name, type, shape and place.
// Shared by the two file formats, safetensors (header.ts) and PyTorch's pickled zip (../pickle.ts).

import type { DType, Shape } from '../tensor.js';

/** Element types that a checkpoint may hold. Those beyond DType are known by size only. */
export type StoredDType =
  | DType
  | 'f4'
  | 'f6_e2m3'
  | 'f6_e3m2'
  | 'f8_e4m3'
  | 'f8_e5m2'
  | 'f8_e8m0'
  | 'f8_e4m3fnuz'
  | 'f8_e5m2fnuz'
  | 'c64'
  | 'c128';

/** Where a tensor lies: `bytes` bytes of `file` from byte `start`, row-major unless `strides` says otherwise. */
export interface TensorEntry {
  readonly name: string;
  readonly file: string;
  readonly dtype: StoredDType;
  readonly shape: Shape;
  readonly start: number;
  readonly bytes: number;
  /** In elements, one an axis: only tensors of pickled files that are not contiguous have them. */
  readonly strides?: Shape;
}

export interface TensorHeader {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A file to read headers from: its size, and bytes [start, end) of it. */
export interface ByteSource {
  readonly file: string;
  readonly fileBytes: number;
  read(start: number, end: number): Promise<Uint8Array>;
}

const bitsByDType: ReadonlyMap<string, number> = new Map(
  Object.entries({
    ...{ f32: 32, f16: 16, bf16: 16, f64: 64, bool: 8, c64: 64, c128: 128 },
    ...{ i8: 8, u8: 8, i16: 16, u16: 16, i32: 32, u32: 32, i64: 64, u64: 64 },
    ...{ f4: 4, f6_e2m3: 6, f6_e3m2: 6 },
    ...{ f8_e4m3: 8, f8_e5m2: 8, f8_e8m0: 8, f8_e4m3fnuz: 8, f8_e5m2fnuz: 8 },
  }),
);

/**
 * Bytes of a tensor of this shape.
 * @throws Error if that is no whole number of bytes, or more than 2^53
 */
export function storedBytes(dtype: StoredDType, shape: Shape): number {
  const elements = shape.includes(0) ? 0 : shape.reduce((product, axis) => product * axis, 1);
  const bytes = (elements * bitsByDType.get(dtype)!) / 8;
  if (Number.isSafeInteger(bytes) && Number.isSafeInteger(elements)) return bytes;
  throw new Error(`${dtype} [${shape.join(', ')}]: expected a whole number of bytes below 2^53`);
}

/** True for the name of an element type in lower case. */
export function isStoredDType(dtype: string): dtype is StoredDType {
  return bitsByDType.has(dtype);
}

/** Refuses names that are empty, unprintable, or could reach into an object's prototype. */
export function checkName(name: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it looks for
  const isBad = name === '' || /[\u0000-\u001f\u007f-\u009f]/.test(name);
  if (isBad || name.split('.').includes('__proto__') || name === '__metadata__') {
    throw new Error(`expected a printable name, received ${describe(name)}`);
  }
}

/** True for an object that is neither null nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value for an error message, cut to a readable length. */
export function describe(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
