import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Checkpoint, openCheckpoint } from '../lib/checkpoint.js';
import { transposed } from '../lib/convert/transpose.js';
import { loadParams, sizeByDType, type WeightMap } from '../lib/convert.js';
import { gpt2WeightMap } from '../lib/models/gpt2.weights.js';
import { mistralWeightMap } from '../lib/models/mistral.weights.js';
import {
  float32Values,
  floatWeight,
  type ParamTree,
  type Shape,
  sizeOf,
  type Weight,
} from '../lib/tensor.js';
import { messageOf, temporaryFolder, writeTensors } from './checkpointFiles.js';

const sizes = { vocabSize: 5, maxPositions: 4, dim: 2, layers: 2, innerDim: 3, tiedHead: true };

type Tensors = Record<string, [number[], number[]]>;

/** GPT-2's tensors under a prefix, each filled with its own number, its elements counted in hundredths. */
function gpt2Tensors(prefix = ''): Tensors {
  const shapes: Record<string, number[]> = { 'wte.weight': [5, 2], 'wpe.weight': [4, 2] };
  for (const layer of [0, 1]) {
    const h = `h.${layer}`;
    Object.assign(shapes, {
      ...{ [`${h}.ln_1.weight`]: [2], [`${h}.ln_1.bias`]: [2] },
      ...{ [`${h}.attn.c_attn.weight`]: [2, 6], [`${h}.attn.c_attn.bias`]: [6] },
      ...{ [`${h}.attn.c_proj.weight`]: [2, 2], [`${h}.attn.c_proj.bias`]: [2] },
      ...{ [`${h}.ln_2.weight`]: [2], [`${h}.ln_2.bias`]: [2] },
      ...{ [`${h}.mlp.c_fc.weight`]: [2, 3], [`${h}.mlp.c_fc.bias`]: [3] },
      ...{ [`${h}.mlp.c_proj.weight`]: [3, 2], [`${h}.mlp.c_proj.bias`]: [2] },
    });
  }
  Object.assign(shapes, { 'ln_f.weight': [2], 'ln_f.bias': [2] });
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape], i) => [prefix + name, [shape, counted(i, shape)]]),
  );
}

function counted(number: number, shape: Shape): number[] {
  return Array.from({ length: sizeOf(shape) }, (_, i) => Math.fround(number + i / 100));
}

async function load(tensors: Tensors, map: WeightMap): Promise<ParamTree> {
  return withCheckpoint(tensors, (checkpoint) => loadParams(checkpoint, map));
}

async function withCheckpoint<T>(tensors: Tensors, use: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const file = join(temporaryFolder(), 'model.safetensors');
  writeTensors(file, tensors);
  const checkpoint = await openCheckpoint(file);
  return use(checkpoint).finally(() => checkpoint.close());
}

function at(params: ParamTree, path: string): Weight {
  return path.split('.').reduce((branch, name) => branch[name] as ParamTree, params) as unknown as Weight;
}

function valuesAt(params: ParamTree, path: string): number[] {
  return [...float32Values(at(params, path))];
}

describe('GPT-2', () => {
  test.each(['', 'transformer.'])('the layout with prefix "%s"; nothing is transposed', async (prefix) => {
    const tensors = gpt2Tensors(prefix);
    const params = await load(tensors, gpt2WeightMap(sizes));
    expect(Object.keys(params)).toEqual(['wte', 'wpe', 'h', 'ln_f']);
    expect(params.h).toHaveLength(2);
    const kernel = at(params, 'h.1.attn.c_attn.kernel');
    expect(kernel.shape).toEqual([2, 6]);
    expect(valuesAt(params, 'h.1.attn.c_attn.kernel')).toEqual(
      tensors[`${prefix}h.1.attn.c_attn.weight`]![1],
    );
    expect(valuesAt(params, 'h.0.mlp.c_proj.kernel')).toEqual(tensors[`${prefix}h.0.mlp.c_proj.weight`]![1]);
    expect(valuesAt(params, 'h.0.ln_1.scale')).toEqual(tensors[`${prefix}h.0.ln_1.weight`]![1]);
  });

  test('mask buffers are skipped by name', async () => {
    const masks: Tensors = {
      'transformer.h.0.attn.bias': [
        [1, 1, 2, 2],
        [1, 0, 1, 1],
      ],
      'transformer.h.1.attn.masked_bias': [[], [-1e4]],
    };
    const params = await load({ ...gpt2Tensors('transformer.'), ...masks }, gpt2WeightMap(sizes));
    expect(Object.keys(params.h as object)).toEqual(['0', '1']);
    expect((params.h as readonly ParamTree[])[0]!.attn).not.toHaveProperty('bias');
  });

  test('a head equal to the embedding shares its storage, whatever the config says', async () => {
    for (const tiedHead of [true, false]) {
      const tensors = gpt2Tensors('transformer.');
      tensors['lm_head.weight'] = [[5, 2], tensors['transformer.wte.weight']![1]];
      expect(await load(tensors, gpt2WeightMap({ ...sizes, tiedHead }))).not.toHaveProperty('lm_head');
    }
  });

  test('an untied head is transposed', async () => {
    const tensors: Tensors = {
      ...gpt2Tensors(),
      'lm_head.weight': [
        [5, 2],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
      ],
    };
    const params = await load(tensors, gpt2WeightMap({ ...sizes, tiedHead: false }));
    expect(at(params, 'lm_head.kernel').shape).toEqual([2, 5]);
    expect(valuesAt(params, 'lm_head.kernel')).toEqual([1, 3, 5, 7, 9, 2, 4, 6, 8, 10]);
  });

  test('an untied head may not be missing', async () => {
    const message = await messageOf(load(gpt2Tensors(), gpt2WeightMap({ ...sizes, tiedHead: false })));
    expect(message).toMatch(/missing lm_head.weight \[5,2\]/);
  });

  test('missing, unexpected and misshapen tensors are listed in one error', async () => {
    const tensors = gpt2Tensors();
    delete tensors['ln_f.bias'];
    tensors['h.0.mlp.c_fc.weight'] = [[3, 2], counted(0, [3, 2])];
    tensors['h.2.ln_1.weight'] = [[2], [1, 1]];
    const message = await messageOf(load(tensors, gpt2WeightMap(sizes)));
    expect(message).toMatch(/model.safetensors: 3 tensors do not fit the model/);
    expect(message).toMatch(/missing ln_f.bias \[2\]/);
    expect(message).toMatch(/misshapen h.0.mlp.c_fc.weight: expected \[2,3\], found \[3,2\]/);
    expect(message).toMatch(/unexpected h.2.ln_1.weight/);
  });
});

test('a parameter of a type that no model computes in is named with its file', async () => {
  const file = join(temporaryFolder(), 'model.safetensors');
  writeTensors(file, gpt2Tensors());
  const bytes = readFileSync(file, 'latin1').replace(
    '"ln_f.bias":{"dtype":"F32"',
    '"ln_f.bias":{"dtype":"I32"',
  );
  writeFileSync(file, bytes, 'latin1');
  const checkpoint = await openCheckpoint(file);
  const message = await messageOf(loadParams(checkpoint, gpt2WeightMap(sizes)));
  await checkpoint.close();
  expect(message).toMatch(
    /model.safetensors: 1 tensors [\s\S]*mistyped ln_f.bias: expected f32, f16 or bf16, found i32/,
  );
});

describe('Mistral and Llama', () => {
  const llama = {
    vocabSize: 5,
    dim: 4,
    innerDim: 3,
    layers: 1,
    heads: 2,
    kvHeads: 1,
    headDim: 3,
    tiedHead: true,
  };
  const map = mistralWeightMap({ ...llama, attentionBias: true, mlpBias: false });
  const shapes: Record<string, number[]> = {
    'embed_tokens.weight': [5, 4],
    'layers.0.input_layernorm.weight': [4],
    'layers.0.self_attn.q_proj.weight': [6, 4],
    'layers.0.self_attn.q_proj.bias': [6],
    'layers.0.self_attn.k_proj.weight': [3, 4],
    'layers.0.self_attn.k_proj.bias': [3],
    'layers.0.self_attn.v_proj.weight': [3, 4],
    'layers.0.self_attn.v_proj.bias': [3],
    'layers.0.self_attn.o_proj.weight': [4, 6],
    'layers.0.self_attn.o_proj.bias': [4],
    'layers.0.post_attention_layernorm.weight': [4],
    'layers.0.mlp.gate_proj.weight': [3, 4],
    'layers.0.mlp.up_proj.weight': [3, 4],
    'layers.0.mlp.down_proj.weight': [4, 3],
    'norm.weight': [4],
    'layers.0.self_attn.rotary_emb.inv_freq': [2],
  };

  test.each(['model.', ''])('prefix "%s"; every Linear is transposed, inv_freq skipped', async (prefix) => {
    const tensors: Tensors = {};
    for (const [name, shape] of Object.entries(shapes)) tensors[prefix + name] = [shape, counted(1, shape)];
    const params = await load(tensors, map);
    expect(at(params, 'layers.0.self_attn.q_proj.kernel').shape).toEqual([4, 6]);
    const kernel = valuesAt(params, 'layers.0.mlp.down_proj.kernel'); // [3, 4]
    const stored = tensors[`${prefix}layers.0.mlp.down_proj.weight`]![1]; // [4, 3]
    for (let i = 0; i < 12; i++) expect(kernel[i]).toBe(stored[(i % 4) * 3 + Math.floor(i / 4)]);
    expect(at(params, 'layers.0.self_attn.o_proj.bias').shape).toEqual([4]);
    expect(Object.keys(params)).toEqual(['embed_tokens', 'layers', 'norm']);
  });
});

test('a transpose is right at sizes that no block divides', () => {
  for (const [rows, columns] of [
    [1, 1],
    [33, 70],
    [100, 31],
  ] as const) {
    const values = Float32Array.from({ length: rows * columns }, (_, i) => i);
    const result = transposed(floatWeight(values, [rows, columns]));
    expect(result.shape).toEqual([columns, rows]);
    const moved = float32Values(result);
    for (let i = 0; i < values.length; i++) {
      const [row, column] = [Math.floor(i / columns), i % columns];
      if (moved[column * rows + row] !== i) expect(moved[column * rows + row]).toBe(i);
    }
  }
});

test('a transpose keeps the bits of two-byte types, at an odd offset too', () => {
  const buffer = new Uint8Array(13);
  buffer.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 1);
  const { bytes } = transposed({ kind: 'float', dtype: 'bf16', shape: [2, 3], bytes: buffer.subarray(1) });
  expect([...bytes]).toEqual([1, 2, 7, 8, 3, 4, 9, 10, 5, 6, 11, 12]);
});

test('loading reports its progress, and stops at a signal', async () => {
  await withCheckpoint(gpt2Tensors(), async (checkpoint) => {
    let last = 0;
    const onProgress = (done: number, total: number) => {
      last = done / total;
    };
    await loadParams(checkpoint, gpt2WeightMap(sizes), { onProgress });
    expect(last).toBe(1);
    const aborted = loadParams(checkpoint, gpt2WeightMap(sizes), { signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
  });
});

test('sizes by stored type', () => {
  const params = {
    a: { kernel: floatWeight(new Float32Array(6), [2, 3]), bias: floatWeight(new Float32Array(3), [3]) },
    b: { kind: 'float', dtype: 'bf16', shape: [4], bytes: new Uint8Array(8) } as const,
  };
  expect(sizeByDType(params)).toEqual({
    f32: { tensors: 2, elements: 9, bytes: 36 },
    bf16: { tensors: 1, elements: 4, bytes: 8 },
  });
});
