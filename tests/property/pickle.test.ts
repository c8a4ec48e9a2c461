// Whatever stands in a pickled checkpoint, reading it gives tensors inside the file or an error that names it.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { storedBytes } from '../../lib/checkpoint/entry.js';
import { spanBytes } from '../../lib/checkpoint/strided.js';
import { readPickledHeader } from '../../lib/pickle.js';
import { dictPickle, op, tensorPickle, torchFile } from '../torchFiles.js';

const pickle = dictPickle({
  a: tensorPickle({ elements: 6, shape: [2, 3], strides: [3, 1] }),
  b: tensorPickle({
    storage: '1',
    type: 'HalfStorage',
    elements: 4,
    offset: 1,
    shape: [1, 2],
    strides: [1, 2],
  }),
  n: op.int(5),
});
const storages = { 0: new Uint8Array(24), 1: new Uint8Array(8) };

async function check(bytes: Uint8Array): Promise<'read' | 'refused'> {
  const read = async (start: number, end: number) => {
    expect(start).toBeGreaterThanOrEqual(0);
    expect(end).toBeLessThanOrEqual(bytes.length);
    return bytes.slice(start, end);
  };
  const header = await readPickledHeader({ file: 'some.bin', fileBytes: bytes.length, read }).catch(
    (error: Error) => error,
  );
  if (header instanceof Error) {
    expect(header.message).toMatch(/^some.bin: /);
    expect(header).not.toBeInstanceOf(TypeError);
    return 'refused';
  }
  for (const entry of header.entries.values()) {
    expect(entry.bytes).toBe(storedBytes(entry.dtype, entry.shape));
    const span = entry.strides ? spanBytes(entry) : entry.bytes;
    expect(entry.start).toBeGreaterThanOrEqual(0);
    expect(entry.start + span).toBeLessThanOrEqual(bytes.length);
  }
  return 'read';
}

/** Any byte, and more often those that are instructions. */
const byte = fc.oneof(
  fc.integer({ min: 0, max: 255 }),
  fc.constantFrom(0, 1, 255, ...Buffer.from('cRQb().tuXJKMhqr0}]i')),
);
const changes = (length: number) =>
  fc.array(fc.tuple(fc.nat(length - 1), byte), { minLength: 1, maxLength: 3 });

function changed(bytes: Uint8Array, places: readonly (readonly [number, number])[]): Uint8Array {
  const copy = bytes.slice();
  for (const [at, value] of places) copy[at] = value;
  return copy;
}

test('1,200 pickles with bytes exchanged', async () => {
  const outcomes = new Set<string>();
  const property = fc.asyncProperty(changes(pickle.length), async (places) => {
    outcomes.add(await check(torchFile(changed(pickle, places), storages)));
  });
  await fc.assert(property, { numRuns: 1200 });
  expect(outcomes.size).toBe(2);
});

test('800 zips with bytes exchanged or cut off', async () => {
  for (const wide of [false, true]) {
    const whole = torchFile(pickle, storages, { wide });
    expect(await check(whole)).toBe('read');
    const property = fc.asyncProperty(
      changes(whole.length),
      fc.nat(3 * whole.length),
      async (places, length) => {
        await check(changed(whole, places).subarray(0, length));
      },
    );
    await fc.assert(property, { numRuns: 400 });
  }
});
