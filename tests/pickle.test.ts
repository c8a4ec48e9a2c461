import { writeFileSync } from 'node:fs';
import { join as joinPath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint.js';
import { loadParams } from '../lib/convert.js';
import { readArchitecture } from '../lib/model.js';
import { mistralWeightMap } from '../lib/models/mistral.weights.js';
import { float32Values, type ParamTree, type Shape, sizeOf, weightEntries } from '../lib/tensor.js';
import { messageOf, temporaryFolder, writeTensors } from './checkpointFiles.js';
import { ascii, dictPickle, join, op, tensorPickle, torchFile, zipBytes } from './torchFiles.js';

function written(bytes: Uint8Array, name = 'pytorch_model.bin'): string {
  const file = joinPath(temporaryFolder(), name);
  writeFileSync(file, bytes);
  return file;
}

async function valuesIn(file: string): Promise<Record<string, number[]>> {
  const checkpoint = await openCheckpoint(file);
  const values: Record<string, number[]> = {};
  for (const name of checkpoint.names()) values[name] = [...float32Values(await checkpoint.read(name))];
  await checkpoint.close();
  return values;
}

const six = new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer);
const plain = { elements: 6, shape: [2, 3], strides: [3, 1] };

describe('tensors', () => {
  test.each([false, true])('contiguous, transposed, cut and shared views (zip64: %s)', async (wide) => {
    const pickle = dictPickle({
      plain: tensorPickle(plain),
      shared: tensorPickle(plain),
      transposed: tensorPickle({ elements: 6, shape: [3, 2], strides: [1, 3] }),
      columns: tensorPickle({ elements: 6, offset: 1, shape: [2, 2], strides: [3, 1] }),
      scalar: tensorPickle({ elements: 6, offset: 4, shape: [], strides: [] }),
      empty: tensorPickle({ elements: 6, shape: [0, 3], strides: [3, 1] }),
      step: op.int(7),
    });
    expect(await valuesIn(written(torchFile(pickle, { 0: six }, { wide })))).toEqual({
      plain: [1, 2, 3, 4, 5, 6],
      shared: [1, 2, 3, 4, 5, 6],
      transposed: [1, 4, 2, 5, 3, 6],
      columns: [2, 3, 5, 6],
      scalar: [5],
      empty: [],
    });
  });

  test('half types, parameters, and a state dict with attributes', async () => {
    const parameter = op.call(
      'torch._utils',
      '_rebuild_parameter',
      tensorPickle({ ...plain, elements: 6 }),
      op.false,
    );
    const half = { storage: '1', elements: 2, shape: [2], strides: [1] };
    const body = join(op.call('collections', 'OrderedDict'), op.mark, op.text('p'), parameter, op.text('h'));
    const rest = [tensorPickle({ ...half, type: 'HalfStorage' }), op.text('b')];
    const last = [tensorPickle({ ...half, type: 'BFloat16Storage' }), op.setItems];
    const attributes = [
      op.dict,
      op.mark,
      op.text('_metadata'),
      op.call('collections', 'OrderedDict'),
      op.setItems,
    ];
    const pickle = join(op.start, body, ...rest, ...last, ...attributes, ascii('b'), op.stop);
    const halves = new Uint8Array(Uint16Array.of(0x3e00, 0x3fc0).buffer);
    const values = await valuesIn(written(torchFile(pickle, { 0: six, 1: halves })));
    expect(values).toMatchObject({ p: [1, 2, 3, 4, 5, 6] });
    expect(values.h![0]).toBe(1.5);
    expect(values.b![1]).toBe(1.5);
  });

  test('sharded .bin with its index', async () => {
    const folder = temporaryFolder();
    writeFileSync(joinPath(folder, 'a.bin'), torchFile(dictPickle({ x: tensorPickle(plain) }), { 0: six }));
    writeFileSync(joinPath(folder, 'b.bin'), torchFile(dictPickle({ y: tensorPickle(plain) }), { 0: six }));
    const index = { weight_map: { x: 'a.bin', y: 'b.bin' } };
    writeFileSync(joinPath(folder, 'pytorch_model.bin.index.json'), JSON.stringify(index));
    expect(Object.keys(await valuesIn(folder))).toEqual(['x', 'y']);
  });

  test('the same parameters, bit for bit, as from safetensors', async () => {
    const sizes = { vocabSize: 5, dim: 4, innerDim: 3, layers: 1, heads: 2, kvHeads: 1, headDim: 2 };
    const map = mistralWeightMap({ ...sizes, tiedHead: false, attentionBias: false, mlpBias: false });
    const shapes: Record<string, number[]> = {
      'model.embed_tokens.weight': [5, 4],
      'model.layers.0.input_layernorm.weight': [4],
      'model.layers.0.self_attn.q_proj.weight': [4, 4],
      'model.layers.0.self_attn.k_proj.weight': [2, 4],
      'model.layers.0.self_attn.v_proj.weight': [2, 4],
      'model.layers.0.self_attn.o_proj.weight': [4, 4],
      'model.layers.0.post_attention_layernorm.weight': [4],
      'model.layers.0.mlp.gate_proj.weight': [3, 4],
      'model.layers.0.mlp.up_proj.weight': [3, 4],
      'model.layers.0.mlp.down_proj.weight': [4, 3],
      'model.norm.weight': [4],
      'lm_head.weight': [5, 4],
    };
    const value = (name: string, i: number) => Math.fround(Math.sin(name.length * 31 + i));
    const folder = temporaryFolder();
    const tensors = Object.entries(shapes).map(([name, shape]) => {
      return [name, [shape, Array.from({ length: sizeOf(shape) }, (_, i) => value(name, i))]] as const;
    });
    writeTensors(joinPath(folder, 'model.safetensors'), Object.fromEntries(tensors));
    const storages = tensors.map(([, [, values]], i) => [
      i,
      new Uint8Array(Float32Array.from(values).buffer),
    ]);
    const pickles = tensors.map(([name, [shape]], i) => {
      const [rows = 1, columns] = shape;
      const strides = columns === undefined ? [1] : [columns, 1];
      return [name, tensorPickle({ storage: String(i), elements: rows * (columns ?? 1), shape, strides })];
    });
    const file = torchFile(dictPickle(Object.fromEntries(pickles)), Object.fromEntries(storages));
    writeFileSync(joinPath(folder, 'pytorch_model.bin'), file);
    const load = async (name: string) => {
      const checkpoint = await openCheckpoint(joinPath(folder, name));
      return loadParams<ParamTree>(checkpoint, map).finally(() => checkpoint.close());
    };
    expect(await load('pytorch_model.bin')).toEqual(await load('model.safetensors'));
  });
});

describe('files that PyTorch wrote', () => {
  test.each(['gpt2-one-token', 'mistral-head-dim-sharded'])(
    '%s: as from safetensors, bit for bit',
    async (name) => {
      const folder = fileURLToPath(new URL(`golden/${name}`, import.meta.url));
      const { weightMap } = await readArchitecture(folder);
      const load = async (path: string) => {
        const checkpoint = await openCheckpoint(path);
        return loadParams<ParamTree>(checkpoint, weightMap).finally(() => checkpoint.close());
      };
      const pickled = await load(joinPath(folder, 'pickled'));
      expect(pickled).toEqual(await load(folder));
      expect([...weightEntries(pickled)].length).toBeGreaterThan(10);
    },
  );
});

describe('hostile and broken files', () => {
  const dict = (value: Uint8Array) => torchFile(dictPickle({ x: value }), { 0: six });
  const tensor = (change: Partial<Parameters<typeof tensorPickle>[0]>) =>
    dict(tensorPickle({ ...plain, ...change }));
  const good = { name: 'archive/data.pkl', data: dictPickle({}) };
  const cases: [what: string, bytes: Uint8Array, message: RegExp][] = [
    ['a shell command', dict(op.call('os', 'system', op.text('id'))), /refuses global "os.system"/],
    ['eval', dict(op.call('builtins', 'eval', op.text('1'))), /refuses global "builtins.eval"/],
    [
      'a module',
      dict(op.global('torch.nn.modules.linear', 'Linear')),
      /refuses global "torch.nn.modules.linear.Linear"/,
    ],
    ['an instance', dict(join(op.mark, ascii('ios\nsystem\n'))), /refuses global "os.system"/],
    [
      'a stack global',
      dict(join(op.text('posix'), op.text('system'), [0x93], op.tupleOf(), op.reduce)),
      /refuses global "posix.system"/,
    ],
    [
      'a class that is built',
      dict(join(op.global('collections', 'OrderedDict'), op.tupleOf(), [0x81])),
      /0x81/,
    ],
    ['a storage type called', dict(op.call('torch', 'FloatStorage')), /no function/],
    ['a call of a string', dict(join(op.text('f'), op.tupleOf(), op.reduce)), /no function/],
    ['an extension code', dict(join([0x82, 1])), /instruction 0x82/],
    ['attributes of a list', dict(join(ascii(']'), op.dict, ascii('b'))), /attributes/],
    ['an empty stack', dict(join(ascii('00000'))), /empty stack/],
    ['a mark too few', dict(join(op.tuple, op.tuple)), /mark too few|empty stack/],
    ['an unset memo', dict(join(ascii('h'), [9])), /memo 9/],
    [
      'a key that is a dict',
      dict(join(op.dict, op.mark, op.dict, op.dict, op.setItems)),
      /key that is no string/,
    ],
    ['a string beyond the end', dict(join(ascii('X'), [255, 255, 255, 127])), /found its end/],
    ['a long of 300 bytes', dict(join([0x8b, 44, 1, 0, 0])), /number of 300 bytes/],
    ['a protocol of the future', torchFile(join([0x80, 9], op.stop)), /protocol/],
    ['a number', torchFile(join(op.start, op.int(1), op.stop)), /expected a dict of tensors, found 1/],
    ['a dict of dicts', dict(op.dict), /expected a dict of tensors, found one of x/],
    ['a tensor past its storage', tensor({ offset: 1 }), /inside its storage of 6 f32/],
    ['strides past the storage', tensor({ strides: [4, 1] }), /inside its storage/],
    [
      'a value repeated without end',
      tensor({ shape: [100000, 100000], strides: [0, 0] }),
      /inside its storage/,
    ],
    ['a negative size', tensor({ shape: [-2, 3] }), /sizes and as many strides/],
    ['negative strides', tensor({ strides: [-3, 1] }), /sizes and as many strides/],
    ['strides too few', tensor({ strides: [1] }), /sizes and as many strides/],
    ['a storage that lies', tensor({ elements: 600 }), /600 f32 need 2400 bytes, found 24/],
    ['a storage that is not there', tensor({ storage: '1' }), /expected data\/1/],
    ['a storage that climbs', tensor({ storage: '../data.pkl' }), /expected data\/..\/data.pkl/],
    ['an unknown storage', tensor({ type: 'toString' }), /refuses global "torch.toString"/],
    ['another persistent id', dict(join(op.text('file'), op.persistent)), /another persistent id/],
    ['a compressed entry', zipBytes([{ ...good, method: 8 }]), /data.pkl, which is compressed/],
    ['an encrypted entry', zipBytes([{ ...good, flags: 1 }]), /encrypted/],
    ['two entries of a name', zipBytes([good, good]), /which it has twice/],
    ['overlapping entries', zipBytes([good, { ...good, name: 'archive/data/0', headerStart: 0 }]), /overlap/],
    ['an entry of 4 GB', zipBytes([{ ...good, bytes: 4e9 }]), /reaches beyond the data/],
    ['an entry of 2^53', zipBytes([{ ...good, bytes: 2 ** 60 }], { wide: true }), /a size of/],
    ['a checksum that differs', zipBytes([{ ...good, crc: 1 }]), /checksum differs/],
    ['no pickle', zipBytes([{ ...good, name: 'archive/other' }]), /expected one data.pkl, found 0/],
    ['two pickles', zipBytes([good, { ...good, name: 'b/data.pkl' }]), /expected one data.pkl, found 2/],
    ['big-endian', zipBytes([good, { name: 'archive/byteorder', data: ascii('big') }]), /byte order little/],
    ['the format before 1.6', join([0x80, 2, 0x8a, 10]), /the format before PyTorch 1.6/],
    ['a page of HTML', ascii('<html>not found</html>'), /found another kind of file/],
    ['nothing', new Uint8Array(0), /found another kind of file/],
    [
      'the first half',
      torchFile(dictPickle({ x: tensorPickle(plain) }), { 0: six }).subarray(0, 500),
      /end of its/,
    ],
  ];
  test.each(cases)('%s', async (_, bytes, message) => {
    const file = written(bytes);
    const received = await messageOf(openCheckpoint(file));
    expect(received).toMatch(message);
    expect(received).toContain(file);
  });

  test('a list that changes after it was checked changes no tensor', async () => {
    const shape = join(ascii(']'), ascii('q'), [1], op.mark, op.int(6), ascii('e'));
    const pieces = tensorPickle({ elements: 6, shape: [6], strides: [1] });
    const usual = op.tupleOf(op.int(6));
    const at = Buffer.from(pieces).indexOf(usual);
    const listed = join(pieces.subarray(0, at), shape, pieces.subarray(at + usual.length));
    const grown = join(listed, ascii('h'), [1], op.mark, op.int(1000), ascii('e'), ascii('0'));
    expect(await valuesIn(written(torchFile(dictPickle({ x: grown }), { 0: six })))).toEqual({
      x: [1, 2, 3, 4, 5, 6],
    });
  });

  test('a million steps of pushing end in an error, not in the memory', async () => {
    const bomb = join(op.start, new Uint8Array(1_200_000).fill(0x29), op.stop);
    expect(await messageOf(openCheckpoint(written(torchFile(bomb))))).toMatch(/at most 1000000 steps/);
  });
});

test('contiguous shapes are found whatever their axes of length 1', async () => {
  const pickle = dictPickle({ x: tensorPickle({ elements: 6, shape: [6, 1], strides: [1, 99] }) });
  const checkpoint = await openCheckpoint(written(torchFile(pickle, { 0: six })));
  expect(checkpoint.entry('x').shape satisfies Shape).toEqual([6, 1]);
  expect(checkpoint.entry('x').strides).toBeUndefined();
  await checkpoint.close();
});
