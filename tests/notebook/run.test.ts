import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Notebook, readNotebook } from '../../lib/notebook/document.js';
import { NotebookError, runNotebook } from '../../lib/notebook/run.js';
import { cell, saveNotebook, streamText, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
const parameters = cell("let samples = 20;\nlet model = 'tiny';", 'parameters');
const outputsOf = (notebook: Notebook, index: number) => notebook.cells[index]!.outputs!;

/** Runs a notebook that must fail. @returns the error, the saved notebook, and how long it took */
async function fail(name: string, cells: Parameters<typeof saveNotebook>[2][], options = {}) {
  const path = saveNotebook(folder, name, ...cells);
  const output = join(folder, `${name}.out.ipynb`);
  const startMs = performance.now();
  const error = await runNotebook(path, { output, ...options }).catch((thrown: unknown) => thrown);
  const seconds = (performance.now() - startMs) / 1000;
  expect(error).toBeInstanceOf(NotebookError);
  return { error: error as NotebookError, saved: readNotebook(output), seconds };
}

process.env.TMPDIR = folder; // connection folders go here

// Side by side: most of a kernel's second is waiting.
describe.concurrent('runNotebook', { timeout: 180_000 }, () => {
  test('runs with parameters, sets the results folder, collapses progress lines and saves', async () => {
    const path = saveNotebook(
      folder,
      'good',
      parameters,
      '## Work',
      "for (let i = 0; i < 3; i++) process.stdout.write('\\r' + i + ' of ' + samples);\nconsole.log();",
      'process.env.RESPONSE_TIME_RESULTS + model',
    );
    const output = join(folder, 'deep', 'good.ipynb');
    const cells: string[] = [];
    const run = await runNotebook(path, {
      output,
      parameters: { samples: 5 },
      env: { RESPONSE_TIME_RESULTS: '/results/' },
      onProgress: ({ cell, done, total }) => cells.push(`${done}/${total} ${cell}`),
    });
    const saved = readNotebook(output);
    expect(run.output).toBe(output);
    expect(cells).toEqual([
      '0/4 cell 1 (parameters)',
      '1/4 cell 2 (injected-parameters)',
      '2/4 cell 4 (Work)',
      '3/4 cell 5 (Work)',
    ]);
    expect(saved.cells[1]!.source).toContain('samples = 5;');
    expect(streamText(outputsOf(saved, 3))).toBe('2 of 5\n');
    expect(outputsOf(saved, 4)).toMatchObject([{ data: { 'text/plain': '/results/tiny' } }]);
    expect(saved.cells[4]!.execution_count).toBe(4);
    expect(readNotebook(path).cells).toHaveLength(4); // the input stays as it was
  });

  test('names the cell of an error, keeps the outputs before it, and runs nothing after it', async () => {
    const { error, saved } = await fail('error', [
      "console.log('before')",
      '# Weights',
      "throw new TypeError('odd')",
      '1',
    ]);
    expect(error.cell).toBe('cell 3 (Weights)');
    expect(error.message).toContain('cell 3 (Weights): TypeError: odd');
    expect(streamText(outputsOf(saved, 0))).toBe('before\n');
    expect(outputsOf(saved, 2)).toMatchObject([{ output_type: 'error', ename: 'TypeError', evalue: 'odd' }]);
    expect(outputsOf(saved, 3)).toEqual([]);
  });

  test('ends a cell at its time limit', async () => {
    const { error, saved } = await fail('slow', ["console.log('started');\nwhile (true) {}"], {
      timeoutMs: 4000,
    });
    expect(error.message).toContain('cell 1: TimeoutError: ran longer than its limit of 4 s');
    expect(streamText(outputsOf(saved, 0))).toBe('started\n');
  });

  test('says within seconds when the kernel is killed', async () => {
    const { error, saved } = await fail('killed', [
      "console.log('alive'); await new Promise((done) => setTimeout(done, 200));",
      cell("process.kill(process.pid, 'SIGKILL'); await new Promise(() => {});", 'the-last'),
    ]);
    expect(error.message).toMatch(/cell 2 \(the-last\): DeadKernelError: the kernel was killed \(SIGKILL\)/);
    expect(streamText(outputsOf(saved, 0))).toBe('alive\n');
    expect(outputsOf(saved, 1)).toMatchObject([{ output_type: 'error', ename: 'DeadKernelError' }]);
  });

  test('says so when the kernel runs out of memory', async () => {
    const code = 'const kept: object[] = [];\nfor (;;) kept.push(new Array(1000).fill(0).map(() => ({})));';
    const { error } = await fail('memory', [code], { nodeArguments: ['--max-old-space-size=200'] });
    expect(error.message).toContain('cell 1: DeadKernelError: the kernel ran out of memory');
  });

  test('blames the cell whose promise is rejected while another runs', async () => {
    const { error, saved } = await fail('late', [
      "setTimeout(() => { void Promise.reject(new Error('nobody waits')); }, 300); 1",
      'await new Promise((done) => setTimeout(done, 20_000));',
    ]);
    expect(error.message).toContain('cell 1: Error: nobody waits');
    expect(outputsOf(saved, 0)).toMatchObject([{ output_type: 'execute_result' }, { output_type: 'error' }]);
  });

  test('runs solutions in place of starters, and fails when one does not pass', async () => {
    const starter = cell('const answer = (): number | undefined => undefined;', 'exercise');
    const checking =
      "import { exercise } from 'response-time/notebook/display';\nawait exercise('six', answer, (n) => n === 6);";
    const solution = (code: string) =>
      cell(`<details>\n\n\`\`\`ts\n${code}\n\`\`\`\n\n</details>`, 'solution');
    const right = solution('const answer = (): number | undefined => 6;');
    const path = saveNotebook(folder, 'exercise', starter, checking, right);
    const output = join(folder, 'exercise.out.ipynb');
    await runNotebook(path, { output });
    expect(streamText(outputsOf(readNotebook(output), 1))).toContain('Exercise six: not yet');
    await runNotebook(path, { output, solveExercises: true });
    expect(streamText(outputsOf(readNotebook(output), 1))).toBe('Exercise six: passes\n');
    const wrong = solution('const answer = (): number | undefined => 7;');
    const { error } = await fail('wrong', [starter, checking, wrong], { solveExercises: true });
    expect(error.message).toContain('Exercise six: FAIL: received 7');
  });

  test('Ctrl-C kills the kernel and saves what there is', async () => {
    const path = saveNotebook(folder, 'abort', "console.log('one')", 'await new Promise(() => {});');
    const output = join(folder, 'abort.out.ipynb');
    const controller = new AbortController();
    const reason = new Error('Ctrl-C');
    const onProgress = ({ done }: { done: number }) => {
      if (done === 1) setTimeout(() => controller.abort(reason), 300);
    };
    await expect(runNotebook(path, { output, signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(streamText(outputsOf(readNotebook(output), 0))).toBe('one\n');
  });
});

test('an unknown parameter runs nothing and lists the known ones', async () => {
  const path = saveNotebook(folder, 'unknown', parameters);
  const output = join(folder, 'unknown.out.ipynb');
  const run = runNotebook(path, { output, parameters: { sample: 1 } });
  await expect(run).rejects.toThrow(/unknown parameter sample; known: samples, model/);
  expect(existsSync(output)).toBe(false);
});

test('a kernel that cannot start is an error with its reason', async () => {
  const { error } = await fail('no-kernel', ['1'], { command: [process.execPath, '-e', 'process.exit(3)'] });
  expect(error.message).toContain('DeadKernelError: the kernel ended by itself (exit code 3)');
});

test('a file that is no notebook is named', async () => {
  const path = join(folder, 'broken.ipynb');
  writeFileSync(path, '{');
  await expect(runNotebook(path)).rejects.toThrow(/broken\.ipynb: expected a notebook/);
  expect(readFileSync(path, 'utf8')).toBe('{');
});

test('no connection folder is left behind', () => {
  expect(readdirSync(folder).filter((name) => name.startsWith('response-time'))).toEqual([]);
});
