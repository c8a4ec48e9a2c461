// lib/generate/textWriter.ts: generated tokens -> their text, whole characters only.
import { createTextStream, type Tokenizer } from '../tokenizer.js';

export interface TextWriter {
  /** Returns the text that this token completes; with the last one, all that was held back. */
  push(id: number, isLast: boolean): string;
  /** The whole text; null without a tokenizer. */
  end(): string | null;
}

/** Puts text together while tokens come; without a tokenizer there is none. */
export function textWriter(tokenizer: Tokenizer | null): TextWriter {
  const stream = tokenizer && createTextStream(tokenizer);
  const pieces: string[] = [];
  let ended = false;
  const add = (piece: string) => {
    pieces.push(piece);
    return piece;
  };
  const flush = () => {
    if (ended || !stream) return '';
    ended = true;
    return stream.flush();
  };
  return {
    push: (id, isLast) => add((stream?.push(id) ?? '') + (isLast ? flush() : '')),
    end: () => {
      add(flush());
      return stream && pieces.join('');
    },
  };
}
