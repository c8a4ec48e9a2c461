import { execFileSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { SafeTensor } from 'safetensors';
import { describe, expect, test } from 'vitest';
import { writeSafetensors } from '../lib/checkpoint/writer.js';
import { type Checkpoint, openCheckpoint } from '../lib/checkpoint.js';
import { float32Values } from '../lib/tensor.js';
import { messageOf, safetensorsBytes, temporaryFolder, writeTensors } from './checkpointFiles.js';

async function opened<T>(path: string, use: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const checkpoint = await openCheckpoint(path);
  return use(checkpoint).finally(() => checkpoint.close());
}

function fileWith(header: unknown, data?: Uint8Array): string {
  const file = join(temporaryFolder(), 'model.safetensors');
  writeFileSync(file, safetensorsBytes(header, data));
  return file;
}

const f32 = (start: number, end: number, shape: unknown = [(end - start) / 4]) => {
  return { dtype: 'F32', shape, data_offsets: [start, end] };
};

describe('reading safetensors', () => {
  test('values come back at any byte offset, whole and by slice', async () => {
    const values = Float32Array.of(1.5, -2, 3e-8, 4);
    for (const name of ['a', 'ab', 'abc', 'abcd']) {
      const file = fileWith({ [name]: f32(0, 16, [2, 2]) }, new Uint8Array(values.buffer));
      await opened(file, async (checkpoint) => {
        const weight = await checkpoint.read(name);
        expect(weight).toMatchObject({ kind: 'float', dtype: 'f32', shape: [2, 2] });
        expect([...float32Values(weight)]).toEqual([...values]);
        const slice = await checkpoint.readSlice(name, 4, 8);
        expect(new DataView(slice.buffer).getFloat32(0, true)).toBe(-2);
      });
    }
  });

  test('f16 and bf16 keep their bits', async () => {
    const header = {
      half: { dtype: 'F16', shape: [2], data_offsets: [0, 4] },
      brain: { dtype: 'BF16', shape: [1, 2], data_offsets: [4, 8] },
    };
    const halves = Uint16Array.of(0x3e00, 0xc000, 0x3fc0, 0xc000); // 1.5 and -2, in each type
    await opened(fileWith(header, new Uint8Array(halves.buffer)), async (checkpoint) => {
      expect([...float32Values(await checkpoint.read('half'))]).toEqual([1.5, -2]);
      expect([...float32Values(await checkpoint.read('brain'))]).toEqual([1.5, -2]);
    });
  });

  test('empty tensors, scalars and unused tensors of any type are tolerated', async () => {
    const header = {
      __metadata__: { format: 'pt' },
      empty: f32(0, 0, [0, 3]),
      scalar: f32(0, 4, []),
      mask: { dtype: 'BOOL', shape: [3], data_offsets: [4, 7] },
      small: { dtype: 'F8_E4M3', shape: [2], data_offsets: [7, 9] },
      tiny: { dtype: 'F4', shape: [2], data_offsets: [9, 10] },
      wide: { dtype: 'F64', shape: [1], data_offsets: [10, 18] },
    };
    await opened(fileWith(header, new Uint8Array(18)), async (checkpoint) => {
      expect(checkpoint.names()).toEqual(['empty', 'scalar', 'mask', 'small', 'tiny', 'wide']);
      expect(checkpoint.metadata.format).toBe('pt');
      expect((await checkpoint.read('empty')).bytes.length).toBe(0);
      expect((await checkpoint.readBytes('mask')).length).toBe(3);
      expect(await messageOf(checkpoint.read('wide'))).toMatch(/expected f32, f16 or bf16, received f64/);
    });
  });

  test('a tensor that is not there is named, with near ones', async () => {
    const file = fileWith({ 'h.0.ln_1.weight': f32(0, 4) }, new Uint8Array(4));
    await opened(file, async (checkpoint) => {
      expect(() => checkpoint.entry('x.0.ln_1.weight')).toThrow(/found h.0.ln_1.weight/);
    });
  });
});

test.skipIf(process.platform === 'win32')(
  'a tensor beyond 4 GiB (Windows would write the 5 GB)',
  async () => {
    const file = join(temporaryFolder(), 'model.safetensors');
    const before = 5_000_000_000;
    const header = {
      hole: { dtype: 'U8', shape: [before], data_offsets: [0, before] },
      far: f32(before, before + 8),
    };
    const start = safetensorsBytes(header);
    writeFileSync(file, start);
    const handle = openSync(file, 'r+');
    writeSync(handle, Float32Array.of(3, 4), 0, 8, start.length + before); // sparse: it takes a few kB of the disk
    closeSync(handle);
    await opened(file, async (checkpoint) => {
      expect([...float32Values(await checkpoint.read('far'))]).toEqual([3, 4]);
      expect([...(await checkpoint.readSlice('hole', before - 2, before))]).toEqual([0, 0]);
    });
  },
);

describe('bad safetensors', () => {
  const cases: [what: string, bytes: Uint8Array, message: RegExp][] = [
    ['an empty file', new Uint8Array(0), /found 0 bytes/],
    [
      'a huge header',
      Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 128, 123, 125),
      /header of at most 100000000 bytes, found/,
    ],
    ['a cut header', safetensorsBytes({ a: f32(0, 4) }).subarray(0, 30), /ends at byte 30; it is cut short/],
    ['no JSON', safetensorsBytes('{ nonsense'), /expected a header in JSON/],
    ['an array', safetensorsBytes('[1,2]'), /expected a JSON object/],
    [
      'bytes that are no UTF-8',
      safetensorsBytes('{"a":1}').map((byte) => (byte === 97 ? 255 : byte)),
      /JSON/,
    ],
    ['cut data', safetensorsBytes({ a: f32(0, 8) }, new Uint8Array(7)), /"a": expected data up to byte/],
    ['a name twice', safetensorsBytes('{"a":1,"a":2}'), /"a" stands in it twice/],
    ['an empty name', safetensorsBytes({ '': f32(0, 4) }, new Uint8Array(4)), /printable name/],
    [
      'a name with a line break',
      safetensorsBytes({ 'a\nb': f32(0, 4) }, new Uint8Array(4)),
      /printable name/,
    ],
    ['a prototype', safetensorsBytes('{"a.__proto__.b":{}}'), /printable name/],
    ['a bare prototype', safetensorsBytes('{"__proto__":{}}'), /printable name/],
    ['an unknown type', safetensorsBytes({ a: { ...f32(0, 4), dtype: 'F33' } }, new Uint8Array(4)), /"F33"/],
    ['a type that is no string', safetensorsBytes({ a: { ...f32(0, 4), dtype: ['F32'] } }), /known dtype/],
    ['a negative axis', safetensorsBytes({ a: f32(0, 4, [-1]) }, new Uint8Array(4)), /whole numbers/],
    ['a fractional axis', safetensorsBytes({ a: f32(0, 4, [1.5]) }, new Uint8Array(4)), /whole numbers/],
    [
      'an overflowing shape',
      safetensorsBytes({ a: f32(0, 4, [2 ** 31, 2 ** 31]) }, new Uint8Array(4)),
      /2\^53/,
    ],
    ['a shape that lies', safetensorsBytes({ a: f32(0, 4, [2]) }, new Uint8Array(8)), /needs 8 bytes, but/],
    ['offsets the wrong way', safetensorsBytes({ a: f32(4, 0, [1]) }, new Uint8Array(8)), /\[start, end\]/],
    ['negative offsets', safetensorsBytes({ a: f32(-4, 0, [1]) }, new Uint8Array(8)), /\[start, end\]/],
    [
      'half a byte',
      safetensorsBytes({ a: { dtype: 'F4', shape: [1], data_offsets: [0, 1] } }),
      /whole number/,
    ],
    ['metadata of numbers', safetensorsBytes({ __metadata__: { a: 1 } }), /expected strings/],
    ['overlap', safetensorsBytes({ a: f32(0, 8), b: f32(4, 12) }, new Uint8Array(12)), /"a" and "b" overlap/],
  ];
  test.each(cases)('%s', async (_, bytes, message) => {
    const file = join(temporaryFolder(), 'model.safetensors');
    writeFileSync(file, bytes);
    const received = await messageOf(openCheckpoint(file));
    expect(received).toMatch(message);
    expect(received).toContain(file);
  });

  test('a folder without a checkpoint, a missing path, a device', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'notes.txt'), '');
    expect(await messageOf(openCheckpoint(folder))).toMatch(/expected model.safetensors .* found notes.txt/);
    expect(await messageOf(openCheckpoint(join(folder, 'nowhere')))).toMatch(
      /nowhere: expected a checkpoint/,
    );
    expect(await messageOf(openCheckpoint('/dev/null'))).toMatch(/expected a regular file/);
    const pipe = join(folder, 'model.safetensors');
    execFileSync('mkfifo', [pipe]);
    expect(await messageOf(openCheckpoint(pipe))).toMatch(/expected a regular file/); // and does not wait for a writer
  });

  test('a file cut after it was opened', async () => {
    const file = fileWith({ a: f32(0, 8) }, new Uint8Array(8));
    await opened(file, async (checkpoint) => {
      writeFileSync(file, safetensorsBytes({ a: f32(0, 8) }, new Uint8Array(2)));
      expect(await messageOf(checkpoint.read('a'))).toMatch(/now ends at byte/);
    });
  });
});

describe('shards', () => {
  const index = (map: unknown) => JSON.stringify({ metadata: { total_size: 8 }, weight_map: map });
  function sharded(map: unknown): string {
    const folder = temporaryFolder();
    writeTensors(join(folder, 'one.safetensors'), { a: [[1], [1]] });
    writeTensors(join(folder, 'two.safetensors'), { b: [[1], [2]] });
    writeFileSync(join(folder, 'model.safetensors.index.json'), index(map));
    return folder;
  }

  test('tensors come from the shard that the index names', async () => {
    await opened(sharded({ a: 'one.safetensors', b: 'two.safetensors' }), async (checkpoint) => {
      expect(checkpoint.names()).toEqual(['a', 'b']);
      expect([...float32Values(await checkpoint.read('b'))]).toEqual([2]);
      expect(checkpoint.files).toHaveLength(2);
    });
  });

  test.each([
    [
      'a missing shard',
      { a: 'one.safetensors', b: 'three.safetensors' },
      /three.safetensors: cannot be opened/,
    ],
    [
      'a lie',
      { a: 'two.safetensors', b: 'two.safetensors' },
      /"a": the index puts it in two.*, found it in no shard/,
    ],
    ['a swap', { a: 'two.safetensors', b: 'one.safetensors' }, /the index puts it in .*, found it in /],
    ['a tensor too few', { a: 'one.safetensors' }, undefined],
    [
      'a tensor left out',
      { a: 'one.safetensors', c: 'two.safetensors' },
      /"b": the index puts it in no shard/,
    ],
    ['a climb', { a: '../one.safetensors', b: 'two.safetensors' }, /in the same folder, received "..\/one/],
    ['an absolute path', { a: '/one.safetensors' }, /in the same folder/],
    ['a number', { a: 1 }, /in the same folder/],
    ['no map', [], /expected \{ weight_map \}/],
  ])('%s', async (_, map, message) => {
    const folder = sharded(map);
    if (message === undefined)
      await opened(folder, async (checkpoint) => expect(checkpoint.names()).toEqual(['a']));
    else expect(await messageOf(openCheckpoint(folder))).toMatch(message);
  });

  test('an index that is no JSON', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'model.safetensors.index.json'), '{');
    expect(await messageOf(openCheckpoint(folder))).toMatch(/index.json: expected an index in JSON/);
  });
});

describe('writing safetensors', () => {
  const entries = [
    { name: 'a', dtype: 'f32', shape: [2] },
    { name: 'b', dtype: 'u8', shape: [3] },
  ] as const;
  const bytes = [new Uint8Array(Float32Array.of(1, 2).buffer), Uint8Array.of(7, 8, 9)];

  test('the safetensors package reads what we write', async () => {
    const file = join(temporaryFolder(), 'model.safetensors');
    await writeSafetensors(file, entries, (_, i) => bytes[i]!);
    const independent = new SafeTensor(new Uint8Array(readFileSync(file)));
    expect(independent.metadata.get('a')).toMatchObject({ dtype: 'F32', shape: [2] });
    expect([...independent.getTensor('a')]).toEqual([...bytes[0]!]);
    expect([...independent.getTensor('b')]).toEqual([7, 8, 9]);
    expect(independent.metadata.get('a')!.data_offsets[0] % 8).toBe(0);
  });

  test('pieces, metadata and progress', async () => {
    const file = join(temporaryFolder(), 'model.safetensors');
    const progress: number[] = [];
    async function* pieces(i: number) {
      for (const byte of bytes[i]!) yield Uint8Array.of(byte);
    }
    await writeSafetensors(file, entries, (_, i) => pieces(i), {
      metadata: { note: 'by hand' },
      onProgress: (done, total) => progress.push(done / total),
    });
    await opened(file, async (checkpoint) => {
      expect(checkpoint.metadata).toEqual({ note: 'by hand' });
      expect([...(await checkpoint.readBytes('b'))]).toEqual([7, 8, 9]);
    });
    expect(progress.at(-1)).toBe(1);
  });

  test.each([
    ['a tensor of another size', () => new Uint8Array(1), /tensor a: expected 8 bytes, received 1/],
    ['a source that fails', () => Promise.reject(new Error('source broke')), /source broke/],
  ])('%s leaves the former file and nothing else', async (_, data, message) => {
    const folder = temporaryFolder();
    const file = join(folder, 'model.safetensors');
    writeFileSync(file, 'former');
    expect(await messageOf(writeSafetensors(file, entries, data))).toMatch(message);
    expect(readdirSync(folder)).toEqual(['model.safetensors']);
    expect(readFileSync(file, 'utf8')).toBe('former');
  });

  test('an abort between two pieces leaves nothing', async () => {
    const folder = temporaryFolder();
    const controller = new AbortController();
    const data = (_: unknown, i: number) => {
      if (i === 1) controller.abort();
      return bytes[i]!;
    };
    const file = join(folder, 'model.safetensors');
    const writing = writeSafetensors(file, entries, data, { signal: controller.signal });
    await expect(writing).rejects.toMatchObject({ name: 'AbortError' });
    expect(readdirSync(folder)).toEqual([]);
  });

  test.skipIf(process.platform !== 'linux')('a full disk (Linux has one to test with)', async () => {
    const folder = temporaryFolder();
    const file = join(folder, 'model.safetensors');
    symlinkSync('/dev/full', `${file}.${process.pid}.tmp`);
    const message = await messageOf(writeSafetensors(file, entries, (_, i) => bytes[i]!));
    expect(message).toMatch(
      /model.safetensors: cannot be written .*ENOSPC.* needs \d+ bytes; free some space/,
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  test('a folder that is a file', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'file'), '');
    const file = join(folder, 'file', 'model.safetensors');
    expect(await messageOf(writeSafetensors(file, entries, (_, i) => bytes[i]!))).toMatch(/check the folder/);
  });
});
