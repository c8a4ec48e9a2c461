// bench/webgpuCheck.ts: `node bench/dist/webgpuCheck.js`: models on this machine's GPU against the same models op by op on
// the CPU: greedy tokens and the logits of the prompt, for every scheme and mode. What the CPU says can be kept in a file
// and taken along to a machine whose CPU need not do it again.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { selectBackend } from 'response-time/backend';
import { compileModel } from 'response-time/compile';
import { buildTree } from 'response-time/convert';
import { collect } from 'response-time/generate';
import { closeTarget } from 'response-time/jit';
import { loadModel, type Model } from 'response-time/model';
import { modelsFolder } from 'response-time/paths';
import type { SchemeName } from 'response-time/quantize';
import { float32Values, floatWeight, weightEntries } from 'response-time/tensor';

export const HELP = `node bench/dist/webgpuCheck.js [options]

Compares models on this machine's GPU with the same models op by op on the CPU, and says PASS or FAIL for each.
  --models NAMES      embedded models or folders, by comma (default: tiny-mistral,tiny-gpt2)
  --tokens COUNT      greedy tokens that have to be the same (default: 64)
  --expected FILE     what the CPU said: read if it is there, else computed and written
  --cpu-only          writes that file and ends
`;

/** Float Weights: the limit of float32, or of float16 in a prompt; see planTakesHalves in lib/jit/targets/webgpu. */
const FLOAT32 = 1e-5;
const HALVES = 2e-3;
/** Of mode fast, whose measure is the quality gate: only a mistake would come to more. */
const FAST = 5e-2;

type Form = 'float32' | SchemeName;
/** float32: the stored Weights widened. Stored bfloat16 is computed in float32, too. */
const cases: readonly (readonly [Form, 'exact' | 'fast'])[] = [
  ['float32', 'exact'],
  ['stored', 'exact'],
  ['int8', 'exact'],
  ['int8', 'fast'],
  ['int4', 'exact'],
  ['int4', 'fast'],
];
const promptLengths = [5, 40];

interface Answer {
  readonly newIds: readonly number[];
  readonly logits: readonly number[];
}
type Expected = Record<string, Answer>;

async function modelOf(folder: string, form: Form): Promise<Model> {
  if (form !== 'float32') return loadModel(folder, { scheme: { name: form } });
  const model = await loadModel(folder);
  const widened = Array.from(
    weightEntries(model.params),
    ([path, weight]) => [path, floatWeight(float32Values(weight), weight.shape)] as const,
  );
  return { ...model, params: buildTree(widened) };
}

const folderOf = (name: string): string => (existsSync(name) ? resolve(name) : join(modelsFolder(), name));

/** Ids that any vocabulary has. */
const promptOf = (length: number): number[] => Array.from({ length }, (_, i) => (i * 37 + 11) % 2000);

function toleranceOf(model: Model, form: Form, mode: 'exact' | 'fast'): number {
  if (mode === 'fast') return FAST;
  const isNarrow = Array.from(weightEntries(model.params)).some(
    ([, weight]) => weight.kind !== 'float' || weight.dtype === 'f16',
  );
  return form === 'float32' || !isNarrow ? FLOAT32 : HALVES;
}

async function answer(model: Parameters<typeof collect>[0], length: number, tokens: number): Promise<Answer> {
  const options = { maxNewTokens: tokens, keepLogits: true, ignoreEos: true };
  const { newIds, logits } = await collect(model, promptOf(length), options);
  return { newIds, logits: Array.from(logits!, Math.fround) };
}

async function expectedOf(
  names: readonly string[],
  tokens: number,
  file: string | undefined,
): Promise<Expected> {
  if (file && existsSync(file)) {
    await selectBackend('cpu'); // for the tensors that go in
    return JSON.parse(readFileSync(file, 'utf8')) as Expected;
  }
  const { device } = await selectBackend('auto');
  console.log(`# expected: op by op on ${device}`);
  const expected: Expected = {};
  for (const name of names) {
    for (const form of new Set(cases.map(([each]) => each))) {
      const model = await modelOf(folderOf(name), form);
      for (const length of promptLengths)
        expected[`${basename(name)} ${form} ${length}`] = await answer(model, length, tokens);
      model.dispose();
    }
  }
  if (file) writeFileSync(file, JSON.stringify(expected));
  return expected;
}

/** @returns whether it passed */
async function check(name: string, expected: Expected, tokens: number): Promise<boolean> {
  let passed = true;
  for (const [form, mode] of cases) {
    const model = await modelOf(folderOf(name), form);
    const tolerance = toleranceOf(model, form, mode);
    const compiled = await compileModel(model, { target: 'webgpu', mode });
    for (const length of promptLengths) {
      const key = `${basename(name)} ${form} ${length}`;
      const known = expected[key];
      if (!known) throw new Error(`--expected: nothing about ${key}: delete the file to compute it anew`);
      const found = await answer(compiled, length, tokens);
      const most = Math.max(...known.logits.map(Math.abs));
      const error = Math.max(...known.logits.map((value, i) => Math.abs(value - found.logits[i]!))) / most;
      const differs = known.newIds.findIndex((id, i) => id !== found.newIds[i]);
      const holds = error <= tolerance && (mode === 'fast' || differs < 0);
      passed &&= holds;
      const text = differs < 0 ? `${tokens} tokens the same` : `token ${differs} differs`;
      console.log(
        `${holds ? 'PASS' : 'FAIL'} ${basename(name)} ${form} ${mode} prompt ${length}: ` +
          `logits ${error.toExponential(1)} of ${tolerance}, ${text}`,
      );
    }
    await compiled.dispose();
    model.dispose();
  }
  return passed;
}

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({
    options: { models: text, tokens: text, expected: text, 'cpu-only': flag, help: flag },
  });
  if (values.help) return void process.stdout.write(HELP);
  const names = (values.models ?? 'tiny-mistral,tiny-gpt2').split(',');
  const tokens = Number(values.tokens ?? 64);
  const expected = await expectedOf(names, tokens, values.expected);
  if (values['cpu-only']) return;
  for (const name of names) if (!(await check(name, expected, tokens))) process.exitCode = 1;
  await closeTarget('webgpu');
}

await main();
process.exit(); // a device that is still open keeps the process
