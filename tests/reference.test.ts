import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { gpuFigures } from '../lib/plot/gpu.js';
import { checkRun, readRuns } from '../lib/results.js';

interface Sample {
  readonly instruction: string;
  readonly input: string;
  readonly output: string;
  readonly family: string;
}

const root = join(import.meta.dirname, '..');
const readJson = <Value>(path: string) => JSON.parse(readFileSync(join(root, path), 'utf8')) as Value;
const evaluation = readJson<Sample[]>('data/instructions-eval.json');
const training = readJson<Sample[]>('data/instructions-train.json');
const keyOf = ({ instruction, input }: Sample) => JSON.stringify([instruction, input]);
const hasPython = spawnSync('python3', ['-c', 'import sys; assert sys.version_info >= (3, 10)']).status === 0;

function folderBytes(path: string): number {
  const entries = readdirSync(join(root, path), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0);
}

describe('instruction dataset', () => {
  test('has 1,000 different evaluation samples of Alpaca schema in a dozen or more families', () => {
    expect(evaluation).toHaveLength(1000);
    expect(new Set(evaluation.map(keyOf)).size).toBe(1000);
    expect(new Set(evaluation.map(({ family }) => family)).size).toBeGreaterThanOrEqual(12);
    for (const { instruction, input, output } of [...evaluation, ...training]) {
      expect([typeof instruction, typeof input, typeof output]).toEqual(['string', 'string', 'string']);
      expect(instruction.length * output.length).toBeGreaterThan(0);
    }
  });

  test('shares no (instruction, input) between training and evaluation', () => {
    const heldOut = new Set(evaluation.map(keyOf));
    expect(training.filter((sample) => heldOut.has(keyOf(sample)))).toEqual([]);
  });

  test.skipIf(!hasPython)('comes out of its script byte for byte (skipped without Python 3.10)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'dataset-'));
    try {
      execFileSync('python3', ['reference/make_dataset.py', '--data', folder], { cwd: root });
      for (const file of ['instructions-eval.json', 'instructions-train.json']) {
        expect(readFileSync(join(folder, file)).equals(readFileSync(join(root, 'data', file))), file).toBe(
          true,
        );
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('embedded models', () => {
  const records = readJson<{ model: string; parameters: number; evaluation: { rougeL: number } }[]>(
    'results/reference/training-tiny.json',
  );

  test.each(['tiny-gpt2', 'tiny-mistral'])('%s is small and answered well when it was trained', (name) => {
    const record = records.find(({ model }) => model === name);
    expect(record?.parameters).toBeGreaterThan(2e6);
    expect(record?.parameters).toBeLessThan(3.8e6);
    expect(record?.evaluation.rougeL).toBeGreaterThan(0.8);
    expect(folderBytes(`data/models/${name}`)).toBeLessThan(8e6);
  });
});

test('the committed record of PyTorch is a list of Runs', () => {
  const file = 'results/reference/baseline-pytorch-cpu.json';
  const runs = readJson<unknown[]>(file).map((run) => checkRun(run, file));
  expect(runs.map(({ model, label }) => `${model.name}: ${label}`)).toEqual([
    'gpt2: PyTorch',
    'gpt2: PyTorch compile',
    'gpt2: PyTorch INT8',
    'tiny-gpt2: PyTorch',
    'tiny-gpt2: PyTorch INT8',
  ]);
  expect(runs.every(({ target, runtime }) => target === 'pytorch' && runtime.name === 'python')).toBe(true);
});

test('the golden files stay under 3 MB', () => {
  expect(folderBytes('tests/golden')).toBeLessThan(3e6);
});

test('the committed Runs of a GPU say that their weights are random, and have their pictures beside them', async () => {
  const folder = join(root, 'results/reference/webgpu-h200');
  const runs = await readRuns(folder);
  expect(runs.length).toBeGreaterThan(5);
  for (const { model, machine, commit } of runs) {
    expect(model.randomWeights).toBe(true);
    expect(machine.gpu).toBeTruthy();
    expect(commit).toMatch(/^[0-9a-f]{7,40}$/);
  }
  const pictures = readdirSync(folder).filter((name) => name.endsWith('.png'));
  expect(pictures).toEqual([...gpuFigures(runs).keys()].map((name) => `${name}.png`).sort());
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  for (const name of pictures) expect(readme).toContain(`results/reference/webgpu-h200/${name}`);
});
