// The same library in a real Chromium. Where none is installed the tests are skipped, which their names say.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
// @ts-expect-error a script, which npm run browser starts as it is
import { servePage as serve } from '../../browser/serve.mjs';
import { projectRoot } from '../../lib/paths.js';

type Options = { folders?: readonly string[]; onReport?: (measured: unknown) => void };
const servePage: (options?: Options) => Promise<Server> = serve;

const names = [process.env.RESPONSE_TIME_BROWSER ?? '', 'chromium', 'chromium-browser', 'google-chrome'];
const browser = names.find((name) => name && spawnSync(name, ['--version']).status === 0);
const reason = browser ?? 'skipped: no Chromium on this machine, such as the Debian package chromium';

/** SmolLM2-135M-Instruct's folder, of scripts/smollm2.sh: in CI a step of its own. */
const smollm2 = process.env.RESPONSE_TIME_SMOLLM2;

const addressOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

describe.skipIf(!browser)(`the page in a browser (${reason})`, () => {
  let profile: string;
  let server: Server;
  let reported: (measured: unknown) => void;
  let chromium: ChildProcess | undefined;

  beforeAll(async () => {
    profile = await mkdtemp(join(tmpdir(), 'response-time-browser-'));
    server = await servePage({
      folders: smollm2 ? [smollm2] : [],
      onReport: (measured) => reported(measured),
    });
  });
  afterAll(async () => {
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  });

  async function runPage(parameters: Readonly<Record<string, string>>): Promise<unknown> {
    const query = new URLSearchParams({ run: '1', report: '1', ...parameters });
    const result = new Promise((resolve) => {
      reported = resolve;
    });
    chromium = spawn(
      browser!,
      [
        ...['--headless=new', '--no-sandbox', `--user-data-dir=${profile}`],
        ...['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
        `${addressOf(server)}/?${query}`,
      ],
      { stdio: 'ignore' },
    );
    const ended = new Promise<void>((resolve) => chromium!.once('exit', () => resolve()));
    try {
      return await result;
    } finally {
      chromium.kill();
      await ended;
    }
  }

  test.each(['tiny-gpt2', 'tiny-mistral'])('%s answers there as it does in Node', async (model) => {
    const measured = await runPage({ model, target: 'reference', new: '10', weights: 'int8' });
    expect(measured).toMatchObject({ model, weights: 'int8', text: 'Helsinki is the capital of Finland.' });
  });

  test('compiled to WebGPU it writes the same, here on an emulated GPU that the address names', async () => {
    const emulated = { target: 'webgpu', RESPONSE_TIME_WEBGPU: 'swiftshader' };
    const measured = await runPage({ ...emulated, model: 'tiny-gpt2', new: '10', weights: 'int8' });
    expect(measured).toMatchObject({ target: 'webgpu', text: 'Helsinki is the capital of Finland.' });
  });

  test.runIf(smollm2)(
    'SmolLM2 answers there, quantized on the way to the emulated GPU (where RESPONSE_TIME_SMOLLM2 names its folder)',
    async () => {
      const measured = await runPage({
        ...{ target: 'webgpu', RESPONSE_TIME_WEBGPU: 'swiftshader' },
        ...{ model: basename(smollm2!), weights: 'int8', prompt: 'What is the capital of France?', new: '7' },
      });
      expect(measured).toMatchObject({ target: 'webgpu', text: 'The capital of France is Paris.' });
    },
    900_000,
  );

  test('an emulated GPU is refused unless its name is given', async () => {
    const refused = await runPage({ model: 'tiny-gpt2', target: 'webgpu' });
    expect(refused).toMatchObject({ error: expect.stringMatching(/swiftshader is no GPU/i) });
  });
});

test.runIf(process.env.RESPONSE_TIME_REQUIRE === 'browser')('it is installed (RESPONSE_TIME_REQUIRE)', () => {
  expect(browser).toBeDefined();
});

describe("the page's server", () => {
  test('gives out the page and files of models, whole and by ranges, and nothing else', async () => {
    const server = await servePage();
    const get = (path: string, init?: RequestInit) => fetch(addressOf(server) + path, init);
    expect(await (await get('/')).text()).toMatch(/<form id="request">/);
    expect((await get('/page.js')).headers.get('content-type')).toMatch(/javascript/);
    expect(await (await get('/models/?names')).json()).toEqual(['tiny-gpt2', 'tiny-mistral']);
    const config = await (await get('/models/tiny-gpt2/config.json')).text();
    expect(JSON.parse(config)).toMatchObject({ model_type: 'gpt2' });
    const part = await get('/models/tiny-gpt2/config.json', { headers: { range: 'bytes=2-5' } });
    expect([part.status, await part.text()]).toEqual([206, config.slice(2, 6)]);
    for (const path of ['/models/tiny-gpt2/..%2f..%2fREADME.md', '/models/other/config.json', '/serve.mjs']) {
      expect((await get(path)).status).toBe(404);
    }
    server.close();
  });

  test('a folder that is no model is refused by name', async () => {
    await expect(servePage({ folders: [projectRoot()] })).rejects.toThrow(/expected a model's folder/);
  });
});
