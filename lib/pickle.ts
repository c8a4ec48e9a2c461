// lib/pickle.ts: pytorch_model.bin -> tensor entries, as from safetensors; nothing in the file is run.
// The file is a zip: data.pkl describes a dict of tensors, data/0, data/1, ... hold their storages. A tensor is a
// view of a storage: an offset, a shape and strides; two tied names share one.
// Source: PyTorch, torch/serialization.py and torch/_utils.py (_rebuild_tensor_v2).

import { crc32 } from 'node:zlib';
import {
  type ByteSource,
  checkName,
  describe,
  type StoredDType,
  storedBytes,
  type TensorEntry,
  type TensorHeader,
} from './checkpoint/entry.js';
import { isContiguous, spanBytes } from './checkpoint/strided.js';
import { readZipDirectory, type ZipEntry } from './checkpoint/zip.js';
import {
  type PickleGlobal,
  type PickleObject,
  type PickleRules,
  type PickleValue,
  unpickle,
} from './pickle/machine.js';

const maxPickleBytes = 100_000_000;

const dtypeByStorage: Readonly<Record<string, StoredDType>> = {
  ...{ FloatStorage: 'f32', HalfStorage: 'f16', BFloat16Storage: 'bf16', DoubleStorage: 'f64' },
  ...{ CharStorage: 'i8', ByteStorage: 'u8', ShortStorage: 'i16', IntStorage: 'i32', LongStorage: 'i64' },
  ...{ BoolStorage: 'bool', ComplexFloatStorage: 'c64', ComplexDoubleStorage: 'c128' },
};

interface Storage extends PickleObject {
  readonly object: 'storage';
  readonly dtype: StoredDType;
  readonly elements: number;
  readonly place: ZipEntry;
}

interface Tensor extends PickleObject {
  readonly object: 'tensor';
  readonly entry: Omit<TensorEntry, 'name' | 'file'>;
}

/**
 * Reads what tensors a pickled checkpoint holds, and where.
 * @throws Error naming the file, and the global if it names one that is no part of a tensor
 */
export async function readPickledHeader(source: ByteSource): Promise<TensorHeader> {
  await refuseOldFormat(source);
  const zip = await readZipDirectory(source);
  const names = [...zip.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  try {
    if (names.length !== 1) throw new Error(`expected one data.pkl, found ${names.length}`);
    const folder = names[0]!.slice(0, -'data.pkl'.length);
    await checkByteOrder(source, zip.get(`${folder}byteorder`));
    const program = await readProgram(source, zip.get(names[0]!)!);
    return { entries: stateDict(unpickle(program, tensorRules(zip, folder)), source.file), metadata: {} };
  } catch (error) {
    const advice = 'use a safetensors file, or one that torch.save wrote of a state dict';
    throw new Error(`${source.file}: ${(error as Error).message}; ${advice}`);
  }
}

async function refuseOldFormat({ file, fileBytes, read }: ByteSource): Promise<void> {
  const start = await read(0, Math.min(2, fileBytes));
  if (start[0] === 0x50 && start[1] === 0x4b) return; // PK
  const found = start[0] === 0x80 ? 'the format before PyTorch 1.6' : 'another kind of file';
  const advice = 'load it with PyTorch and save it again, or use a safetensors file';
  throw new Error(`${file}: expected the zip that torch.save writes, found ${found}; ${advice}`);
}

async function checkByteOrder(source: ByteSource, entry: ZipEntry | undefined): Promise<void> {
  if (!entry) return; // before PyTorch 2.1: always little
  const order = new TextDecoder().decode(
    await source.read(entry.start, entry.start + Math.min(entry.bytes, 16)),
  );
  if (order !== 'little') throw new Error(`expected byte order little, found ${describe(order)}`);
}

async function readProgram(
  source: ByteSource,
  { start, bytes, crc32: expected }: ZipEntry,
): Promise<Uint8Array> {
  if (bytes > maxPickleBytes)
    throw new Error(`expected data.pkl of at most ${maxPickleBytes} bytes, found ${bytes}`);
  const program = await source.read(start, start + bytes);
  if (crc32(program) !== expected) throw new Error('data.pkl is damaged: its checksum differs');
  return program;
}

function stateDict(value: PickleValue, file: string): Map<string, TensorEntry> {
  if (!(value instanceof Map)) throw new Error(`expected a dict of tensors, found ${kindOf(value)}`);
  const entries = new Map<string, TensorEntry>();
  for (const [name, tensor] of value) {
    if (typeof name !== 'string') throw new Error(`expected names, found ${describe(name)}`);
    checkName(name);
    if (isTensor(tensor)) entries.set(name, { name, file, ...tensor.entry });
  }
  if (entries.size > 0 || value.size === 0) return entries;
  throw new Error(`expected a dict of tensors, found one of ${[...value.keys()].slice(0, 4).join(', ')}`);
}

/** What the pickle of a state dict may name: dicts, storages, and the two functions that make tensors of them. */
function tensorRules(zip: ReadonlyMap<string, ZipEntry>, folder: string): PickleRules {
  const globals: PickleGlobal[] = [
    { global: 'collections.OrderedDict', call: makeDict },
    { global: 'torch._utils._rebuild_tensor_v2', call: rebuildTensor },
    { global: 'torch._utils._rebuild_parameter', call: ([tensor]) => tensor ?? null },
    { global: 'torch.Size', call: ([sizes]) => sizes ?? [] },
    ...Object.keys(dtypeByStorage).map((name) => ({ global: `torch.${name}` })),
  ];
  return {
    globals: new Map(globals.map((global) => [global.global, global])),
    persistent: (id) => findStorage(id, zip, folder),
  };
}

function makeDict([pairs]: readonly PickleValue[]): PickleValue {
  const map = new Map<PickleValue, PickleValue>();
  if (pairs === undefined) return map;
  if (!Array.isArray(pairs)) throw new Error(`OrderedDict: expected pairs, found ${kindOf(pairs)}`);
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) throw new Error('OrderedDict: expected pairs');
    map.set(pair[0]!, pair[1]!);
  }
  return map;
}

/** A persistent id: ['storage', type, key, device, elements]. */
function findStorage(id: PickleValue, zip: ReadonlyMap<string, ZipEntry>, folder: string): Storage {
  const [tag, type, key, , elements] = Array.isArray(id) ? id : [];
  const name = isGlobal(type) ? type.global.slice('torch.'.length) : '';
  const dtype = Object.hasOwn(dtypeByStorage, name) ? dtypeByStorage[name] : undefined;
  if (tag !== 'storage' || dtype === undefined || typeof key !== 'string' || !isCount(elements)) {
    throw new Error('expected a storage of a known type, found another persistent id');
  }
  const place = zip.get(`${folder}data/${key}`);
  if (!place) throw new Error(`storage ${describe(key)}: expected data/${key} in the file, found none`);
  const bytes = storedBytes(dtype, [elements]);
  if (place.bytes !== bytes) {
    throw new Error(
      `storage ${describe(key)}: ${elements} ${dtype} need ${bytes} bytes, found ${place.bytes}`,
    );
  }
  return { object: 'storage', dtype, elements, place };
}

/** _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks): offset and strides in elements. */
function rebuildTensor([storage, offset, shape, strides]: readonly PickleValue[]): Tensor {
  if (!isStorage(storage)) throw new Error(`tensor: expected a storage, found ${kindOf(storage)}`);
  if (!isCount(offset) || !isCounts(shape) || !isCounts(strides) || shape.length !== strides.length) {
    throw new Error('tensor: expected an offset, sizes and as many strides, found other values');
  }
  const { dtype, elements, place } = storage;
  const bytes = storedBytes(dtype, shape);
  const span = spanBytes({ dtype, shape, strides });
  const startInStorage = storedBytes(dtype, [offset]);
  if (startInStorage + span > place.bytes || bytes > place.bytes) {
    throw new Error(
      `tensor [${shape}]: expected it inside its storage of ${elements} ${dtype}, found it larger`,
    );
  }
  const start = place.start + startInStorage;
  // Copies: the program could still change its own lists after they were checked.
  const entry = { dtype, shape: [...shape], start, bytes };
  return {
    object: 'tensor',
    entry: isContiguous(shape, strides) ? entry : { ...entry, strides: [...strides] },
  };
}

function isTensor(value: PickleValue | undefined): value is Tensor {
  return isObject(value) && value.object === 'tensor';
}

function isStorage(value: PickleValue | undefined): value is Storage {
  return isObject(value) && value.object === 'storage';
}

function isObject(value: PickleValue | undefined): value is PickleObject {
  return typeof value === 'object' && value !== null && 'object' in value;
}

function isGlobal(value: PickleValue | undefined): value is PickleGlobal {
  return typeof value === 'object' && value !== null && 'global' in value;
}

function isCount(value: PickleValue | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isCounts(value: PickleValue | undefined): value is number[] {
  return Array.isArray(value) && value.every(isCount);
}

function kindOf(value: PickleValue | undefined): string {
  if (Array.isArray(value)) return 'a list';
  if (value instanceof Map) return 'a dict';
  if (isObject(value)) return `a ${value.object}`;
  return isGlobal(value) ? value.global : describe(value);
}
