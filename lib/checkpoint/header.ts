// lib/checkpoint/header.ts: the header of a safetensors file, read and written; nothing here touches files.
// bytes of the JSON header -> checked tensor entries, and back.
// Source: https://github.com/huggingface/safetensors#format. Holes between tensors and bytes after the last one,
// which the reference reader refuses, are tolerated: they change no value.

import {
  checkName,
  describe,
  isRecord,
  isStoredDType,
  storedBytes,
  type TensorEntry,
  type TensorHeader,
} from './entry.js';

/** What the reference implementation allows: enough for a million tensors. */
export const maxHeaderBytes = 100_000_000;

/**
 * Reads a safetensors header.
 * @param json the bytes between the length and the data
 * @param place the file, byte 0 of its data, and its size in bytes
 * @throws Error naming the file, the tensor and what is wrong with it
 */
export function parseHeader(
  json: Uint8Array,
  place: { readonly file: string; readonly dataStart: number; readonly fileBytes: number },
): TensorHeader {
  const header = parseObject(json, place.file);
  const entries = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    try {
      checkName(name);
      entries.set(name, parseEntry(name, value, place));
    } catch (error) {
      throw new Error(`${place.file}: tensor ${describe(name)}: ${(error as Error).message}; ${damaged}`);
    }
  }
  checkOverlap([...entries.values()]);
  return { entries, metadata: parseMetadata(header.__metadata__, place.file) };
}

/**
 * Writes a safetensors header: its length, the JSON, and spaces up to a multiple of 8 bytes.
 * @param entries in the order of their data
 */
export function encodeHeader(
  entries: readonly Pick<TensorEntry, 'name' | 'dtype' | 'shape'>[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const header: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) header.push(['__metadata__', metadata]);
  let offset = 0;
  for (const { name, dtype, shape } of entries) {
    checkName(name);
    const end = offset + storedBytes(dtype, shape);
    header.push([name, { dtype: dtype.toUpperCase(), shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return bytes;
}

const damaged = 'the file is damaged or no safetensors file, fetch or write it again';

function parseObject(json: Uint8Array, file: string): Record<string, unknown> {
  let header: unknown;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json);
    header = JSON.parse(text);
    const twice = duplicateKey(text);
    if (twice !== undefined) throw new Error(`${describe(twice)} stands in it twice`);
  } catch (error) {
    throw new Error(`${file}: expected a header in JSON, received ${(error as Error).message}; ${damaged}`);
  }
  if (isRecord(header)) return header;
  throw new Error(`${file}: expected a JSON object as header, received ${describe(header)}; ${damaged}`);
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (value === undefined) return {};
  const bad = isRecord(value) ? Object.entries(value).find(([, text]) => typeof text !== 'string') : value;
  if (bad === undefined) return Object.assign(Object.create(null) as object, value as Record<string, string>);
  throw new Error(`${file}: __metadata__: expected strings by name, received ${describe(bad)}; ${damaged}`);
}

function parseEntry(
  name: string,
  value: unknown,
  { file, dataStart, fileBytes }: { file: string; dataStart: number; fileBytes: number },
): TensorEntry {
  if (!isRecord(value)) {
    throw new Error(`expected { dtype, shape, data_offsets }, received ${describe(value)}`);
  }
  const dtype = String(value.dtype).toLowerCase();
  if (typeof value.dtype !== 'string' || !isStoredDType(dtype)) {
    throw new Error(`expected a known dtype such as F32 or BF16, received ${describe(value.dtype)}`);
  }
  if (!isCounts(value.shape)) {
    throw new Error(`expected a shape of whole numbers >= 0, received ${describe(value.shape)}`);
  }
  const offsets = value.data_offsets;
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    throw new Error(`expected data_offsets [start, end], received ${describe(offsets)}`);
  }
  const [start, end] = offsets as [number, number];
  const bytes = storedBytes(dtype, value.shape);
  if (bytes !== end - start) {
    const need = `${value.dtype} [${value.shape.join(', ')}] needs ${bytes} bytes`;
    throw new Error(`${need}, but data_offsets [${start}, ${end}] give ${end - start}`);
  }
  if (end > fileBytes - dataStart) {
    throw new Error(`expected data up to byte ${dataStart + end}, but the file ends at byte ${fileBytes}`);
  }
  return { name, file, dtype, shape: value.shape, start: dataStart + start, bytes };
}

function checkOverlap(entries: readonly TensorEntry[]): void {
  const byStart = entries.filter((entry) => entry.bytes > 0).sort((a, b) => a.start - b.start);
  for (let i = 1; i < byStart.length; i++) {
    const [before, after] = [byStart[i - 1]!, byStart[i]!];
    if (before.start + before.bytes <= after.start) continue;
    const names = `${describe(before.name)} and ${describe(after.name)}`;
    throw new Error(`${before.file}: tensors ${names} overlap at byte ${after.start}; ${damaged}`);
  }
}

/** The first key that an object in the text has twice; JSON.parse keeps the last one without a word. */
function duplicateKey(text: string): string | undefined {
  const keys: Set<string>[] = [];
  for (const [token, , colon] of text.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}]/g)) {
    if (token === '{') keys.push(new Set());
    else if (token === '}') keys.pop();
    else if (colon !== undefined) {
      const key = JSON.parse(token.slice(0, -colon.length)) as string;
      if (keys.at(-1)!.has(key)) return key;
      keys.at(-1)!.add(key);
    }
  }
  return undefined;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((axis) => Number.isSafeInteger(axis) && axis >= 0);
}
