// Every golden case against PyTorch, on the cpu and the wasm backend: each layer, the logits, the greedy tokens.
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { selectBackend } from '../lib/backend.js';
import { allocate, disposeCache } from '../lib/cache.js';
import { openCheckpoint } from '../lib/checkpoint.js';
import { loadParams } from '../lib/convert.js';
import { diagnose, observeStates } from '../lib/diagnose.js';
import { forwardInput } from '../lib/forward.js';
import { collect } from '../lib/generate.js';
import { loadModel, type Model } from '../lib/model.js';
import { cacheSpecOf } from '../lib/models/layers.js';
import { weightEntries } from '../lib/tensor.js';
import { type Expected, goldenCases, readAllExpected } from './goldenCases.js';
import { relativeError } from './smallModel.js';

const TOLERANCE = 1e-5;

describe.each(['cpu', 'wasm'] as const)('on %s', (backend) => {
  beforeAll(async () => {
    await selectBackend(backend);
  });

  // Eight layers of the trained models take long on cpu, which is there for exactness: the random shapes do for it.
  const cases = goldenCases.filter(({ name }) => backend === 'wasm' || !name.startsWith('tiny-'));

  describe.each(cases)('$name: $note', (golden) => {
    let model: Model;
    let expected: Expected[];
    beforeAll(async () => {
      model = await loadModel(golden.folder);
      expected = await readAllExpected(golden);
    });
    afterAll(() => model.dispose());

    test('every layer and the logits', () => {
      for (const { promptIds, states } of expected) {
        const observed = observeStates(model.network, model.params, promptIds);
        expect([...observed.keys()]).toEqual([...states.keys()]);
        for (const [name, values] of observed) {
          expect(relativeError(values, states.get(name)!), name).toBeLessThan(TOLERANCE);
        }
        const verdict = diagnose({
          reference: model.networkWith,
          params: model.params,
          tokens: promptIds,
          golden: states,
        });
        expect(verdict).toMatchObject({ first: null, cause: 'none' });
      }
    });

    test('the greedy tokens, cached and uncached', async () => {
      for (const { promptIds, greedyIds } of expected) {
        for (const useCache of [true, false]) {
          const options = { maxNewTokens: greedyIds.length, ignoreEos: true, useCache };
          expect((await collect(model, promptIds, options)).newIds).toEqual(greedyIds);
        }
      }
    });

    test('the logits of a batch with unequal lengths', async () => {
      const rows = expected.map(({ promptIds }) => promptIds);
      const input = forwardInput(
        rows,
        rows.map(() => 0),
      );
      const capacity = Math.max(...rows.map((row) => row.length));
      for (const layout of ['growing', 'fixed'] as const) {
        const cache = allocate(cacheSpecOf(model.config, capacity), rows.length, layout);
        const output = tf.tidy(() => {
          const { logits } = model.forwardFunction(model.params, input, cache);
          return logits.dataSync() as Float32Array;
        });
        disposeCache(cache);
        for (const [row, { states }] of expected.entries()) {
          const last = states.get('logits')!.slice(-model.vocabSize);
          const found = output.subarray(row * model.vocabSize, (row + 1) * model.vocabSize);
          expect(relativeError(found, last), `row ${row}, ${layout}`).toBeLessThan(TOLERANCE);
        }
      }
    });
  });
});

const pickledCases = goldenCases.filter(({ pickled }) => pickled !== null);

test.each(pickledCases)(
  '$name: safetensors and torch.save give the same parameters bit for bit',
  async (golden) => {
    const model = await loadModel(golden.folder);
    const checkpoint = await openCheckpoint(golden.pickled!);
    const params = await loadParams(checkpoint, model.weightMap);
    await checkpoint.close();
    const pickled = [...weightEntries(params)];
    const stored = [...weightEntries(model.params)];
    expect(pickled.map(([path]) => path)).toEqual(stored.map(([path]) => path));
    for (const [i, [path, weight]] of stored.entries()) {
      expect(pickled[i]![1].shape).toEqual(weight.shape);
      expect(Buffer.compare(pickled[i]![1].bytes as Uint8Array, weight.bytes as Uint8Array), path).toBe(0);
    }
  },
);

test('there are cases of both families, pickled ones, and both trained models', () => {
  const names = goldenCases.map(({ name }) => name);
  for (const prefix of ['gpt2-', 'mistral-', 'llama-', 'tiny-gpt2', 'tiny-mistral']) {
    expect(
      names.some((name) => name.startsWith(prefix)),
      prefix,
    ).toBe(true);
  }
  expect(pickledCases.length).toBeGreaterThanOrEqual(2);
});
