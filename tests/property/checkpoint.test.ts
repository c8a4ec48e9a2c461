// Whatever a header says, the reader either gives tensors that lie inside the file or names what is wrong.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { storedBytes } from '../../lib/checkpoint/entry.js';
import { parseHeader } from '../../lib/checkpoint/header.js';
import { openCheckpoint } from '../../lib/checkpoint.js';
import { safetensorsBytes, temporaryFolder } from '../checkpointFiles.js';

const dataBytes = 64;
const valid = {
  __metadata__: { format: 'pt' },
  'h.0.attn.weight': { dtype: 'F32', shape: [2, 4], data_offsets: [0, 32] },
  'h.0.attn.bias': { dtype: 'F16', shape: [4], data_offsets: [32, 40] },
  empty: { dtype: 'BF16', shape: [0, 7], data_offsets: [40, 40] },
  mask: { dtype: 'BOOL', shape: [3, 8], data_offsets: [40, 64] },
};

const oddValue = fc.oneof(
  fc.integer({ min: -8, max: 80 }),
  fc.constantFrom(0, -0, 1.5, 2 ** 31, 2 ** 53, -1, 1e308, null, true, '', 'F32', 'F7', '__proto__', [], {}),
  fc.array(fc.integer({ min: -2, max: 70 }), { maxLength: 4 }),
  fc.jsonValue({ maxDepth: 2 }),
);

/** The valid header with one field of one tensor exchanged. */
const exchangedField = fc
  .tuple(fc.constantFrom(...Object.keys(valid)), fc.constantFrom('dtype', 'shape', 'data_offsets'), oddValue)
  .map(([name, field, value]) =>
    JSON.stringify({ ...valid, [name]: { ...valid[name as 'mask'], [field]: value } }),
  );

/** The valid header with some of its characters exchanged, removed or doubled. */
const exchangedText = fc
  .array(fc.tuple(fc.nat(400), fc.constantFrom('', '"', '{', '}', '[', ',', '9', '-', '\\', '\u0000', 'F')), {
    minLength: 1,
    maxLength: 4,
  })
  .map((changes) =>
    changes.reduce(
      (text, [at, character]) => text.slice(0, at) + character + text.slice(at + 1),
      JSON.stringify(valid),
    ),
  );

test('600 headers with a field exchanged, 600 with characters exchanged', () => {
  const check = (json: string): void => {
    const bytes = new TextEncoder().encode(json);
    const dataStart = 8 + bytes.length;
    const fileBytes = dataStart + dataBytes;
    try {
      const { entries } = parseHeader(bytes, { file: 'some.safetensors', dataStart, fileBytes });
      let end = dataStart;
      for (const entry of [...entries.values()]
        .filter(({ bytes }) => bytes > 0)
        .sort((a, b) => a.start - b.start)) {
        expect(entry.start).toBeGreaterThanOrEqual(end);
        end = entry.start + entry.bytes;
        expect(entry.bytes).toBe(storedBytes(entry.dtype, entry.shape));
      }
      expect(end).toBeLessThanOrEqual(fileBytes);
    } catch (error) {
      expect((error as Error).message).toMatch(/^some.safetensors: .*(expected|needs|twice|overlap)/s);
    }
  };
  fc.assert(fc.property(exchangedField, check), { numRuns: 600 });
  fc.assert(fc.property(exchangedText, check), { numRuns: 600 });
  expect(() => check(JSON.stringify(valid))).not.toThrow();
});

test('200 files with bytes exchanged or cut off are read or refused by name', async () => {
  const file = join(temporaryFolder(), 'model.safetensors');
  const whole = safetensorsBytes(valid, new Uint8Array(dataBytes));
  const change = fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 0, max: 255 }), fc.nat(whole.length));
  await fc.assert(
    fc.asyncProperty(change, async ([at, byte, length]) => {
      const bytes = whole.slice(0, length % 3 === 0 ? length : whole.length);
      if (at < bytes.length) bytes[at] = byte;
      writeFileSync(file, bytes);
      try {
        const checkpoint = await openCheckpoint(file);
        for (const name of checkpoint.names()) await checkpoint.readBytes(name);
        await checkpoint.close();
      } catch (error) {
        expect((error as Error).message).toContain(file);
      }
    }),
    { numRuns: 200 },
  );
});
