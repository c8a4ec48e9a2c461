import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { architectureOf } from '../../lib/model.js';
import { GPT2_PRESETS, parseGpt2Config } from '../../lib/models/gpt2.js';
import { MISTRAL_PRESETS, parseMistralConfig } from '../../lib/models/mistral.js';
import { inverseFrequencies } from '../../lib/models/rope.js';

const gpt2 = {
  model_type: 'gpt2',
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  n_positions: 1024,
  vocab_size: 50257,
};
const mistral = {
  model_type: 'mistral',
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-5,
  rope_theta: 1e6,
  sliding_window: null,
};

describe('config.json', () => {
  test('the published files give the presets', () => {
    expect(parseGpt2Config(gpt2, 'config.json')).toEqual(GPT2_PRESETS.gpt2);
    expect(parseGpt2Config({ ...gpt2, n_embd: 1024, n_layer: 24, n_head: 16 }, '')).toEqual(
      GPT2_PRESETS['gpt2-medium'],
    );
    expect(parseMistralConfig(mistral, 'config.json')).toEqual(MISTRAL_PRESETS['mistral-7b']);
  });

  test('absent fields have the defaults of transformers', () => {
    expect(parseGpt2Config({ model_type: 'gpt2' }, '')).toEqual(GPT2_PRESETS.gpt2);
    const { sliding_window: _, ...withoutWindow } = mistral;
    expect(parseMistralConfig(withoutWindow, '').window).toBe(4096);
    expect(parseMistralConfig({ ...withoutWindow, model_type: 'llama' }, '').window).toBeNull();
  });

  test('options that change the result are read', () => {
    const config = parseGpt2Config(
      {
        ...gpt2,
        activation_function: 'relu',
        scale_attn_weights: false,
        scale_attn_by_inverse_layer_idx: true,
        n_inner: 100,
        layer_norm_epsilon: 1e-6,
        tie_word_embeddings: false,
      },
      '',
    );
    expect(config).toMatchObject({
      activation: 'relu',
      scaleScores: false,
      scaleByLayer: true,
      innerDim: 100,
    });
    expect(config).toMatchObject({ epsilon: 1e-6, tiedHead: false });
    const llama = { ...mistral, model_type: 'llama', attention_bias: true, mlp_bias: true, head_dim: 96 };
    expect(parseMistralConfig(llama, '')).toMatchObject({ attentionBias: true, mlpBias: true, headDim: 96 });
    const newer = {
      ...mistral,
      rope_theta: undefined,
      rope_parameters: { rope_type: 'linear', factor: 2, rope_theta: 5e5 },
    };
    expect(parseMistralConfig(newer, '')).toMatchObject({
      ropeTheta: 5e5,
      ropeScaling: { kind: 'linear', factor: 2 },
    });
  });

  test.each([
    [{ ...gpt2, n_head: 7 }, /f: n_head: expected a divisor of n_embd 768, found 7/],
    [{ ...gpt2, n_embd: 0 }, /f: n_embd: expected a positive integer up to \d+, found 0/],
    [{ ...gpt2, n_layer: '12' }, /f: n_layer: expected a positive integer up to 10000, found "12"/],
    [{ ...gpt2, n_layer: 1e9 }, /f: n_layer: expected a positive integer up to 10000, found 1000000000/],
    [
      { ...gpt2, activation_function: 'gelu_fast' },
      /activation_function: expected one of gelu_new.*found "gelu_fast"/,
    ],
    [{ ...gpt2, add_cross_attention: true }, /add_cross_attention: true is not supported/],
    [{ ...gpt2, pruned_heads: { 0: [1] } }, /pruned_heads/],
    [{ ...gpt2, quantization_config: { bits: 4 } }, /quantization_config: .* is not supported: .*quantize/],
    [
      { ...mistral, num_key_value_heads: 5 },
      /num_key_value_heads: expected a divisor of num_attention_heads 32, found 5/,
    ],
    [
      { ...mistral, head_dim: 2 ** 30 },
      /head_dim: expected a positive integer up to 1048576, found 1073741824/,
    ],
    [
      { ...mistral, hidden_size: 2 ** 30, num_attention_heads: 1 },
      /hidden_size: expected a positive integer up to/,
    ],
    [{ ...mistral, head_dim: 63 }, /head_dim: expected an even number/],
    [
      { ...mistral, rope_scaling: { type: 'dynamic', factor: 2 } },
      /rope_scaling: type: expected one of default, linear, llama3, found "dynamic"/,
    ],
    [
      { ...mistral, rope_scaling: { rope_type: 'yarn', factor: 2 } },
      /rope_type: expected one of .* found "yarn"/,
    ],
    [{ ...mistral, sliding_window: 0 }, /sliding_window: expected a positive integer/],
    [{ model_type: 'bert' }, /f: model_type: expected one of gpt2, mistral, llama, found "bert"/],
    [{}, /model_type: .* found nothing/],
    [[], /expected a JSON object, found \[\]/],
    [null, /expected a JSON object, found null/],
  ])('%j is refused by name', (json, message) => {
    expect(() => architectureOf(json, 'f')).toThrow(message);
  });

  test('any mutation gives a usable configuration or an error that names the file', () => {
    const fields = [
      ...Object.keys(gpt2),
      ...Object.keys(mistral),
      'rope_scaling',
      'head_dim',
      'n_inner',
      'tie_word_embeddings',
    ];
    const mutations = fc.dictionary(
      fc.constantFrom(...fields),
      fc.oneof(fc.jsonValue(), fc.integer(), fc.double()),
    );
    fc.assert(
      fc.property(fc.constantFrom(gpt2, mistral), mutations, (base, mutation) => {
        let architecture: ReturnType<typeof architectureOf>;
        try {
          architecture = architectureOf({ ...base, ...mutation }, 'the/config.json');
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
          expect((error as Error).message).toMatch(/^the\/config\.json: /);
          return;
        }
        const { config } = architecture;
        for (const size of [
          config.vocabSize,
          config.maxPositions,
          config.dim,
          config.layers,
          config.heads,
          config.headDim,
        ]) {
          expect(Number.isSafeInteger(size) && size > 0).toBe(true);
        }
        expect(config.heads % config.kvHeads).toBe(0);
      }),
      { numRuns: process.env.CI ? 1000 : 200 },
    );
  });
});

describe('rotary frequencies', () => {
  test('llama3 keeps the fast pairs and stretches the slow ones', () => {
    const plain = inverseFrequencies(64, 5e5, { kind: 'none' });
    const scaling = {
      kind: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalMaxPositions: 8192,
    } as const;
    const scaled = inverseFrequencies(64, 5e5, scaling);
    expect(plain[0]).toBe(1);
    expect(scaled[0]).toBe(1);
    expect(scaled.at(-1)! / plain.at(-1)!).toBeCloseTo(1 / 8, 6);
    expect(inverseFrequencies(64, 5e5, { kind: 'linear', factor: 4 })[3]).toBeCloseTo(plain[3]! / 4, 8);
  });
});
