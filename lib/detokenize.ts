// lib/detokenize.ts: token strings, one at a time -> the text that is whole by now.
// Each decoder of a tokenizer.json becomes a stage that takes one token string and returns what it can already say:
// a stream costs the same for each token, however long the text is, and a whole decode is the same stages run to
// the end. So the streamed text is the decoded text by construction.
// Source: the decoders of Hugging Face's tokenizers 0.22 (Rust), bytes that are no text included:
// https://github.com/huggingface/tokenizers/tree/main/tokenizers/src/decoders

/** One step of the decoding of a text, or a chain of such steps. Made for one text, used once. */
export interface Detokenizer {
  /** Takes the next token string, returns the text that it completes: '' while a character is not whole. */
  push(token: string): string;
  /** Ends the text: returns what was held back, with U+FFFD for bytes that never became a character. */
  flush(): string;
}

/** A decoder entry of tokenizer.json. Its other fields depend on `type`. */
export interface DecoderConfig {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** Works on lists of token strings, since one token may release several or none. */
interface Stage {
  push(token: string): string[];
  flush(): string[];
}

interface StageKind {
  readonly make: () => Stage;
  /** Whether the stage's outputs are the parts of a single string, and no longer tokens. */
  readonly fuses?: boolean;
}

/**
 * Prepares the stages for a tokenizer's decoder.
 * @param config the `decoder` of tokenizer.json; null joins the tokens with spaces
 * @returns a maker of fresh detokenizers, one for each text
 * @throws RangeError for a decoder that is not of GPT-2's or Llama's kind (names it)
 */
export function detokenizerFor(config: DecoderConfig | null): () => Detokenizer {
  if (config === null) return () => chain([joinWithSpaces()]);
  const kinds: StageKind[] = [];
  let fused = false;
  for (const entry of flatten(config)) {
    const kind: StageKind | null = fused ? stageOfText(entry) : stageOfTokens(entry);
    if (!kind) {
      throw new RangeError(
        `decoder: expected ByteLevel, Metaspace, ByteFallback, Fuse, or a Strip or Replace of plain text, ` +
          `received ${JSON.stringify(entry)}`,
      );
    }
    kinds.push(kind);
    fused ||= kind.fuses ?? false;
  }
  return () => chain(kinds.map((kind) => kind.make()));
}

function flatten(config: DecoderConfig): DecoderConfig[] {
  if (config.type !== 'Sequence') return [config];
  if (!Array.isArray(config.decoders)) throw new TypeError('decoder: expected a list of decoders');
  return (config.decoders as DecoderConfig[]).flatMap(flatten);
}

function chain(stages: readonly Stage[]): Detokenizer {
  // What stage `first` released goes through all that come after it.
  const onward = (tokens: string[], first: number): string[] =>
    stages.slice(first).reduce((passed, stage) => passed.flatMap((token) => stage.push(token)), tokens);
  return {
    push: (token) => onward([token], 0).join(''),
    flush: () => stages.map((stage, i) => onward(stage.flush(), i + 1).join('')).join(''),
  };
}

/** The stage of a decoder that still sees single tokens. */
function stageOfTokens(config: DecoderConfig): StageKind | null {
  switch (config.type) {
    case 'ByteLevel':
      return { make: byteLevel, fuses: true };
    case 'ByteFallback':
      return { make: byteFallback };
    case 'Fuse':
      return { make: () => stateless((token) => token), fuses: true };
    case 'Metaspace':
      return { make: () => metaspace(config) };
    case 'Strip':
      return { make: () => stateless((token) => strip(token, config)) };
    case 'Replace': {
      const pattern = literalPattern(config);
      if (pattern === null) return null;
      return { make: () => stateless((token) => token.replaceAll(pattern, literalContent(config))) };
    }
    default:
      return null;
  }
}

/** The stage of a decoder that sees one string, here in parts: only what does not depend on where they end. */
function stageOfText(config: DecoderConfig): StageKind | null {
  switch (config.type) {
    case 'Fuse':
      return { make: () => stateless((part) => part) };
    case 'Strip':
      return config.stop ? null : { make: () => stripStart(config) };
    case 'Replace': {
      const pattern = literalPattern(config);
      if (pattern?.length !== 1) return null;
      return { make: () => stateless((part) => part.replaceAll(pattern, literalContent(config))) };
    }
    default:
      return null;
  }
}

function stateless(map: (token: string) => string): Stage {
  return { push: (token) => [map(token)], flush: () => [] };
}

function joinWithSpaces(): Stage {
  let first = true;
  return {
    push(token) {
      const text = first ? token : ` ${token}`;
      first = false;
      return [text];
    },
    flush: () => [],
  };
}

/** GPT-2's bytes written as printable characters; a character may be spread over several tokens. */
function byteLevel(): Stage {
  // ignoreBOM keeps U+FEFF in the text: without it a decoder swallows the first one.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push: (token) => [decoder.decode(bytesOfToken(token), { stream: true })],
    flush: () => [decoder.decode()],
  };
}

/** A token with a character outside the byte alphabet (an added one) stands for its own text. */
function bytesOfToken(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => BYTE_OF_CHARACTER.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(token) : Uint8Array.from(bytes as number[]);
}

/** Source: bytes_to_unicode in https://github.com/openai/gpt-2/blob/master/src/encoder.py */
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = (() => {
  const isPrintable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  const pairs: [string, number][] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    pairs.push([String.fromCodePoint(isPrintable(byte) ? byte : next++), byte]);
  }
  return new Map(pairs);
})();

/**
 * Llama's tokens such as <0xE2> for bytes outside the vocabulary. A run of them is a text, or it is one U+FFFD a
 * byte: which of both shows only when the run ends, so it is held back until then.
 */
function byteFallback(): Stage {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let run: number[] = [];
  const endRun = (): string[] => {
    const bytes = Uint8Array.from(run);
    run = [];
    if (bytes.length === 0) return [];
    try {
      return [decoder.decode(bytes)];
    } catch {
      return ['\uFFFD'.repeat(bytes.length)];
    }
  };
  return {
    push(token) {
      const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
      if (hex === undefined) return [...endRun(), token];
      run.push(Number.parseInt(hex, 16));
      return [];
    },
    flush: endRun,
  };
}

/** SentencePiece's U+2581 for a space; the one that encoding put before the text goes. */
function metaspace(config: DecoderConfig): Stage {
  const replacement = typeof config.replacement === 'string' ? config.replacement : '\u2581';
  let first = config.prepend_scheme !== 'never' && config.add_prefix_space !== false;
  return {
    push(token) {
      const text = token.replaceAll(replacement, () => (first ? '' : ' '));
      first = false;
      return [text];
    },
    flush: () => [],
  };
}

function strip(token: string, config: DecoderConfig): string {
  const { content, start, stop } = stripFields(config);
  let [from, to] = [0, token.length];
  while (from < start && from < to && token[from] === content) from++;
  while (token.length - to < stop && to > from && token[to - 1] === content) to--;
  return token.slice(from, to);
}

function stripStart(config: DecoderConfig): Stage {
  const { content, start } = stripFields(config);
  let left = start;
  return {
    push(part) {
      let from = 0;
      while (left > 0 && from < part.length) {
        if (part[from] === content) {
          from++;
          left--;
        } else left = 0; // the text has begun
      }
      return [part.slice(from)];
    },
    flush: () => [],
  };
}

function stripFields({ content, start, stop }: DecoderConfig) {
  return { content: String(content ?? ' '), start: Number(start ?? 0), stop: Number(stop ?? 0) };
}

function literalPattern({ pattern }: DecoderConfig): string | null {
  const literal = (pattern as { String?: unknown } | undefined)?.String;
  return typeof literal === 'string' && literal !== '' ? literal : null;
}

/** As a function: in a plain string replaceAll would read `$&` as a reference. */
function literalContent({ content }: DecoderConfig): () => string {
  return () => String(content ?? '');
}
