// lib/checkpoint.ts: a published checkpoint on disk, read lazily, tensor by tensor or by a slice of one.
// folder or file -> names, dtypes, shapes, and bytes on demand: the file itself is never held in memory.
// Source: https://github.com/huggingface/safetensors#format, and the index files of transformers.

import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import {
  type ByteSource,
  describe,
  isRecord,
  type TensorEntry,
  type TensorHeader,
} from './checkpoint/entry.js';
import { maxHeaderBytes, parseHeader } from './checkpoint/header.js';
import { contiguousBytes, spanBytes } from './checkpoint/strided.js';
import { readPickledHeader } from './pickle.js';
import type { FloatWeight } from './tensor.js';

/** An open checkpoint of one file or many shards. Close it when done. */
export interface Checkpoint {
  /** The folder or file that was opened, for messages. */
  readonly source: string;
  readonly files: readonly string[];
  /** The strings under `__metadata__`; of all shards together. */
  readonly metadata: Readonly<Record<string, string>>;
  names(): string[];
  has(name: string): boolean;
  /** @throws Error if there is no such tensor (gives near names) */
  entry(name: string): TensorEntry;
  /** Reads a whole tensor as a Weight in its stored type. @throws Error unless it is f32, f16 or bf16 */
  read(name: string): Promise<FloatWeight>;
  /** Reads a whole tensor of any type, row-major. */
  readBytes(name: string): Promise<Uint8Array>;
  /** Reads bytes [startByte, endByte) of a tensor, row-major, so that a large one can be streamed. */
  readSlice(name: string, startByte: number, endByte: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

const candidates = [
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
] as const;

/**
 * Opens a checkpoint and checks its headers; no tensor is read yet.
 * @param path a folder in Hugging Face's layout, a .safetensors or .bin file, or an index of shards
 * @throws Error naming the file, what was expected, what was found and what to do
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const file = await checkpointFile(path);
  const handles = new Map<string, FileHandle>();
  try {
    const header = file.endsWith('.json') ? await openShards(file, handles) : await openFile(file, handles);
    return new FileCheckpoint(path, header, handles);
  } catch (error) {
    await closeAll(handles);
    throw error;
  }
}

async function checkpointFile(path: string): Promise<string> {
  const found = await stat(path).catch((error: Error) => {
    throw new Error(`${path}: expected a checkpoint, found none (${error.message}); check the path`);
  });
  if (!found.isDirectory()) return path;
  const names = await readdir(path);
  const name = candidates.find((candidate) => names.includes(candidate));
  if (name !== undefined) return join(path, name);
  const listed = names.length > 0 ? names.slice(0, 8).join(', ') : 'nothing';
  throw new Error(`${path}: expected ${candidates.join(' or ')}, found ${listed}; give a model's folder`);
}

async function openFile(file: string, handles: Map<string, FileHandle>): Promise<TensorHeader> {
  const refuse = (error: Error) => {
    throw new Error(`${file}: cannot be opened (${error.message}); check that it exists and may be read`);
  };
  // Asked before it is opened: opening a pipe that nobody writes to would wait for ever.
  if (!(await stat(file).catch(refuse)).isFile())
    throw new Error(`${file}: expected a regular file, found another kind; check the path`);
  const handle = await open(file, 'r').catch(refuse);
  handles.set(file, handle);
  const stats = await handle.stat();
  const source = {
    file,
    fileBytes: stats.size,
    read: (start: number, end: number) => readAt(handle, file, start, end),
  };
  return /\.(bin|pt|pth)$/.test(file) ? readPickledHeader(source) : readSafetensorsHeader(source);
}

async function readSafetensorsHeader({ file, fileBytes, read }: ByteSource): Promise<TensorHeader> {
  if (fileBytes < 10) {
    throw new Error(
      `${file}: expected a safetensors file, found ${fileBytes} bytes; fetch or write it again`,
    );
  }
  const prefix = await read(0, 8);
  const headerBytes = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (headerBytes > BigInt(maxHeaderBytes)) {
    const limit = `expected a header of at most ${maxHeaderBytes} bytes`;
    throw new Error(`${file}: ${limit}, found one of ${headerBytes}; this is no safetensors file`);
  }
  const dataStart = 8 + Number(headerBytes);
  if (dataStart > fileBytes) {
    const ends = `expected a header up to byte ${dataStart}, but the file ends at byte ${fileBytes}`;
    throw new Error(`${file}: ${ends}; it is cut short, fetch it again`);
  }
  return parseHeader(await read(8, dataStart), { file, dataStart, fileBytes });
}

/** Opens the shards that an index names; each tensor must lie in the shard that the index says, and nowhere else. */
async function openShards(indexFile: string, handles: Map<string, FileHandle>): Promise<TensorHeader> {
  const shardByName = await readIndex(indexFile);
  const entries = new Map<string, TensorEntry>();
  const metadata: Record<string, string> = Object.create(null);
  for (const shard of new Set(shardByName.values())) {
    const file = join(dirname(indexFile), shard);
    const header = await openFile(file, handles);
    Object.assign(metadata, header.metadata);
    for (const [name, entry] of header.entries) {
      const expected = shardByName.get(name);
      if (expected === shard) entries.set(name, entry);
      else throw new Error(lie(indexFile, name, expected ?? 'no shard', shard));
    }
  }
  for (const [name, shard] of shardByName) {
    if (!entries.has(name)) throw new Error(lie(indexFile, name, shard, 'no shard'));
  }
  return { entries, metadata };
}

function lie(indexFile: string, name: string, expected: string, found: string): string {
  const places = `the index puts it in ${expected}, found it in ${found}`;
  return `${indexFile}: tensor ${describe(name)}: ${places}; fetch index and shards again, of one revision`;
}

async function readIndex(file: string): Promise<Map<string, string>> {
  let index: unknown;
  try {
    index = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new Error(
      `${file}: expected an index in JSON, received ${(error as Error).message}; fetch it again`,
    );
  }
  const map = isRecord(index) ? index.weight_map : undefined;
  if (!isRecord(map) || Object.keys(map).length === 0) {
    throw new Error(`${file}: expected { weight_map }, received ${describe(index)}; fetch it again`);
  }
  return new Map(Object.entries(map).map(([name, shard]) => [name, checkShardName(file, name, shard)]));
}

function checkShardName(file: string, name: string, shard: unknown): string {
  const isName = typeof shard === 'string' && /^[^/\\\0]+\.(safetensors|bin)$/.test(shard);
  if (isName && basename(shard) === shard) return shard;
  const expected = 'expected the name of a .safetensors or .bin file in the same folder';
  throw new Error(
    `${file}: tensor ${describe(name)}: ${expected}, received ${describe(shard)}; fetch it again`,
  );
}

class FileCheckpoint implements Checkpoint {
  readonly files: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly #entries: ReadonlyMap<string, TensorEntry>;

  constructor(
    readonly source: string,
    header: TensorHeader,
    readonly handles: Map<string, FileHandle>,
  ) {
    this.files = [...handles.keys()];
    this.metadata = header.metadata;
    this.#entries = header.entries;
  }

  names(): string[] {
    return [...this.#entries.keys()];
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  entry(name: string): TensorEntry {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    const last = name.split('.').slice(-2).join('.');
    const near = this.names().filter((other) => other.endsWith(last));
    const some = (near.length > 0 ? near : this.names()).slice(0, 4).join(', ');
    throw new Error(`${this.source}: expected tensor ${describe(name)}, found ${some || 'no tensors'}`);
  }

  async read(name: string): Promise<FloatWeight> {
    const { dtype, shape, file } = this.entry(name);
    if (dtype !== 'f32' && dtype !== 'f16' && dtype !== 'bf16') {
      const expected = `tensor ${describe(name)}: expected f32, f16 or bf16, received ${dtype}`;
      throw new Error(`${file}: ${expected}; save the model in one of these types`);
    }
    return { kind: 'float', dtype, shape, bytes: await this.readBytes(name) };
  }

  async readBytes(name: string): Promise<Uint8Array> {
    const entry = this.entry(name);
    const { file, start, bytes } = entry;
    const end = start + (entry.strides ? spanBytes(entry) : bytes);
    const read = await readAt(this.#handle(file), file, start, end);
    return entry.strides ? contiguousBytes(read, entry) : read;
  }

  async readSlice(name: string, startByte: number, endByte: number): Promise<Uint8Array> {
    const entry = this.entry(name);
    if (entry.strides) return (await this.readBytes(name)).subarray(startByte, endByte);
    if (!(startByte >= 0 && startByte <= endByte && endByte <= entry.bytes)) {
      const range = `[${startByte}, ${endByte})`;
      throw new RangeError(`${name}: expected a slice of its ${entry.bytes} bytes, received ${range}`);
    }
    const handle = this.#handle(entry.file);
    return readAt(handle, entry.file, entry.start + startByte, entry.start + endByte);
  }

  async close(): Promise<void> {
    await closeAll(this.handles);
  }

  #handle(file: string): FileHandle {
    const handle = this.handles.get(file);
    if (!handle) throw new Error(`${this.source}: was closed; open it again before reading`);
    return handle;
  }
}

async function closeAll(handles: Map<string, FileHandle>): Promise<void> {
  const open = [...handles.values()];
  handles.clear();
  await Promise.all(open.map((handle) => handle.close()));
}

/** One read call moves less than 2 GiB. */
const maxReadBytes = 2 ** 30;

async function readAt(handle: FileHandle, file: string, start: number, end: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start);
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, maxReadBytes);
    const { bytesRead } = await handle.read(bytes, done, length, start + done);
    if (bytesRead === 0) {
      throw new Error(
        `${file}: expected ${end} bytes, but it now ends at byte ${start + done}; fetch it again`,
      );
    }
    done += bytesRead;
  }
  return bytes;
}
