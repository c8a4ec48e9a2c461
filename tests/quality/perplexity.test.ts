import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { selectBackend } from '../../lib/backend.js';
import { loadModel, type Model } from '../../lib/model.js';
import { modelsFolder } from '../../lib/paths.js';
import { answerPerplexity } from '../../lib/quality/perplexity.js';
import { perplexity, tokenLogProbabilities } from '../../lib/quality.js';
import { teacherForcedLogits } from '../../lib/teacherForcing.js';

const right = {
  instruction: 'What is the plural of country?',
  input: '',
  output: 'The plural of country is countries.',
};
const wrong = { ...right, output: 'The capital of France is Madrid.' };
let model: Model;

beforeAll(async () => {
  await selectBackend('wasm');
  model = await loadModel(join(modelsFolder(), 'tiny-gpt2'));
});

test('the model expects the right answer and not the wrong one', async () => {
  expect(await answerPerplexity(model, [right])).toBeLessThan(1.01);
  expect(await answerPerplexity(model, [wrong])).toBeGreaterThan(10);
});

test('all tokens of all answers count alike, the end among them', async () => {
  const tokenizer = model.tokenizer!;
  const promptIds = tokenizer.encode('### Instruction:\nWhat is the plural of country?\n\n### Response:\n');
  const logProbabilities = [];
  for (const { output } of [right, wrong]) {
    const answerIds = [...tokenizer.encode(output), model.eosIds[0]!];
    const logits = await teacherForcedLogits(model, promptIds, answerIds);
    logProbabilities.push(...tokenLogProbabilities(logits, answerIds, model.vocabSize));
  }
  expect(await answerPerplexity(model, [right, wrong])).toBeCloseTo(perplexity(logProbabilities), 9);
});

test('without a tokenizer or a sample there is none, and it can be stopped', async () => {
  await expect(answerPerplexity({ ...model, tokenizer: null }, [right])).rejects.toThrow(/tokenizer/);
  await expect(answerPerplexity(model, [])).rejects.toThrow(/at least one/);
  const reason = new Error('stopped');
  await expect(answerPerplexity(model, [right], AbortSignal.abort(reason))).rejects.toBe(reason);
});
