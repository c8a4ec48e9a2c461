import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type KernelClient, startKernelClient } from '../../lib/notebook/client.js';
import { installKernel } from '../../lib/notebook/install.js';
import type { WireMessage } from '../../lib/notebook/wire.js';
import { execute, streamText, temporaryFolder } from './helpers.js';

// One kernel for all: started as VS Code does it, by the installed kernelspec, with an empty PATH, far from the project.
const folder = temporaryFolder();
let client: KernelClient;
let info: WireMessage['content'];

/** The kernelspec's command, as Jupyter reads it. */
async function installedCommand(): Promise<string[]> {
  const { folder: specFolder } = await installKernel({ dataFolder: join(folder, 'jupyter') });
  return (JSON.parse(readFileSync(join(specFolder, 'kernel.json'), 'utf8')) as { argv: string[] }).argv;
}

beforeAll(async () => {
  const env = { PATH: '', NODE_NO_WARNINGS: '' };
  ({ client, info } = await startKernelClient({ cwd: folder, env, command: await installedCommand() }));
}, 180_000);
afterAll(() => client?.close());

const errorOf = (content: Readonly<Record<string, unknown>>) => `${content.ename}: ${content.evalue}`;

describe('a kernel started by its kernelspec with an empty PATH', () => {
  test('says what it speaks', () => {
    expect(info).toMatchObject({ status: 'ok', language_info: { name: 'typescript', version: '5.0.4' } });
  });

  test('imports the library by name, from any folder', async () => {
    const { reply } = await execute(client, "import { formatTable } from 'response-time/notebook/table';");
    expect(reply).toMatchObject({ status: 'ok', execution_count: expect.any(Number) });
    const { outputs } = await execute(client, 'formatTable({ a: 1 })');
    expect(outputs).toMatchObject([{ output_type: 'execute_result', data: { 'text/plain': 'a  1' } }]);
  });

  test('publishes what it runs, streams in order, and the last value', async () => {
    const { outputs, types } = await execute(
      client,
      "console.log('one'); console.error('two'); console.log('three'); [4, 5]",
    );
    expect(types[0]).toBe('execute_input');
    expect(outputs).toMatchObject([
      { name: 'stdout', text: 'one\n' },
      { name: 'stderr', text: 'two\n' },
      { name: 'stdout', text: 'three\n' },
      { output_type: 'execute_result', data: { 'text/plain': '[ 4, 5 ]' } },
    ]);
  });

  test('loses nothing of 2,000 displays and 2,000 lines sent at once', async () => {
    const code = `import { show } from 'response-time/notebook/display';
for (let i = 0; i < 2000; i++) { show(i); console.log(i); }`;
    const { outputs } = await execute(client, code);
    const numbers = Array.from({ length: 2000 }, (_, number) => String(number));
    const shown = outputs.flatMap((output) =>
      output.output_type === 'display_data' ? [output.data['text/plain']] : [],
    );
    expect(shown).toEqual(numbers);
    expect(streamText(outputs).trim().split('\n')).toEqual(numbers);
  });

  test('reports an error by message and reply, without frames of the kernel', async () => {
    const { reply, outputs } = await execute(
      client,
      "function inner(): never { throw new RangeError('too far'); }\ninner();",
    );
    expect(errorOf(reply)).toBe('RangeError: too far');
    expect(outputs).toMatchObject([{ output_type: 'error', ename: 'RangeError', evalue: 'too far' }]);
    expect((reply.traceback as string[]).join('\n')).toContain('at inner');
    expect((reply.traceback as string[]).join('\n')).not.toMatch(/tslab|kernel\.js/);
  });

  test('checks types strictly and names every place', async () => {
    const { reply } = await execute(client, 'const n: number = null;\nconst f = (x) => x;');
    expect(errorOf(reply)).toMatch(/^TypeScriptError: 1:7 .*null/);
    expect(reply.traceback).toEqual([
      'TypeScriptError: the cell was not run',
      expect.stringMatching(/^1:7 /),
      expect.stringMatching(/^2:12 /),
    ]);
  });

  test('knows the DOM and ES2023', async () => {
    const code = 'const last = [2, 1].findLast((n) => n > 1);\nnew AbortController().signal.aborted || last';
    expect((await execute(client, code)).outputs).toMatchObject([{ data: { 'text/plain': '2' } }]);
  });

  test('runs the next cell after an error, and aborts those that already waited', async () => {
    const [failed, waiting] = await Promise.all([
      execute(client, "throw new Error('first')"),
      execute(client, "console.log('never')"),
    ]);
    expect(failed.reply.status).toBe('error');
    expect(waiting.reply.status).toBe('aborted');
    expect(waiting.outputs).toEqual([]);
    expect((await execute(client, '1 + 1')).reply.status).toBe('ok');
  });

  test('blames a cell for a promise that nobody awaits', async () => {
    const { reply } = await execute(client, "void Promise.reject(new Error('dropped')); 1");
    expect(errorOf(reply)).toBe('Error: dropped');
  });

  test('ends a cell that waits for what has failed elsewhere', async () => {
    const code = "await new Promise(() => setTimeout(() => { throw new Error('in a timer'); }, 20));";
    expect(errorOf((await execute(client, code)).reply)).toBe('Error: in a timer');
  });

  test('gives late output and a late error to the cell that they came from', async () => {
    const late: string[] = [];
    const content = {
      code: "setTimeout(() => { console.log('late'); void Promise.reject(new Error('late error')); }, 300); 1",
      silent: false,
    };
    await client.request('execute_request', content, ({ header, content }) => {
      late.push(`${header.msg_type} ${content.text ?? content.evalue ?? ''}`.trim());
    });
    const { reply, outputs } = await execute(client, 'await new Promise((done) => setTimeout(done, 600)); 2');
    expect(reply.status).toBe('ok');
    expect(outputs).toMatchObject([{ data: { 'text/plain': '2' } }]);
    expect(late.slice(-2)).toEqual(['stream late', 'error late error']);
  });

  test('an interrupt ends the cell and aborts its signal, by message and by SIGINT', async () => {
    await execute(
      client,
      `import { interruptSignal } from 'response-time/notebook/display';
import { writeFileSync } from 'node:fs';
let stopped = 0;`,
    );
    const started = join(folder, 'started');
    const loop = `const signal = interruptSignal();
writeFileSync(${JSON.stringify(started)}, '');
while (!signal.aborted) await new Promise((done) => setTimeout(done, 5));
stopped++;`;
    const begun = async () => {
      await expect.poll(() => existsSync(started), { timeout: 15_000 }).toBe(true);
      rmSync(started);
    };
    const byMessage = execute(client, loop);
    await begun();
    await client.interrupt();
    expect((await byMessage).reply.status).toBe('error');
    const bySignal = execute(client, loop);
    await begun();
    client.process.kill('SIGINT');
    expect((await bySignal).reply.status).toBe('error');
    expect((await execute(client, 'stopped')).outputs).toMatchObject([{ data: { 'text/plain': '2' } }]);
  });

  test('a changed local module renews those that import it', async () => {
    // Inside the project, because a cell's relative imports start at its root.
    const relative = `results/latest/test-${process.pid}`;
    const place = join(import.meta.dirname, '..', '..', relative);
    mkdirSync(place, { recursive: true });
    const write = (name: string, text: string) => writeFileSync(join(place, `${name}.ts`), text);
    write('inner', 'export const value: number = 1;');
    write('outer', "import { value } from './inner';\nexport const twice = () => 2 * value;");
    const code = `import { twice } from './${relative}/outer';\ntwice()`;
    expect((await execute(client, code)).outputs).toMatchObject([{ data: { 'text/plain': '2' } }]);
    write('inner', 'export const value: number = 21;');
    await sleep(2000); // the compiler hears of the change
    expect((await execute(client, code)).outputs).toMatchObject([{ data: { 'text/plain': '42' } }]);
    rmSync(place, { recursive: true });
  });

  test('writes nothing of its own to its terminal', () => {
    expect(client.processLog).toBe('');
  });
});

test('a kernel that speaks over tcp ends with its parent', async () => {
  const code = `import('${join(import.meta.dirname, '..', '..', 'lib', 'dist', 'notebook', 'client.js')}')
    .then(({ startKernelClient }) => startKernelClient({ transport: 'tcp' }))
    .then(({ client }) => console.log(client.process.pid));`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const pid = await new Promise<number>((resolve) =>
    parent.stdout.once('data', (text) => resolve(Number(text))),
  );
  parent.kill('SIGKILL');
  const isAlive = () => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  for (let wait = 0; isAlive() && wait < 50; wait++) await sleep(100);
  expect(isAlive()).toBe(false);
}, 180_000);
