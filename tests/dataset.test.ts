import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { evaluationFile, readSamples, samplePrompt, syntheticPrompt } from '../lib/dataset.js';
import type { Tokenizer } from '../lib/tokenizer.js';

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'dataset-'));
});
afterAll(() => rm(scratch, { recursive: true }));

/** A tokenizer that only remembers what it was given. */
function recorder(hasChatTemplate: boolean): { tokenizer: Tokenizer; texts: string[] } {
  const texts: string[] = [];
  const tokenizer = {
    hasChatTemplate,
    encode: (text: string) => [texts.push(text)],
    renderChat: ([message]: { content: string }[]) => `<${message!.content}>`,
  } as unknown as Tokenizer; // the other members are not called
  return { tokenizer, texts };
}

test("the course's evaluation set has 1,000 samples", async () => {
  const samples = await readSamples(evaluationFile());
  expect(samples).toHaveLength(1000);
  expect(Object.keys(samples[0]!)).toEqual(['instruction', 'input', 'output']);
  expect(await readSamples(evaluationFile(), 5)).toEqual(samples.slice(0, 5));
});

test("a prompt takes the model's chat template, or Alpaca's form; an input belongs to the message", () => {
  const sample = { instruction: 'Add.', input: '1 2', output: '3' };
  const chat = recorder(true);
  samplePrompt(chat.tokenizer, sample);
  samplePrompt(chat.tokenizer, { ...sample, input: '' });
  expect(chat.texts).toEqual(['<Add.\n\n### Input:\n1 2>', '<Add.>']);
  const plain = recorder(false);
  samplePrompt(plain.tokenizer, sample);
  expect(plain.texts).toEqual(['### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n']);
});

test('synthetic prompts are ids, the same each time, different by sample', () => {
  const prompt = syntheticPrompt(1, 20, 97);
  expect(prompt).toEqual(syntheticPrompt(1, 20, 97));
  expect(prompt).not.toEqual(syntheticPrompt(2, 20, 97));
  expect(prompt.every((id) => Number.isInteger(id) && id >= 0 && id < 97)).toBe(true);
  expect(new Set(prompt).size).toBe(20);
});

test.each([
  ['no JSON', '[', /expected JSON/],
  ['no list', '{}', /expected a list/],
  ['an empty list', '[]', /expected a list/],
  [
    'a sample without output',
    '[{"instruction":"a","input":"","output":"b"},{"instruction":"a"}]',
    /sample 1: expected \{ instruction/,
  ],
  ['a null', '[null]', /sample 0/],
])('%s: the error names the file', async (_, content, message) => {
  const file = join(scratch, 'data.json');
  await writeFile(file, content);
  await expect(readSamples(file)).rejects.toThrow(message);
  await expect(readSamples(file)).rejects.toThrow('data.json');
});

test('asking for more than there are gives both numbers', async () => {
  await expect(readSamples(evaluationFile(), 1001)).rejects.toThrow(/expected 1001 samples, found 1000/);
  await expect(readSamples(join(scratch, 'nowhere.json'))).rejects.toThrow(
    /nowhere\.json: expected a dataset/,
  );
});

test('a .jsonl file holds a sample a line', async () => {
  const file = join(scratch, 'lines.jsonl');
  const sample = (i: number) => ({ instruction: `q${i}`, input: '', output: `a${i}` });
  await writeFile(file, `${JSON.stringify(sample(0))}\n\n${JSON.stringify({ ...sample(1), id: 7 })}\n`);
  expect(await readSamples(file)).toEqual([sample(0), sample(1)]);
  await writeFile(file, '{"instruction":\n');
  await expect(readSamples(file)).rejects.toThrow(/lines\.jsonl: expected JSON/);
});
