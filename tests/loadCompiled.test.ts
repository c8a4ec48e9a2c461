import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadCompiled } from '../lib/compile/load.js';
import { compileModel } from '../lib/compile.js';
import { collect } from '../lib/generate.js';
import { bindWeight, closeTarget, targetMemory } from '../lib/jit/jit.js';
import { loadModel } from '../lib/model.js';
import { weightEntries } from '../lib/tensor.js';
import { goldenCases } from './goldenCases.js';
import { useCpu } from './smallModel.js';

const folderOf = (name: string) => goldenCases.find((golden) => golden.name === name)!.folder;
const prompt = [5, 9, 17, 3];

beforeAll(useCpu);
afterAll(() => closeTarget('reference'));

test('a model loaded into a target writes what it writes when it is compiled after loading', async () => {
  const folder = folderOf('gpt2-inner');
  const loaded = await loadCompiled(folder, { target: 'wasm', scheme: { name: 'int8' } });
  const model = await loadModel(folder, { scheme: { name: 'int8' } });
  const compiled = await compileModel(model, { target: 'wasm' });
  const options = { maxNewTokens: 8, ignoreEos: true };
  const expected = await collect(compiled, prompt, options);
  expect((await collect(loaded.compiled, prompt, options)).newIds).toEqual(expected.newIds);
  expect(loaded.model.weightBytes).toBe(model.weightBytes);
  await loaded.compiled.dispose();
  await compiled.dispose();
});

describe('a Weight is moved as soon as it is read', () => {
  test('none is here any more when the last one has come', async () => {
    const here: number[] = [];
    const model = await loadModel(folderOf('gpt2-inner'), {
      scheme: { name: 'int4' },
      place: async (path, weight) => {
        here.push(weight.bytes.length);
        await bindWeight(weight, path, 'reference');
      },
    });
    const weights = [...weightEntries(model.params)];
    expect(here).toHaveLength(weights.length);
    for (const [path, weight] of weights)
      expect(() => weight.bytes).toThrow(new RegExp(`${path.replaceAll('.', '\\.')} .* was moved`));
    expect(model.weightBytes).toBeGreaterThan(0);
    const compiled = await compileModel(model, { target: 'reference', moveWeights: true });
    expect((await collect(compiled, prompt, { maxNewTokens: 2, ignoreEos: true })).newIds).toHaveLength(2);
    await compiled.dispose();
  });

  test('a load that fails leaves nothing in the target', async () => {
    const before = targetMemory('reference').weightBytes;
    const missing = loadCompiled('no/such/folder', { target: 'reference' });
    await expect(missing).rejects.toThrow(/config\.json: not found/);
    expect(targetMemory('reference').weightBytes).toBe(before);
  });
});
