// An index or a quantized file's description may say anything: what loads is right, the rest is refused by name.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeHeader } from '../../lib/checkpoint/header.js';
import { type Checkpoint, openCheckpoint } from '../../lib/checkpoint.js';
import { readSavedWeight, savedFormat, scalesShape } from '../../lib/convert/saved.js';
import { float32Values, sizeOf } from '../../lib/tensor.js';
import { temporaryFolder, writeTensors } from '../checkpointFiles.js';

const shard = fc.constantFrom<unknown>(
  'one.safetensors',
  'two.safetensors',
  '../one.safetensors',
  'no.bin',
  7,
  null,
  {},
);
const weightMap = fc.dictionary(fc.constantFrom('a', 'b', 'c', '__proto__'), shard, { maxKeys: 4 });
const index = fc.oneof(
  weightMap.map((map) => JSON.stringify({ weight_map: map })),
  fc.json({ maxDepth: 2 }),
  fc.tuple(fc.nat(60), fc.constantFrom('', '"', '{', ':', ',')).map(([at, character]) => {
    const text = '{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}';
    return text.slice(0, at) + character + text.slice(at + 1);
  }),
);

test('400 indexes', async () => {
  const folder = join(temporaryFolder(), 'model');
  mkdirSync(folder);
  writeTensors(join(folder, 'one.safetensors'), { a: [[1], [1]] });
  writeTensors(join(folder, 'two.safetensors'), { b: [[1], [2]] });
  const check = async (text: string): Promise<void> => {
    writeFileSync(join(folder, 'model.safetensors.index.json'), text);
    try {
      const checkpoint = await openCheckpoint(folder);
      const values = { a: 1, b: 2 };
      for (const name of checkpoint.names()) {
        expect(float32Values(await checkpoint.read(name))[0]).toBe(values[name as 'a']);
      }
      await checkpoint.close();
    } catch (error) {
      expect((error as Error).message).toContain(folder);
    }
  };
  await fc.assert(fc.asyncProperty(index, check), { numRuns: 400 });
});

test('400 descriptions of a quantized tensor', async () => {
  const file = join(temporaryFolder(), 'model.safetensors');
  const entries = [
    { name: 'x', dtype: 'i8', shape: [6, 4] },
    { name: 'x.scales', dtype: 'f32', shape: [4] },
  ] as const;
  const header = encodeHeader(entries, { format: savedFormat });
  writeFileSync(file, new Uint8Array([...header, ...new Uint8Array(24 + 16)]));
  const saved = await openCheckpoint(file);
  const part = fc.record({
    kind: fc.constantFrom('int8', 'int8', 'int4', 'float', null),
    shape: fc.oneof(fc.constant([6, 4]), fc.array(fc.integer({ min: -1, max: 30 }), { maxLength: 3 })),
    granularity: fc.record(
      {
        per: fc.constantFrom('channel', 'channel', 'tensor', 'group', 'row'),
        axis: fc.constantFrom(1, 0, 2, '1'),
        size: fc.constantFrom(32, 1, 0, -4, 2.5, '64'),
      },
      { requiredKeys: [] },
    ),
  });
  const check = async (layout: unknown): Promise<void> => {
    const metadata = { ...saved.metadata, x: JSON.stringify(layout) };
    const described: Checkpoint = Object.create(saved, { metadata: { value: metadata } });
    described.entry = (name) => saved.entry(name);
    described.readBytes = (name) => saved.readBytes(name);
    try {
      const weight = await readSavedWeight(described, 'x');
      expect(weight.kind).toBe('int8');
      expect(weight.shape).toEqual([6, 4]);
      if (weight.kind === 'int8') expect(weight.scales).toHaveLength(sizeOf(scalesShape(weight)));
      expect(float32Values(weight).every((value) => value === 0)).toBe(true);
    } catch (error) {
      expect((error as Error).message).toContain(file);
    }
  };
  await check({ kind: 'int8', shape: [6, 4], granularity: { per: 'channel', axis: 1 } });
  await fc.assert(fc.asyncProperty(part, check), { numRuns: 400 });
  await saved.close();
});
