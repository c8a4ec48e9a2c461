// lib/tokenizer.ts: a folder's tokenizer.json -> text to token ids and back, and the chat template.
// Encoding is @huggingface/tokenizers; decoding is detokenize.ts, so that a stream and a whole decode agree to the
// character. The text is what the tokens spell: `clean_up_tokenization_spaces` is not applied.
// Source: Hugging Face's file layout (tokenizer.json, tokenizer_config.json, chat_template.jinja).

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer as TextEncoding } from '@huggingface/tokenizers';
import { type DecoderConfig, type Detokenizer, detokenizerFor } from './detokenize.js';

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

export interface Tokenizer {
  /** The tokenizer.json that this was read from. */
  readonly file: string;
  /** Highest token id + 1. */
  readonly vocabSize: number;
  readonly hasChatTemplate: boolean;
  /**
   * @param options.addSpecialTokens whether to add what the tokenizer puts around a text, such as <s>; true if absent
   * @returns token ids; [] for an empty text when nothing is put around it
   */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[];
  /**
   * The text of these tokens. Ids that the tokenizer has no token for, as in a vocabulary that the model pads, are
   * silent, as in Hugging Face's.
   * @param options.skipSpecialTokens whether to leave out tokens such as <s>; true if absent
   * @throws RangeError for an id that is no whole number of at least 0
   */
  decode(ids: Iterable<number>, options?: { skipSpecialTokens?: boolean }): string;
  /** The token's own spelling, such as 'Ġthe'; undefined if the tokenizer has none for this id. */
  tokenOf(id: number): string | undefined;
  idOf(token: string): number | undefined;
  /** True for tokens such as <s> that are not part of a text. */
  isSpecial(id: number): boolean;
  /** A fresh decoder of token strings, for one text. */
  detokenizer(): Detokenizer;
  /**
   * Writes a conversation as the model's chat template does. Encode the result with addSpecialTokens false: the
   * template holds the special tokens itself.
   * @param options.addGenerationPrompt whether to open the assistant's answer; true if absent
   * @throws Error if the tokenizer has no chat template, or the template refuses these messages
   */
  renderChat(messages: readonly ChatMessage[], options?: { addGenerationPrompt?: boolean }): string;
}

/** Decodes a text while it is generated. */
export interface TextStream {
  /** Returns the text that this token completes: '' while a character is not whole. */
  push(id: number): string;
  /** Ends the text: returns what was held back. */
  flush(): string;
}

type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Reads the tokenizer of a model folder.
 * @returns null if the folder has no tokenizer.json
 * @throws Error if a file is malformed, or if the folder's config.json has a smaller vocabulary (names the file)
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer | null> {
  const file = join(folder, 'tokenizer.json');
  const description = await readJsonObject(file);
  if (!description) return null;
  const settings = (await readJsonObject(join(folder, 'tokenizer_config.json'))) ?? {};
  const template = (await readText(join(folder, 'chat_template.jinja'))) ?? chatTemplateOf(settings);
  const tokenizer = createTokenizer(file, description, settings, template);
  const modelVocab = (await readJsonObject(join(folder, 'config.json')))?.vocab_size;
  if (typeof modelVocab === 'number') checkVocabulary(tokenizer, modelVocab);
  return tokenizer;
}

/**
 * Makes sure that a model knows each token that the tokenizer can give it.
 * @param modelVocab rows of the model's embedding; may exceed the tokenizer's vocabulary (padding)
 * @throws RangeError if the tokenizer has ids beyond the model's vocabulary
 */
export function checkVocabulary(tokenizer: Tokenizer, modelVocab: number): void {
  if (tokenizer.vocabSize <= modelVocab) return;
  throw new RangeError(
    `${tokenizer.file}: expected token ids below the model's vocabulary of ${modelVocab}, received ids up to ` +
      `${tokenizer.vocabSize - 1}: this tokenizer belongs to another model`,
  );
}

/**
 * Starts decoding a text token by token, at the same cost for each. The pieces joined equal decode() of all ids.
 * @param options.skipSpecialTokens whether to leave out tokens such as <s>; true if absent
 */
export function createTextStream(
  tokenizer: Tokenizer,
  { skipSpecialTokens = true }: { skipSpecialTokens?: boolean } = {},
): TextStream {
  const detokenizer = tokenizer.detokenizer();
  return {
    push(id) {
      const token = tokenizer.tokenOf(checkedId(id));
      if (token === undefined || (skipSpecialTokens && tokenizer.isSpecial(id))) return '';
      return detokenizer.push(token);
    },
    flush: () => detokenizer.flush(),
  };
}

/**
 * Reads which tokens end a text. Needs no tokenizer.json.
 * @param tokenizer the folder's, for models that name their end only as a token string
 * @param modelVocab ids from this on are left out: a model cannot produce them (Hugging Face's default of 50256
 *   stands in many a small model's config.json)
 * @returns ids of the end-of-sequence tokens; [] if the model has none
 * @throws RangeError if a file gives something else than whole numbers
 * @source transformers: generation_config.json goes before config.json, whose defaults depend on the model type
 */
export async function readEosIds(
  folder: string,
  tokenizer: Tokenizer | null,
  modelVocab: number,
): Promise<number[]> {
  const config = (await readJsonObject(join(folder, 'config.json'))) ?? {};
  const generation = (await readJsonObject(join(folder, 'generation_config.json'))) ?? {};
  const settings = (await readJsonObject(join(folder, 'tokenizer_config.json'))) ?? {};
  const token = tokenString(settings.eos_token);
  const named = token === undefined ? undefined : tokenizer?.idOf(token);
  const fallback = config.eos_token_id === null ? undefined : DEFAULT_EOS[String(config.model_type)];
  const found = generation.eos_token_id ?? config.eos_token_id ?? named ?? fallback ?? [];
  const ids = Array.isArray(found) ? found : [found];
  for (const id of ids) {
    if (Number.isSafeInteger(id) && id >= 0) continue;
    throw new RangeError(`${folder}: eos_token_id: expected token ids, received ${JSON.stringify(found)}`);
  }
  return ids.filter((id) => id < modelVocab);
}

/** What transformers assumes where no file says it. */
const DEFAULT_EOS: Readonly<Record<string, number | undefined>> = { gpt2: 50256, llama: 2, mistral: 2 };

function createTokenizer(
  file: string,
  description: JsonObject,
  settings: JsonObject,
  template: string | null,
): Tokenizer {
  const { encoding, detokenizer } = createParts(file, description, settings);
  const specialIds = specialIdsOf(description);
  const vocabSize = encoding.model!.vocab.length;
  const tokenizer: Tokenizer = {
    file,
    vocabSize,
    hasChatTemplate: template !== null,
    encode(text, { addSpecialTokens = true } = {}) {
      const ids: (number | undefined)[] = encoding.encode(text, { add_special_tokens: addSpecialTokens }).ids;
      // Without an unknown token, text that the vocabulary cannot spell has no id.
      return ids.filter((id) => id !== undefined);
    },
    decode(ids, options) {
      const stream = createTextStream(tokenizer, options);
      const pieces: string[] = [];
      for (const id of ids) pieces.push(stream.push(id));
      return pieces.join('') + stream.flush();
    },
    tokenOf: (id) => encoding.id_to_token(id),
    idOf: (token) => encoding.token_to_id(token),
    isSpecial: (id) => specialIds.has(id),
    detokenizer,
    renderChat: (messages, options) => renderChat(file, template, settings, messages, options),
  };
  return tokenizer;
}

function createParts(file: string, description: JsonObject, settings: JsonObject) {
  try {
    checkIds(description);
    const complete = { ...EMPTY_DESCRIPTION, ...description };
    const encoding = new TextEncoding(complete, settings);
    encoding.encode('a 1'); // some malformed parts only show in use
    return { encoding, detokenizer: detokenizerFor(complete.decoder as DecoderConfig | null) };
  } catch (error) {
    throw new Error(`${file}: expected a tokenizer in Hugging Face's format: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** The package insists on keys that Hugging Face's own reader takes as absent. */
const EMPTY_DESCRIPTION = {
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  added_tokens: [],
};

/** A wrong id would make an array of any length, or shift the vocabulary without a word. */
function checkIds({ model, added_tokens: added }: JsonObject): void {
  const vocab = (model as JsonObject | undefined)?.vocab;
  if (typeof vocab !== 'object' || vocab === null) throw new TypeError('model.vocab: expected a vocabulary');
  const largest = 1 << 24; // no published vocabulary reaches a million
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < largest;
  if (!Array.isArray(vocab)) {
    for (const [token, id] of Object.entries(vocab)) {
      if (!isId(id))
        throw new RangeError(`model.vocab[${JSON.stringify(token)}]: expected an id, received ${id}`);
    }
  }
  if (added !== undefined && !Array.isArray(added)) throw new TypeError('added_tokens: expected a list');
  for (const token of (added ?? []) as readonly { id?: unknown; content?: unknown }[]) {
    if (isId(token?.id) && typeof token.content === 'string') continue;
    throw new TypeError(`added_tokens: expected { id, content }, received ${JSON.stringify(token)}`);
  }
}

function specialIdsOf({ added_tokens: added }: JsonObject): ReadonlySet<number> {
  const tokens = (added ?? []) as readonly { id: number; special?: boolean }[];
  return new Set(tokens.filter((token) => token.special).map((token) => token.id));
}

function renderChat(
  file: string,
  template: string | null,
  settings: JsonObject,
  messages: readonly ChatMessage[],
  { addGenerationPrompt = true }: { addGenerationPrompt?: boolean } = {},
): string {
  if (template === null) {
    throw new Error(`${file}: no chat template beside it: give the prompt as plain text instead`);
  }
  const specials = Object.entries(settings)
    .filter(([name]) => name.endsWith('_token'))
    .map(([name, token]) => [name, tokenString(token)] as const);
  try {
    return new Template(template).render({
      ...Object.fromEntries(specials),
      messages,
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (error) {
    throw new Error(`chat template of ${file}: ${messageOf(error)}`, { cause: error });
  }
}

function chatTemplateOf({ chat_template: template }: JsonObject): string | null {
  if (typeof template === 'string') return template;
  if (!Array.isArray(template)) return null;
  const named = template as readonly { name?: unknown; template?: unknown }[];
  const chosen = named.find(({ name }) => name === 'default') ?? named[0];
  return typeof chosen?.template === 'string' ? chosen.template : null;
}

/** A special token stands as a string, or as an object with its content. */
function tokenString(token: unknown): string | undefined {
  const text = (token as { content?: unknown } | null | undefined)?.content ?? token;
  return typeof text === 'string' ? text : undefined;
}

function checkedId(id: number): number {
  if (Number.isSafeInteger(id) && id >= 0) return id;
  throw new RangeError(`id: expected a whole number of at least 0, received ${id}`);
}

async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

async function readJsonObject(file: string): Promise<JsonObject | null> {
  const text = await readText(file);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: expected JSON: ${messageOf(error)}`, { cause: error });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new TypeError(`${file}: expected a JSON object, received ${JSON.stringify(value).slice(0, 40)}`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
