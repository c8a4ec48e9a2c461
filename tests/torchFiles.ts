// Pickled checkpoints built byte by byte, as torch.save lays them out, or as someone hostile would.

import { crc32 } from 'node:zlib';

type Bytes = Uint8Array | readonly number[];

export function join(...parts: readonly Bytes[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

export function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function littleEndian(value: number | bigint, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 255n));
}

/** Instructions of the pickle language. */
export const op = {
  start: join([0x80, 2]),
  stop: ascii('.'),
  mark: ascii('('),
  tuple: ascii('t'),
  dict: ascii('}'),
  setItems: ascii('u'),
  reduce: ascii('R'),
  persistent: ascii('Q'),
  false: join([0x89]),
  global: (module: string, name: string) => ascii(`c${module}\n${name}\n`),
  text: (value: string) => join(ascii('X'), littleEndian(ascii(value).length, 4), ascii(value)),
  int: (value: number) => join(ascii('J'), littleEndian(value, 4)),
  tupleOf: (...items: Bytes[]) => join(op.mark, ...items, op.tuple),
  call: (module: string, name: string, ...args: Bytes[]) => {
    return join(op.global(module, name), op.tupleOf(...args), op.reduce);
  },
};

export interface TorchTensor {
  readonly storage?: string;
  readonly type?: string;
  readonly elements: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** The pickle of one tensor: a call of _rebuild_tensor_v2. */
export function tensorPickle(tensor: TorchTensor): Uint8Array {
  const { storage = '0', type = 'FloatStorage', elements, offset = 0, shape, strides } = tensor;
  const id = op.tupleOf(
    op.text('storage'),
    op.global('torch', type),
    op.text(storage),
    op.text('cpu'),
    op.int(elements),
  );
  return op.call(
    'torch._utils',
    '_rebuild_tensor_v2',
    join(id, op.persistent),
    op.int(offset),
    op.tupleOf(...shape.map(op.int)),
    op.tupleOf(...strides.map(op.int)),
    op.false,
    op.call('collections', 'OrderedDict'),
  );
}

/** A whole pickle: a dict of these values. */
export function dictPickle(values: Readonly<Record<string, Bytes>>): Uint8Array {
  const items = Object.entries(values).flatMap(([name, value]) => [op.text(name), value]);
  return join(op.start, op.dict, op.mark, ...items, op.setItems, op.stop);
}

export interface ZipPart {
  readonly name: string;
  readonly data: Uint8Array;
  /** Fields of the directory that lie. */
  readonly method?: number;
  readonly flags?: number;
  readonly bytes?: number;
  readonly headerStart?: number;
  readonly crc?: number;
}

/** A zip file; `wide` writes the directory's numbers in zip64 fields, as files over 4 GiB need them. */
export function zipBytes(parts: readonly ZipPart[], { wide = false } = {}): Uint8Array {
  const files: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const part of parts) {
    const { name, data, method = 0, flags = 0, bytes = data.length, headerStart = at } = part;
    const crc = part.crc ?? crc32(data);
    const sizes = wide ? [0xffffffff, 0xffffffff] : [bytes, bytes];
    const extra = wide
      ? join(
          littleEndian(1, 2),
          littleEndian(24, 2),
          ...[bytes, bytes, headerStart].map((n) => littleEndian(n, 8)),
        )
      : new Uint8Array(0);
    const common = join(
      littleEndian(flags, 2),
      littleEndian(method, 2),
      littleEndian(0, 4),
      littleEndian(crc, 4),
    );
    const padding = new Uint8Array(at % 7); // the header's extra field may differ from the directory's
    const header = join(
      littleEndian(0x04034b50, 4),
      littleEndian(45, 2),
      common,
      ...sizes.map((n) => littleEndian(n, 4)),
      littleEndian(name.length, 2),
      littleEndian(padding.length, 2),
      ascii(name),
      padding,
    );
    files.push(header, data);
    directory.push(
      join(
        littleEndian(0x02014b50, 4),
        littleEndian(45, 2),
        littleEndian(45, 2),
        common,
        ...sizes.map((n) => littleEndian(n, 4)),
        littleEndian(name.length, 2),
        littleEndian(extra.length, 2),
        new Uint8Array(10),
        littleEndian(wide ? 0xffffffff : headerStart, 4),
        ascii(name),
        extra,
      ),
    );
    at += header.length + data.length;
  }
  const listing = join(...directory);
  return join(...files, listing, endRecords(at, listing.length, parts.length, wide));
}

function endRecords(start: number, bytes: number, count: number, wide: boolean): Uint8Array {
  const wideEnd = join(
    littleEndian(0x06064b50, 4),
    littleEndian(44, 8),
    littleEndian(45, 2),
    littleEndian(45, 2),
    new Uint8Array(8),
    ...[count, count, bytes, start].map((n) => littleEndian(n, 8)),
    littleEndian(0x07064b50, 4),
    new Uint8Array(4),
    littleEndian(start + bytes, 8),
    littleEndian(1, 4),
  );
  const numbers = wide ? [0xffffffff, 0xffffffff] : [bytes, start];
  return join(
    wide ? wideEnd : [],
    littleEndian(0x06054b50, 4),
    new Uint8Array(4),
    littleEndian(wide ? 0xffff : count, 2),
    littleEndian(wide ? 0xffff : count, 2),
    ...numbers.map((n) => littleEndian(n, 4)),
    littleEndian(0, 2),
  );
}

/** A file as torch.save writes it: the pickle, the byte order, and storages by key. */
export function torchFile(
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = {},
  options?: { wide?: boolean },
): Uint8Array {
  const data = Object.entries(storages).map(([key, bytes]) => ({ name: `archive/data/${key}`, data: bytes }));
  const parts = [
    { name: 'archive/data.pkl', data: pickle },
    { name: 'archive/byteorder', data: ascii('little') },
  ];
  return zipBytes([...parts, ...data], options);
}
