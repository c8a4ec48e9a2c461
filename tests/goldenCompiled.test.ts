// Every golden case on the compiled targets: the logits and the greedy tokens of PyTorch, from one compiled loop.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CompiledModel, compileModel } from '../lib/compile.js';
import { collect } from '../lib/generate.js';
import { loadModel } from '../lib/model.js';
import type { SchemeName } from '../lib/quantize.js';
import { type Expected, goldenCases, readAllExpected } from './goldenCases.js';
import { relativeError, useCpu } from './smallModel.js';
import { hasWebgpu, webgpuReason } from './webgpu.js';

beforeAll(useCpu);

const isTrained = (name: string) => name.startsWith('tiny-');

const targets = [
  ['reference', 'interpreted', true],
  ['wasm', 'in threads', true],
  ['webgpu', webgpuReason, hasWebgpu],
] as const;

describe.each(targets)('on the %s target (%s)', (target, _, isHere) => {
  // The interpreter is the oracle, and slow: it takes the random shapes, which have all that the trained models have.
  const cases = goldenCases.filter(({ name }) => target !== 'reference' || !isTrained(name));

  describe.skipIf(!isHere).each(cases)('$name', (golden) => {
    let compiled: CompiledModel;
    let expected: Expected[];
    beforeAll(async () => {
      compiled = await compileModel(await loadModel(golden.folder), { target });
      expected = await readAllExpected(golden);
    });
    afterAll(() => compiled.dispose());

    test('the logits within 1e-5 of the largest, and the greedy tokens', async () => {
      for (const { promptIds, states, greedyIds } of expected) {
        const options = { maxNewTokens: greedyIds.length, ignoreEos: true, keepLogits: true };
        const { newIds, logits } = await collect(compiled, promptIds, options);
        expect(newIds).toEqual(greedyIds);
        expect(relativeError(logits!, states.get('logits')!.slice(-compiled.vocabSize))).toBeLessThan(1e-5);
      }
    });
  });
});

const bounds: [SchemeName, number][] = [
  ['int8', 2e-3],
  ['int8-tensor', 2e-3],
  ['int8-group', 2e-3],
  ['int4', 5e-3],
];

// Integer weights meet activations rounded to 16 bits (int8) or at least 11 (int4): eager keeps them in float32.
describe.each(goldenCases.filter(({ name }) => isTrained(name)))('$name on wasm, quantized', (golden) => {
  test.each(bounds)('%s: logits within %d of the eager model with the same weights', async (name, bound) => {
    const model = await loadModel(golden.folder, { scheme: { name } });
    const compiled = await compileModel(model, { target: 'wasm' });
    const [{ promptIds }] = (await readAllExpected(golden)) as [Expected];
    const options = { maxNewTokens: 1, keepLogits: true };
    const eager = await collect(model, promptIds, options);
    const found = await collect(compiled, promptIds, options);
    await compiled.dispose();
    model.dispose();
    expect(relativeError(found.logits!, eager.logits!)).toBeLessThan(bound);
  });
});
