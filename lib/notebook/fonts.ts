// Advance widths of a TrueType font, to measure text where no browser does it.
// In: a .ttf file. Out: widths and heights as parts of the font size. Kerning is left out: text comes out a hair wide.
// Source: OpenType 1.9 tables head, hhea, hmtx and cmap (format 4).
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** Measures of a font, in em (multiples of the font size). */
export interface Font {
  readonly ascent: number;
  readonly descent: number;
  /** @returns undefined when the font lacks the character */
  width(codePoint: number): number | undefined;
}

/** Tables of the file: name -> offset in bytes. */
function readTables(bytes: Buffer): Map<string, number> {
  const tables = new Map<string, number>();
  for (let table = 0; table < bytes.readUInt16BE(4); table++) {
    const entry = 12 + 16 * table;
    tables.set(bytes.toString('latin1', entry, entry + 4), bytes.readUInt32BE(entry + 8));
  }
  return tables;
}

/** One format 4 subtable: adds code point -> glyph. */
function readSubtable(bytes: Buffer, start: number, glyphs: Map<number, number>): void {
  const word = (offset: number) => bytes.readUInt16BE(start + offset);
  if (word(0) !== 4) return;
  const segmentBytes = word(6); // twice the number of segments
  for (let segment = 0; segment < segmentBytes; segment += 2) {
    const last = word(14 + segment);
    const first = word(16 + segmentBytes + segment);
    const delta = word(16 + 2 * segmentBytes + segment);
    const rangeAt = 16 + 3 * segmentBytes + segment;
    const range = word(rangeAt);
    for (let code = first; code <= last && code < 0xffff; code++) {
      const glyph = range === 0 ? code : word(rangeAt + range + 2 * (code - first));
      if (glyph !== 0) glyphs.set(code, (glyph + delta) & 0xffff);
    }
  }
}

/** Reads a font file. */
function readFont(path: string): Font {
  const bytes = readFileSync(path);
  const tables = readTables(bytes);
  const table = (name: string) => tables.get(name)!;
  const unitsPerEm = bytes.readUInt16BE(table('head') + 18);
  const metrics = bytes.readUInt16BE(table('hhea') + 34);
  const glyphs = new Map<number, number>();
  const subtables = bytes.readUInt16BE(table('cmap') + 2);
  for (let index = 0; index < subtables; index++)
    readSubtable(bytes, table('cmap') + bytes.readUInt32BE(table('cmap') + 8 + 8 * index), glyphs);
  return {
    ascent: bytes.readInt16BE(table('hhea') + 4) / unitsPerEm,
    descent: -bytes.readInt16BE(table('hhea') + 6) / unitsPerEm,
    width(codePoint) {
      const glyph = glyphs.get(codePoint);
      if (glyph === undefined) return undefined;
      return bytes.readUInt16BE(table('hmtx') + 4 * Math.min(glyph, metrics - 1)) / unitsPerEm;
    },
  };
}

/** Open Sans heads Plotly's list of fonts; Noto Sans Math has the arrows and symbols that it lacks. */
export const fontFiles = [
  'open-sans/400Regular/OpenSans_400Regular',
  'open-sans/700Bold/OpenSans_700Bold',
  'noto-sans-math/400Regular/NotoSansMath_400Regular',
].map((name) => createRequire(import.meta.url).resolve(`@expo-google-fonts/${name}.ttf`));

const [regular, bold, symbols] = fontFiles.map(readFont) as [Font, Font, Font];
const UNKNOWN_WIDTH = 0.6; // of a character that no font has

/** Ascent and descent of a line of text, in em. */
export const lineHeight = { ascent: regular.ascent, descent: regular.descent };

/**
 * Measures a line of text.
 * @param size font size in pixels
 * @returns its width in pixels
 */
export function textWidth(text: string, size: number, isBold: boolean): number {
  const font = isBold ? bold : regular;
  const widths = [...text].map((character) => {
    const codePoint = character.codePointAt(0)!;
    return font.width(codePoint) ?? symbols.width(codePoint) ?? UNKNOWN_WIDTH;
  });
  return size * widths.reduce((sum, width) => sum + width, 0);
}
