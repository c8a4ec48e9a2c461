import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, test } from 'vitest';
import { diagnose, observeStates, type States } from '../lib/diagnose.js';
import { gpt2Network } from '../lib/models/gpt2.js';
import type { ModelConfig, Network } from '../lib/models/layers.js';
import { float32Values, floatWeight, mapWeights, type ParamTree, type Weight } from '../lib/tensor.js';
import { randomWeight, SMALL_CONFIG, smallParams, useCpu } from './smallModel.js';

beforeAll(useCpu);

const tokens = [5, 9, 17, 3, 44];
const params: ParamTree = smallParams(SMALL_CONFIG);
const reference = (change?: Partial<ModelConfig>) =>
  gpt2Network({ ...SMALL_CONFIG, ...change }) as unknown as Network;

function broken(path: string, change: (values: Float32Array, weight: Weight) => Float32Array): ParamTree {
  return mapWeights(params, (weight, place) =>
    place === path ? floatWeight(change(float32Values(weight), weight), weight.shape) : weight,
  );
}

const zeros = (values: Float32Array) => new Float32Array(values.length);
const transposed = (values: Float32Array) => {
  const size = Math.sqrt(values.length);
  return values.map((_, i) => values[(i % size) * size + Math.floor(i / size)]!);
};

describe('diagnose', () => {
  let golden: States;
  beforeAll(() => {
    golden = observeStates(reference(), params, tokens);
  });

  test('finds nothing where nothing is wrong', () => {
    const { first, cause, layers } = diagnose({ reference, params, tokens, golden });
    expect([first, cause]).toEqual([null, 'none']);
    expect(layers.map(({ name }) => name)).toEqual([
      'hidden.0',
      'hidden.1',
      'hidden.2',
      'final_norm',
      'logits',
    ]);
  });

  test.each([
    ['h.0.attn.c_proj.kernel', transposed, 'hidden.1', 'transpose'],
    ['h.1.attn.c_proj.kernel', transposed, 'hidden.2', 'transpose'],
    ['h.0.attn.c_attn.bias', zeros, 'hidden.1', 'missing bias'],
    ['h.1.mlp.c_proj.bias', zeros, 'hidden.2', 'missing bias'],
    ['h.1.ln_2.bias', zeros, 'hidden.2', 'missing bias'],
    ['wpe.embedding', zeros, 'hidden.0', 'embedding'],
  ] as const)('a mistake in %s', (path, change, first, cause) => {
    const found = diagnose({ reference, params: broken(path, change), tokens, golden });
    expect(found).toMatchObject({ first, cause, path });
    expect(found.verdict).toContain(path);
  });

  test.each([
    ['ln_f.scale', 'final_norm', 'final norm'],
    ['h.0.mlp.c_fc.kernel', 'hidden.1', 'unknown'],
  ])('noise in %s is located, and not explained by force', (path, first, cause) => {
    const noisy = broken(path, (values) => values.map((value, i) => value + (i % 3) * 0.1));
    expect(diagnose({ reference, params: noisy, tokens, golden })).toMatchObject({ first, cause });
  });

  test('a wrong epsilon in config.json', () => {
    const wrong = (change?: Partial<ModelConfig>) => reference({ epsilon: 1e-3, ...change });
    const found = diagnose({ reference: wrong, params, tokens, golden });
    expect(found).toMatchObject({ first: 'hidden.1', cause: 'norm epsilon' });
    expect(found.verdict).toContain('0.001');
  });

  test.each([
    ['everything', /later tokens too/],
    ['itself', /its own token only/],
  ])('code whose mask shows %s', (kind, verdict) => {
    const right = reference();
    const subject: Network = {
      ...right,
      block(tree, layer, x, step) {
        const query = x.shape[1];
        const itself = [...Array(query).keys()].map((row) =>
          [...Array(query).keys()].map((i) => (i === row ? 0 : -1e9)),
        );
        step.mask = kind === 'everything' ? null : tf.tensor4d([[itself]]);
        return right.block(tree, layer, x, step);
      },
    };
    const found = diagnose({ reference, subject, params, tokens, golden });
    expect(found).toMatchObject({ first: 'hidden.1', cause: 'mask' });
    expect(found.verdict).toMatch(verdict);
  });

  test('code with an epsilon of its own, and code that is simply wrong', () => {
    const subject = reference({ epsilon: 1e-3 });
    expect(diagnose({ reference, subject, params, tokens, golden })).toMatchObject({ cause: 'norm epsilon' });
    const doubled: Network = {
      ...reference(),
      block: (tree, layer, x, step) => reference().block(tree, layer, tf.mul(x, 2), step),
    };
    expect(diagnose({ reference, subject: doubled, params, tokens, golden })).toMatchObject({
      cause: 'forward code',
    });
  });

  test('a head of another model', () => {
    const found = diagnose({
      reference,
      params: { ...params, lm_head: { kernel: randomWeight([12, 61], 99) } },
      tokens,
      golden,
    });
    expect(found.first).toBe('logits');
  });

  test('golden states of other tokens are refused', () => {
    expect(() => diagnose({ reference, params, tokens: [1, 2], golden })).toThrow(
      /golden hidden.0: expected 24 values, found 60/,
    );
  });
});
