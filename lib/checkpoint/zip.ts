// lib/checkpoint/zip.ts: the directory of a zip file -> where each stored entry's bytes lie.
// torch.save writes zips without compression, so that a tensor can be read by its position. A compressed entry is
// refused: that is what zip bombs are made of.
// Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 (layout) and 4.5.3 (zip64).

import type { ByteSource } from './entry.js';

export interface ZipEntry {
  readonly start: number;
  readonly bytes: number;
  readonly crc32: number;
}

const endBytes = 22;
const locatorBytes = 20;
const maxCommentBytes = 65535;
const maxDirectoryBytes = 100_000_000;

/**
 * Reads the directory of a zip file.
 * @returns entries by name, in the order of the directory
 * @throws Error naming the file if it is no zip, or an entry is compressed, encrypted, listed twice, outside the file
 *   or over another one
 */
export async function readZipDirectory(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const { start, bytes, count } = await findDirectory(source);
  if (bytes > maxDirectoryBytes || start + bytes > source.fileBytes) throw damaged(source, 'its directory');
  const directory = viewOf(await source.read(start, start + bytes));
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > bytes || directory.getUint32(at, true) !== 0x02014b50)
      throw damaged(source, 'its directory');
    const record = parseRecord(source, directory, at);
    if (entries.has(record.name)) throw damaged(source, `entry ${record.name}, which it has twice`);
    entries.set(record.name, await locate(source, record, start));
    at += record.recordBytes;
  }
  checkOverlap(source, entries);
  return entries;
}

interface DirectoryRecord {
  readonly name: string;
  readonly bytes: number;
  readonly headerStart: number;
  readonly crc32: number;
  readonly recordBytes: number;
}

/** The end record gives the directory's place; in zip64 it points to a larger one. */
async function findDirectory(source: ByteSource): Promise<{ start: number; bytes: number; count: number }> {
  const tailStart = Math.max(0, source.fileBytes - endBytes - maxCommentBytes - locatorBytes);
  const tail = viewOf(await source.read(tailStart, source.fileBytes));
  for (let at = tail.byteLength - endBytes; at >= 0; at--) {
    if (tail.getUint32(at, true) !== 0x06054b50) continue;
    if (at + endBytes + tail.getUint16(at + 20, true) !== tail.byteLength) continue;
    const locator = at - locatorBytes;
    if (locator >= 0 && tail.getUint32(locator, true) === 0x07064b50) {
      return readZip64End(source, wideNumber(source, tail, locator + 8));
    }
    const count = tail.getUint16(at + 10, true);
    return { start: tail.getUint32(at + 16, true), bytes: tail.getUint32(at + 12, true), count };
  }
  throw damaged(source, 'the end of its directory');
}

async function readZip64End(source: ByteSource, start: number) {
  if (start + 56 > source.fileBytes) throw damaged(source, 'its zip64 directory');
  const end = viewOf(await source.read(start, start + 56));
  if (end.getUint32(0, true) !== 0x06064b50) throw damaged(source, 'its zip64 directory');
  const [count, bytes, directoryStart] = [32, 40, 48].map((at) => wideNumber(source, end, at)) as [
    number,
    number,
    number,
  ];
  return { start: directoryStart, bytes, count };
}

function parseRecord(source: ByteSource, directory: DataView, at: number): DirectoryRecord {
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((i) =>
    directory.getUint16(at + i, true),
  ) as [number, number, number];
  const recordBytes = 46 + nameBytes + extraBytes + commentBytes;
  if (at + recordBytes > directory.byteLength) throw damaged(source, 'its directory');
  const name = new TextDecoder().decode(
    new Uint8Array(directory.buffer, directory.byteOffset + at + 46, nameBytes),
  );
  if ((directory.getUint16(at + 8, true) & 1) !== 0)
    throw damaged(source, `entry ${name}, which is encrypted`);
  if (directory.getUint16(at + 10, true) !== 0) throw damaged(source, `entry ${name}, which is compressed`);
  const extra = new DataView(directory.buffer, directory.byteOffset + at + 46 + nameBytes, extraBytes);
  const wide = zip64Numbers(source, extra);
  const number = (offset: number): number => {
    const value = directory.getUint32(at + offset, true);
    return value === 0xffffffff ? (wide.shift() ?? value) : value;
  };
  // The zip64 field holds, in this order, only those numbers that do not fit here.
  const [bytes, storedBytes, headerStart] = [number(24), number(20), number(42)];
  if (bytes !== storedBytes) throw damaged(source, `entry ${name}, whose two sizes differ`);
  return { name, bytes, headerStart, crc32: directory.getUint32(at + 16, true), recordBytes };
}

function zip64Numbers(source: ByteSource, extra: DataView): number[] {
  for (let at = 0; at + 4 <= extra.byteLength; at += 4 + extra.getUint16(at + 2, true)) {
    if (extra.getUint16(at, true) !== 1) continue;
    const count = Math.floor(extra.getUint16(at + 2, true) / 8);
    if (at + 4 + 8 * count > extra.byteLength) throw damaged(source, 'a zip64 field');
    return Array.from({ length: Math.min(count, 3) }, (_, i) => wideNumber(source, extra, at + 4 + 8 * i));
  }
  return [];
}

/** The data begin after the entry's own header, whose name and padding may differ from the directory's. */
async function locate(
  source: ByteSource,
  { name, bytes, headerStart, crc32 }: DirectoryRecord,
  directoryStart: number,
): Promise<ZipEntry> {
  if (headerStart + 30 > directoryStart) throw damaged(source, `entry ${name}, which lies outside the data`);
  const header = viewOf(await source.read(headerStart, headerStart + 30));
  const isStored = header.getUint32(0, true) === 0x04034b50 && header.getUint16(8, true) === 0;
  if (!isStored) throw damaged(source, `the header of entry ${name}`);
  const start = headerStart + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + bytes > directoryStart) throw damaged(source, `entry ${name}, which reaches beyond the data`);
  return { start, bytes, crc32 };
}

function checkOverlap(source: ByteSource, entries: ReadonlyMap<string, ZipEntry>): void {
  const byStart = [...entries].filter(([, { bytes }]) => bytes > 0).sort(([, a], [, b]) => a.start - b.start);
  for (let i = 1; i < byStart.length; i++) {
    const [before, after] = [byStart[i - 1]!, byStart[i]!];
    if (before[1].start + before[1].bytes <= after[1].start) continue;
    throw damaged(source, `entries ${before[0]} and ${after[0]}, which overlap`);
  }
}

function wideNumber(source: ByteSource, view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(source, `a size of ${value} bytes`);
  return Number(value);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function damaged({ file }: ByteSource, what: string): Error {
  const expected = 'expected an uncompressed zip as torch.save writes it';
  return new Error(`${file}: ${expected}, cannot use ${what}; fetch it again, or use a safetensors file`);
}
