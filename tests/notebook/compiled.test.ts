// The compiler in real tslab cells: tokens as they come, interrupts, errors, and nothing left behind.
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type KernelClient, startKernelClient } from '../../lib/notebook/client.js';
import { execute, streamText, temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
let client: KernelClient;

const PREPARE = `
import * as tf from '@tensorflow/tfjs-core';
import { selectBackend } from 'response-time/backend';
import { compileModel } from 'response-time/compile';
import { collect, generate } from 'response-time/generate';
import { jit, scan } from 'response-time/jit';
import { loadModel } from 'response-time/model';
import { interruptSignal } from 'response-time/notebook/display';
import { modelsFolder } from 'response-time/paths';
await selectBackend('cpu');
const loaded = await loadModel(modelsFolder() + '/tiny-gpt2');
const compiled = await compileModel(loaded, { target: 'wasm' });
const prompt = loaded.tokenizer!.encode('Which city is the capital of Finland?');`;

beforeAll(async () => {
  ({ client } = await startKernelClient({ cwd: folder }));
  const { reply } = await execute(client, PREPARE, 120_000);
  expect(reply).toMatchObject({ status: 'ok' });
}, 180_000);
afterAll(() => client?.close());

/** Threads of a process, as Linux counts them. */
const threadsOf = (pid: number) => readdirSync(`/proc/${pid}/task`).length;

describe('in a tslab cell', () => {
  test('tokens are shown one after the other, while the loop goes on', async () => {
    const code = `await null;
for await (const { id } of generate(compiled, prompt, { maxNewTokens: 60, ignoreEos: true })) console.log(id);`;
    const { reply, outputs, types } = await execute(client, code, 120_000);
    expect(reply).toMatchObject({ status: 'ok' });
    expect(streamText(outputs).trim().split('\n')).toHaveLength(60);
    expect(types.filter((type) => type === 'stream').length).toBeGreaterThanOrEqual(1);
  });

  test('an interrupt stops the compiled loop, and the next cell works', async () => {
    const code = `await null;
const result = await collect(compiled, prompt, { maxNewTokens: 480, ignoreEos: true, signal: interruptSignal() });
console.log(result.finish, result.newIds.length);`;
    const running = execute(client, code, 120_000);
    await sleep(300);
    await client.interrupt();
    const { reply, outputs } = await running;
    // The cell may end by its own last line or by the interrupt, whichever is first; the loop has ended in both.
    if (reply.status === 'ok') expect(streamText(outputs)).toMatch(/^(aborted|length) \d+/);
    else expect(reply.status).toMatch(/error|abort/);
    const next = await execute(
      client,
      'const again = await collect(compiled, prompt, { maxNewTokens: 3, ignoreEos: true });\nagain.newIds.length',
      120_000,
    );
    expect(next.outputs).toMatchObject([{ data: { 'text/plain': '3' } }]);
  });

  test('an error in a compiled function names the operation and the line of the cell', async () => {
    const code = `const reads = jit((x: tf.Tensor) => tf.add(x, x.dataSync()[0]!), { target: 'wasm' });
await reads(tf.ones([2]));`;
    const { reply, outputs } = await execute(client, code, 60_000);
    expect(reply.status).toBe('error');
    expect(String(reply.evalue)).toMatch(/dataSync|read/);
    expect(outputs.at(-1)).toMatchObject({ output_type: 'error' });
    await execute(client, "const twice = jit((x: tf.Tensor) => tf.mul(x, 2), { target: 'wasm' });", 60_000);
    const use = 'Array.from(await (await twice(tf.ones([2]))).data())';
    const { outputs: after } = await execute(client, use, 60_000);
    expect(after).toMatchObject([{ data: { 'text/plain': '[ 2, 2 ]' } }]);
  });

  test('a scan of your own streams and ends', async () => {
    const code = `const count = jit((x: tf.Tensor) => scan((c) => ({ carry: tf.add(c, 1), output: c }), x, 5), { target: 'wasm' });`;
    expect((await execute(client, code, 60_000)).reply).toMatchObject({ status: 'ok' });
    const use = 'Array.from(await (await count(tf.zeros([1]))).outputs.data())';
    const { outputs } = await execute(client, use, 60_000);
    expect(outputs).toMatchObject([{ data: { 'text/plain': '[ 0, 1, 2, 3, 4 ]' } }]);
  });

  test.runIf(process.platform === 'linux')(
    'a restart leaves no worker and no process (Linux counts them in /proc)',
    async () => {
      const { outputs } = await execute(client, 'console.log(process.pid)');
      const pid = Number(streamText(outputs));
      expect(threadsOf(pid)).toBeGreaterThan(1);
      await client.close();
      await expect.poll(() => readdirSync('/proc').includes(String(pid)), { timeout: 10_000 }).toBe(false);
      ({ client } = await startKernelClient({ cwd: folder }));
      const again = await execute(client, PREPARE, 120_000);
      expect(again.reply).toMatchObject({ status: 'ok' });
    },
  );
});
