import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { modelsFolder } from '../lib/paths.js';
import {
  checkVocabulary,
  createTextStream,
  loadTokenizer,
  readEosIds,
  type Tokenizer,
} from '../lib/tokenizer.js';

const CHAT_TEMPLATE =
  "{% for m in messages %}{{ bos_token + m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";

let folder: string;
let byteLevel: Tokenizer;
let llama: Tokenizer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokenizer-'));
  byteLevel = await tokenizerFrom(byteLevelDescription(), {
    bos_token: { content: '<s>' },
    chat_template: CHAT_TEMPLATE,
  });
  llama = await tokenizerFrom(llamaDescription());
});
afterAll(() => rm(folder, { recursive: true }));

describe('ids and text', () => {
  test('a text comes back from its ids', () => {
    for (const text of ['the cat', ' leading space', 'naïve 👩‍👩‍👧 e\u0301', '\n\n\ttabs', '\ufeffmark']) {
      expect(byteLevel.decode(byteLevel.encode(text))).toBe(text);
    }
  });

  test('merges are applied: "the" is one token after its space', () => {
    expect(byteLevel.encode(' the').map(byteLevel.tokenOf)).toEqual(['Ġthe']);
  });

  test('special tokens are found in the text, added around it on request, and left out of decoded text', () => {
    expect(llama.encode('the')).toEqual([llama.idOf('<s>'), llama.idOf('▁the')]);
    expect(llama.encode('the', { addSpecialTokens: false })).toEqual([llama.idOf('▁the')]);
    const ids = byteLevel.encode('a<s>b');
    expect(ids).toContain(byteLevel.idOf('<s>'));
    expect(byteLevel.decode(ids)).toBe('ab');
    expect(byteLevel.decode(ids, { skipSpecialTokens: false })).toBe('a<s>b');
  });

  test('clean-up of spaces is never applied', () => {
    expect(byteLevel.decode(byteLevel.encode("do n't stop , he said ."))).toBe("do n't stop , he said .");
  });

  test('ids without a token are silent; what is no id is refused', () => {
    expect(byteLevel.decode([byteLevel.vocabSize + 5])).toBe('');
    for (const id of [-1, 0.5, Number.NaN]) expect(() => byteLevel.decode([id])).toThrow(RangeError);
  });

  test('an empty text has no ids', () => {
    expect(byteLevel.encode('')).toEqual([]);
    expect(byteLevel.decode([])).toBe('');
  });
});

// Expected ids: printed by Hugging Face's tokenizers 0.22.1 for Python from the same file.
test.each([
  ['Which city is the capital of Finland?', [783, 926, 279, 274, 574, 321, 1011, 1127, 31]],
  [
    'naïve café 漢字 👩\u200d👧\n\n  12345',
    [
      ...[526, 128, 108, 413, 300, 65, 70, 128, 103, 221, 163, 121, 96, 162, 256, 246, 221, 173, 254, 240],
      ...[103, 159, 223, 236, 173, 254, 240, 101, 199, 199, 221, 221, 17, 18, 19, 20, 21],
    ],
  ],
  ["<|endoftext|>don't", [0, 68, 261, 7, 84]],
])('the embedded tokenizer reads %j as Python does', async (text, expected) => {
  const tokenizer = (await loadTokenizer(join(modelsFolder(), 'tiny-gpt2')))!;
  expect(tokenizer.encode(text)).toEqual(expected);
  expect(tokenizer.decode(expected, { skipSpecialTokens: false })).toBe(text);
});

// Expected strings: printed by the same decoders of Hugging Face's tokenizers 0.22.1 for Python.
describe('decoders say what the Rust ones say', () => {
  const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true };
  const llamaDecoder = llamaDescription().decoder;
  test.each([
    ['ByteLevel', { type: 'ByteLevel' }, ['Ġa', 'caf', 'é'], ' acaf\ufffd'],
    ['ByteLevel, a token outside its alphabet', { type: 'ByteLevel' }, ['é b'], 'é b'],
    ['ByteLevel, byte-order mark', { type: 'ByteLevel' }, ['ï»¿x'], '\ufeffx'],
    ['ByteLevel, a character cut short', { type: 'ByteLevel' }, ['ð', 'Ł', ' '], '\ufffd '],
    ['ByteFallback, run of invalid bytes', { type: 'ByteFallback' }, ['<0x41>', '<0x80>'], '\ufffd\ufffd'],
    ['ByteFallback, run cut short', { type: 'ByteFallback' }, ['<0xE2>', '<0x82>', 'a'], '\ufffd\ufffda'],
    [
      'ByteFallback, byte-order mark',
      { type: 'ByteFallback' },
      ['<0xEF>', '<0xBB>', '<0xBF>', 'x'],
      '\ufeffx',
    ],
    ['Metaspace', metaspace, ['▁▁a▁b', '▁c'], 'ab c'],
    ['Metaspace, never', { ...metaspace, prepend_scheme: 'never' }, ['▁▁a', '▁c'], '  a c'],
    ['Llama', llamaDecoder, ['▁', '▁a', '<0x20>', 'b'], ' a b'],
    ['Llama, a space from bytes', llamaDecoder, ['<0x20>', '▁a'], ' a'],
    ['none', null, ['a', 'b'], 'a b'],
  ])('%s', async (_, decoder, tokens, expected) => {
    const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
    const tokenizer = await tokenizerFrom({ decoder, model: { type: 'BPE', vocab, merges: [] } });
    expect(tokenizer.decode(tokens.keys())).toBe(expected);
  });
});

describe('streamed text', () => {
  test('a character over two tokens comes when it is whole', () => {
    const stream = createTextStream(byteLevel);
    const pieces = byteLevel.encode('aé!').map((id) => stream.push(id));
    expect(pieces).toEqual(['a', '', 'é', '!']);
    expect(stream.flush()).toBe('');
  });

  test('what never becomes whole comes at the end', () => {
    const stream = createTextStream(byteLevel);
    const [first] = byteLevel.encode('é');
    expect([stream.push(first!), stream.flush()]).toEqual(['', '\ufffd']);
  });

  test.each([
    ['ByteLevel', () => byteLevel, wholeByteLevel],
    ['Llama', () => llama, wholeLlama],
  ])('%s: pieces joined equal the text decoded at once, for texts and for random ids', (_, get, whole) => {
    const tokenizer = get();
    const ids = fc.oneof(
      fc.array(fc.nat(tokenizer.vocabSize + 1), { maxLength: 40 }),
      fc
        .string({ unit: fc.oneof(fc.constantFrom(' ', 'é', 'e\u0301', '👩‍👧', '\n', '漢'), UNITS) })
        .map((text) => tokenizer.encode(text)),
    );
    fc.assert(
      fc.property(ids, fc.boolean(), (tokens, skipSpecialTokens) => {
        const stream = createTextStream(tokenizer, { skipSpecialTokens });
        const pieces = [...tokens.map((id) => stream.push(id)), stream.flush()];
        const kept = tokens.filter((id) => !(skipSpecialTokens && tokenizer.isSpecial(id)));
        const spelled = kept.map(tokenizer.tokenOf).filter((token) => token !== undefined);
        expect(pieces.join('')).toBe(whole(spelled));
        expect(pieces.join('')).toBe(tokenizer.decode(tokens, { skipSpecialTokens }));
      }),
      { numRuns: 500 },
    );
  });

  test('a token costs the same after a long text', () => {
    // Decoding all tokens again for each would take 200,000 times longer at the end than at the start.
    const stream = createTextStream(byteLevel);
    const id = byteLevel.encode('a')[0]!;
    const start = performance.now();
    for (let i = 0; i < 200_000; i++) stream.push(id);
    expect(performance.now() - start).toBeLessThan(5_000);
  });
});

const UNITS = fc.constantFrom('a', 'th', 'the', '😀', '\u200d', '\ufeff', '<s>');

describe('chat template', () => {
  test('messages are written as the template says, specials from tokenizer_config.json', () => {
    const messages = [{ role: 'user', content: 'Hi' }];
    expect(byteLevel.hasChatTemplate).toBe(true);
    expect(byteLevel.renderChat(messages)).toBe('<s>user: Hi\nassistant: ');
    expect(byteLevel.renderChat(messages, { addGenerationPrompt: false })).toBe('<s>user: Hi\n');
  });

  test('the errors say what is missing or what the template refused', async () => {
    expect(() => llama.renderChat([])).toThrow(/tokenizer\.json: no chat template/);
    const refusing = await tokenizerFrom(byteLevelDescription(), {
      chat_template: "{{ raise_exception('roles must alternate') }}",
    });
    expect(() => refusing.renderChat([])).toThrow(/chat template of .*tokenizer\.json: roles must alternate/);
  });
});

describe('end-of-sequence ids', () => {
  const eos = async (
    files: Record<string, unknown>,
    modelVocab = 60_000,
    tokenizer: Tokenizer | null = null,
  ) => readEosIds(await folderWith(files), tokenizer, modelVocab);

  test('generation_config.json goes before config.json; several are allowed', async () => {
    expect(
      await eos({ 'generation_config.json': { eos_token_id: [3, 4] }, 'config.json': { eos_token_id: 9 } }),
    ).toEqual([3, 4]);
    expect(await eos({ 'generation_config.json': {}, 'config.json': { eos_token_id: 9 } })).toEqual([9]);
  });

  test('a named token, then the default of the model type', async () => {
    const files = { 'tokenizer_config.json': { eos_token: '</s>' }, 'config.json': { model_type: 'gpt2' } };
    expect(await eos(files, 60_000, llama)).toEqual([llama.idOf('</s>')]);
    expect(await eos(files)).toEqual([50256]);
    expect(await eos({ 'config.json': { model_type: 'gpt2', eos_token_id: null } })).toEqual([]);
  });

  test('an id that the model cannot produce is left out, nonsense is refused', async () => {
    expect(await eos({ 'config.json': { model_type: 'gpt2', eos_token_id: 50256 } }, 97)).toEqual([]);
    await expect(eos({ 'config.json': { eos_token_id: 'x' } })).rejects.toThrow(
      /eos_token_id: expected token ids, received "x"/,
    );
  });
});

describe('files that are not right', () => {
  test('no tokenizer.json is no error', async () => {
    expect(await loadTokenizer(join(folder, 'nowhere'))).toBeNull();
  });

  test('a vocabulary larger than the model says both sizes', async () => {
    const broken = folderWith({
      'tokenizer.json': byteLevelDescription(),
      'config.json': { vocab_size: 100 },
    });
    await expect(loadTokenizer(await broken)).rejects.toThrow(
      /tokenizer\.json: .*vocabulary of 100, received ids up to 259/,
    );
    expect(() => checkVocabulary(llama, llama.vocabSize)).not.toThrow();
  });

  test.each([
    ['no JSON', '{"model":', /tokenizer\.json: expected JSON/],
    ['a list', [], /tokenizer\.json: expected a JSON object, received \[\]/],
    ['no model', {}, /tokenizer\.json: .*model\.vocab/],
    [
      'a lying id',
      { model: { type: 'BPE', vocab: { a: 1e12 }, merges: [] } },
      /tokenizer\.json: .*model\.vocab\["a"\].*1000000000000/,
    ],
    [
      'an unknown decoder',
      { ...byteLevelDescription(), decoder: { type: 'WordPiece' } },
      /tokenizer\.json: .*decoder.*WordPiece/,
    ],
    [
      'added tokens without id',
      { ...byteLevelDescription(), added_tokens: [{ content: 'x' }] },
      /tokenizer\.json: .*added_tokens/,
    ],
  ])('%s: the error names the file', async (_, content, message) => {
    await expect(loadTokenizer(await folderWith({ 'tokenizer.json': content }))).rejects.toThrow(message);
  });

  test('a mutated tokenizer.json loads or is refused by name', async () => {
    const text = JSON.stringify({
      ...llamaDescription(),
      model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b'] },
    });
    const target = await folderWith({});
    await fc.assert(
      fc.asyncProperty(
        fc.nat(text.length - 1),
        fc.nat(8),
        fc.constantFrom('', 'null', '"', '{}', '-1', '[', '9'),
        async (at, cut, put) => {
          await writeFile(join(target, 'tokenizer.json'), text.slice(0, at) + put + text.slice(at + cut));
          const outcome = await loadTokenizer(target).catch((error: Error) => error.message);
          if (typeof outcome === 'string') expect(outcome).toContain('tokenizer.json');
        },
      ),
      { numRuns: 300 },
    );
  });
});

/** The whole text's bytes at once, as an independent second opinion. */
function wholeByteLevel(tokens: readonly string[]): string {
  const bytes = tokens.flatMap((token) => [...token].map((character) => GPT2_BYTES.indexOf(character)));
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

function wholeLlama(tokens: readonly string[]): string {
  const spaced = tokens.map((token) => token.replaceAll('▁', ' ')).join('\uE000');
  const text = spaced.replaceAll(/<0x..>(\uE000<0x..>)*/g, (run) => {
    const bytes = run.split('\uE000').map((token) => Number.parseInt(token.slice(3, 5), 16));
    const decoded = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes));
    return decoded.includes('\ufffd') ? '\ufffd'.repeat(bytes.length) : decoded;
  });
  return text.replaceAll('\uE000', '').replace(/^ /, '');
}

const GPT2_BYTES = Array.from({ length: 256 }, (_, byte) => {
  const missing = [...Array(33).keys(), ...Array.from({ length: 34 }, (_, i) => 127 + i), 173];
  const position = missing.indexOf(byte);
  return String.fromCharCode(position < 0 ? byte : 256 + position);
});

function byteLevelDescription() {
  const merges = ['t h', 'th e', 'Ġ the'];
  const tokens = [...GPT2_BYTES, 'th', 'the', 'Ġthe'];
  return {
    added_tokens: [{ id: tokens.length, content: '<s>', special: true, normalized: false }],
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

function llamaDescription() {
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, '▁', 't', 'h', 'e', '▁t', '▁th', '▁the', 'a', '漢'];
  const special = ['<unk>', '<s>', '</s>'].map((content, id) => ({
    id,
    content,
    special: true,
    normalized: false,
  }));
  return {
    added_tokens: special,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      byte_fallback: true,
      fuse_unk: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: ['▁ t', '▁t h', '▁th e'],
    },
  };
}

let folders = 0;
async function folderWith(files: Record<string, unknown>): Promise<string> {
  const target = await mkdtemp(join(folder, `${folders++}-`));
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(target, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return target;
}

async function tokenizerFrom(description: object, settings: object = {}): Promise<Tokenizer> {
  const target = await folderWith({ 'tokenizer.json': description, 'tokenizer_config.json': settings });
  return (await loadTokenizer(target))!;
}
