// SmolLM2-135M-Instruct, a real model: PyTorch's greedy answers to ten questions, eager and compiled.
// tests/golden-smollm2.json comes from reference/golden_smollm2.py, the model from `sh scripts/smollm2.sh`.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { selectBackend } from '../../lib/backend.js';
import { type CompiledModel, compileModel } from '../../lib/compile.js';
import { collect, type GenerativeModel } from '../../lib/generate.js';
import { loadModel, type Model } from '../../lib/model.js';

interface Answer {
  readonly question: string;
  readonly promptIds: readonly number[];
  readonly newIds: readonly number[];
  readonly text: string;
}

const golden = new URL('../golden-smollm2.json', import.meta.url);
const { answers } = JSON.parse(readFileSync(golden, 'utf8')) as { readonly answers: readonly Answer[] };
const NEW_TOKENS = 64; // most, in reference/golden_smollm2.py
// It takes a minute: npm test leaves it out, unless the folder is named; .ci/run names it.
const folder = process.env.RESPONSE_TIME_SMOLLM2;
const isHere = folder !== undefined && existsSync(join(folder, 'model.safetensors'));
const reason = isHere
  ? 'float32'
  : 'skipped: name its folder, made by sh scripts/smollm2.sh, in RESPONSE_TIME_SMOLLM2';

test.runIf(folder !== undefined)('the folder that RESPONSE_TIME_SMOLLM2 names holds the model', () => {
  expect(isHere, folder).toBe(true);
});

test('ten questions with answers of up to 64 tokens', () => {
  expect(answers).toHaveLength(10);
  for (const { newIds } of answers) expect(newIds.length).toBeLessThanOrEqual(NEW_TOKENS);
});

test('the script that makes the model refuses a folder with other files in it', () => {
  const script = fileURLToPath(new URL('../../scripts/smollm2.sh', import.meta.url));
  const other = fileURLToPath(new URL('.', import.meta.url));
  const { status, stderr } = spawnSync('sh', [script, other], { encoding: 'utf8' });
  expect(stderr).toBe(`smollm2: ${other} holds other files: name an empty folder\n`);
  expect(status).toBe(1);
});

describe.skipIf(!isHere)(`SmolLM2-135M-Instruct (${reason})`, () => {
  let model: Model;
  let compiled: CompiledModel;
  beforeAll(async () => {
    await selectBackend('wasm');
    model = await loadModel(folder!, { scheme: { name: 'f32' } });
    compiled = await compileModel(model, { target: 'wasm' });
  });
  afterAll(async () => {
    await compiled?.dispose();
    model?.dispose();
  });

  const answer = (runs: GenerativeModel, promptIds: readonly number[], useCache = true) =>
    collect(runs, promptIds, { maxNewTokens: NEW_TOKENS, useCache });

  test.each(answers)('$question', async ({ question, promptIds, newIds, text }) => {
    const chat = model.tokenizer!.renderChat([{ role: 'user', content: question }]);
    expect(model.tokenizer!.encode(chat, { addSpecialTokens: false })).toEqual(promptIds);
    for (const runs of [model, compiled]) {
      const found = await answer(runs, promptIds);
      expect(found.newIds).toEqual(newIds);
      expect(found.text).toBe(text);
    }
  });

  test('without the cache the tokens are the same', async () => {
    const { promptIds, newIds } = answers[0]!;
    expect((await answer(model, promptIds, false)).newIds).toEqual(newIds);
  });
});
