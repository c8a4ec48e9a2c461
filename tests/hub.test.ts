import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cachedModelFolder, fetchDataset, fetchModel, isHubId, parseDatasetId } from '../lib/hub.js';
import { messageOf, temporaryFolder } from './checkpointFiles.js';
import { commit, digestOf, type HubBehaviour, type HubServer, hubServer } from './hubServer.js';

const weights = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 31) >> 3);
const plain = {
  files: {
    'README.md': 'not needed',
    'config.json': '{"model_type":"gpt2"}',
    'tokenizer.json': '{}',
    'model.safetensors': weights,
    'pytorch_model.bin': 'not needed beside safetensors',
    'flax_model.msgpack': 'not needed',
  },
  large: ['model.safetensors'],
} satisfies HubBehaviour;

/** Fetches owner/name from a server into a new cache. */
async function fetching(
  server: HubServer,
  home = temporaryFolder(),
  options: Parameters<typeof fetchModel>[1] = {},
) {
  const environment = { HF_ENDPOINT: server.url, HF_HOME: home, ...options.environment };
  return fetchModel('owner/name', { retryDelayMs: 1, ...options, environment });
}

/** Compared by Buffer: `toEqual` takes seconds for as many bytes. */
function holdsWeights(folder: string): boolean {
  return readFileSync(join(folder, 'model.safetensors')).equals(weights);
}

function contentsRequests({ requests }: HubServer): string[] {
  return requests
    .filter((request) => request.includes('/resolve/'))
    .map((request) => request.split('/').at(-1)!);
}

describe('fetching', () => {
  test('only what is needed, in the layout that Python reads', async () => {
    const home = temporaryFolder();
    const server = await hubServer({ ...plain });
    const folder = await fetching(server, home);
    const model = join(home, 'hub', 'models--owner--name');
    expect(folder).toBe(join(model, 'snapshots', commit));
    expect(readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(holdsWeights(folder)).toBe(true);
    expect(readFileSync(join(model, 'refs', 'main'), 'utf8')).toBe(commit);
    const link = join(folder, 'model.safetensors');
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readlinkSync(link)).toBe(`../../blobs/${digestOf(plain, 'model.safetensors')}`);
    expect(readdirSync(join(model, 'blobs')).some((name) => name.includes('incomplete'))).toBe(false);
  });

  test('nothing twice', async () => {
    const home = temporaryFolder();
    const server = await hubServer({ ...plain });
    const folder = await fetching(server, home);
    const before = contentsRequests(server).length;
    expect(await fetching(server, home)).toBe(folder);
    expect(contentsRequests(server)).toHaveLength(before);
    expect(cachedModelFolder('owner/name', { environment: { HF_HOME: home } })).toBe(folder);
  });

  test('shards that the index names; .bin where there is nothing else', async () => {
    for (const kind of ['safetensors', 'bin']) {
      const stem = kind === 'bin' ? 'pytorch_model' : 'model';
      const index = {
        weight_map: { a: `${stem}-1.${kind}`, b: `${stem}-2.${kind}`, c: `${stem}-1.${kind}` },
      };
      const files = {
        'config.json': '{}',
        [`${stem}.${kind}.index.json`]: JSON.stringify(index),
        [`${stem}-1.${kind}`]: 'one',
        [`${stem}-2.${kind}`]: 'two',
        [`${stem}-3.${kind}`]: 'not named',
      };
      const folder = await fetching(await hubServer({ files }));
      expect(readdirSync(folder)).toHaveLength(4);
      expect(readFileSync(join(folder, `${stem}-2.${kind}`), 'utf8')).toBe('two');
    }
  });

  test('progress counts bytes up to all of them', async () => {
    const seen: [number, number][] = [];
    await fetching(await hubServer({ ...plain }), temporaryFolder(), {
      onProgress: (...at) => seen.push(at),
    });
    expect(seen.at(-1)).toEqual([weights.length, weights.length]);
    expect(seen.every(([done], i) => i === 0 || done >= seen[i - 1]![0])).toBe(true);
  });

  test('a config that is refused spares the weights', async () => {
    const server = await hubServer({ ...plain });
    const checkConfig = (config: unknown) => {
      throw new Error(`unknown ${(config as { model_type: string }).model_type}`);
    };
    expect(await messageOf(fetching(server, temporaryFolder(), { checkConfig }))).toBe('unknown gpt2');
    expect(contentsRequests(server)).not.toContain('model.safetensors');
  });
});

describe('broken connections', () => {
  /** config.json and tokenizer.json come before the weights. */
  const smallFilesWhole = [Infinity, Infinity];

  test('a download goes on where it broke', async () => {
    const server = await hubServer({ ...plain });
    server.behaviour.breakAfter = [...smallFilesWhole, 100_000, 50_000];
    const folder = await fetching(server);
    expect(holdsWeights(folder)).toBe(true);
    const asked = contentsRequests(server).filter((request) => request.startsWith('model'));
    expect(asked[0]).toBe('model.safetensors');
    const starts = asked.slice(1).map((request) => Number(/bytes=(\d+)-$/.exec(request)?.[1]));
    // What the client had not yet read when the connection broke is sent once more.
    expect(starts).toHaveLength(2);
    expect(starts[0]).toBeGreaterThan(0);
    expect(starts[0]).toBeLessThanOrEqual(100_000);
    expect(starts[1]).toBeGreaterThan(starts[0]!);
    expect(starts[1]).toBeLessThanOrEqual(150_000);
  });

  test('a part of an earlier run, ours or Python’s, is used', async () => {
    const home = temporaryFolder();
    const blobs = join(home, 'hub', 'models--owner--name', 'blobs');
    mkdirSync(blobs, { recursive: true });
    writeFileSync(
      join(blobs, `${digestOf(plain, 'model.safetensors')}.incomplete`),
      weights.subarray(0, 1234),
    );
    const server = await hubServer({ ...plain });
    const folder = await fetching(server, home);
    expect(contentsRequests(server)).toContain('model.safetensors bytes=1234-');
    expect(holdsWeights(folder)).toBe(true);
  });

  test('a part that belongs to another file is fetched anew', async () => {
    const home = temporaryFolder();
    const blobs = join(home, 'hub', 'models--owner--name', 'blobs');
    mkdirSync(blobs, { recursive: true });
    for (const size of [1000, 400_000]) {
      writeFileSync(
        join(blobs, `${digestOf(plain, 'model.safetensors')}.incomplete`),
        new Uint8Array(size).fill(7),
      );
      const folder = await fetching(await hubServer({ ...plain }), home);
      expect(holdsWeights(folder)).toBe(true);
    }
  });

  test('a server without ranges starts again', async () => {
    const server = await hubServer({ ...plain, ignoresRanges: true });
    server.behaviour.breakAfter = [...smallFilesWhole, 100_000];
    const folder = await fetching(server);
    expect(holdsWeights(folder)).toBe(true);
  });

  test('one that never gets further ends with an error, and keeps its part', async () => {
    const home = temporaryFolder();
    const server = await hubServer({ ...plain });
    server.behaviour.breakAfter = [...smallFilesWhole, 100_000, ...Array(20).fill(0)];
    const message = await messageOf(fetching(server, home));
    const broke =
      /model.safetensors: the connection .* broke at byte (\d+) of 300000, .* run the command again/.exec(
        message,
      );
    expect(Number(broke?.[1])).toBeGreaterThan(0);
    server.behaviour.breakAfter = [];
    await fetching(server, home);
    expect(contentsRequests(server).at(-1)).toBe(`model.safetensors bytes=${broke![1]}-`);
  });

  test('busy and failing servers are asked again', async () => {
    const server = await hubServer({ ...plain, failWith: [503, 429] });
    await fetching(server);
    const down = await hubServer({ ...plain, failWith: Array(50).fill(500) });
    expect(await messageOf(fetching(down))).toMatch(/answered 500 .*try again later/);
  });

  test('an abort stops, and keeps what is there', async () => {
    const home = temporaryFolder();
    const controller = new AbortController();
    const running = fetching(await hubServer({ ...plain }), home, {
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
    expect(cachedModelFolder('owner/name', { environment: { HF_HOME: home } })).toBeUndefined();
  });
});

describe('refusals', () => {
  test.each(['model.safetensors', 'config.json'])(
    'a wrong checksum of %s: nothing of it stays',
    async (name) => {
      const home = temporaryFolder();
      const wrong = new Uint8Array(plain.files[name as 'config.json'].length).fill(1);
      const server = await hubServer({ ...plain, sends: { [name]: wrong } });
      const message = await messageOf(fetching(server, home));
      expect(message).toMatch(
        new RegExp(`${name}: expected checksum ${digestOf(plain, name)}, received [0-9a-f]+`),
      );
      const blobs = readdirSync(join(home, 'hub', 'models--owner--name', 'blobs'));
      expect(blobs.filter((blob) => blob.startsWith(digestOf(plain, name)))).toEqual([]);
      server.behaviour.sends = {};
      await fetching(server, home);
    },
  );

  test('more bytes than announced', async () => {
    const sends = { 'model.safetensors': new Uint8Array(weights.length + 5) };
    expect(await messageOf(fetching(await hubServer({ ...plain, sends })))).toMatch(
      /received more than its 300000 bytes/,
    );
  });

  test('a gated model says where to accept its terms', async () => {
    const server = await hubServer({ ...plain, token: 'hf_right' });
    expect(await messageOf(fetching(server))).toMatch(
      /answered 401: access is gated; .*owner\/name, then set HF_TOKEN/,
    );
    const environment = { HF_TOKEN: 'hf_wrong' };
    const message = await messageOf(fetching(server, temporaryFolder(), { environment }));
    expect(message).toMatch(/answered 403: access is gated; .* with the account of HF_TOKEN/);
    await fetching(server, temporaryFolder(), { environment: { HF_TOKEN: 'hf_right' } });
  });

  test('the token of a login is used, and goes to the hub alone', async () => {
    const home = temporaryFolder();
    writeFileSync(join(home, 'token'), 'hf_login\n');
    const cdn = await hubServer({ ...plain });
    const server = await hubServer({
      ...plain,
      token: 'hf_login',
      redirectTo: cdn.url.replace('127.0.0.1', 'localhost'),
    });
    const folder = await fetching(server, home);
    expect(server.tokens).toContain('Bearer hf_login');
    expect(cdn.requests).toEqual(['GET /cdn/model.safetensors']);
    expect(cdn.tokens).toEqual([undefined]);
    expect(holdsWeights(folder)).toBe(true);
  });

  test.each([
    [401, {}, /there is no such model, or it needs a token/],
    [401, { HF_TOKEN: 'hf_old' }, /the token is wrong or too old/],
    [404, {}, /there is no such model or file; check the name/],
  ])('status %i with %o', async (status, environment, message) => {
    const server = await hubServer({ ...plain, failWith: [status] });
    expect(await messageOf(fetching(server, temporaryFolder(), { environment }))).toMatch(message);
  });

  test.each([
    [{ 'README.md': '' }, /expected config.json among its files, found README.md/],
    [{ 'config.json': '{}', 'model.gguf': '' }, /expected model.safetensors or .*, found model.gguf/],
    [
      { 'config.json': '{}', 'model.safetensors.index.json': '{"weight_map":{"a":"../../x.safetensors"}}' },
      /expected a weight_map of file names/,
    ],
    [
      { 'config.json': '{}', 'model.safetensors.index.json': '{"weight_map":{"a":"x.safetensors"}}' },
      /expected x.safetensors with its checksum/,
    ],
  ])('a model of the files %o', async (files: Record<string, string>, message) => {
    expect(await messageOf(fetching(await hubServer({ files })))).toMatch(message);
  });

  test('what is no id', async () => {
    for (const id of ['gpt2', '../x', 'a/b/c', 'a/..', 'a/b?c', '']) {
      expect(isHubId(id)).toBe(false);
      expect(await messageOf(fetchModel(id, { environment: {} }))).toMatch(/expected owner\/name/);
    }
  });
});

describe('offline', () => {
  const nowhere = { HF_ENDPOINT: 'http://127.0.0.1:9' };

  test('without the model: what to do', async () => {
    const environment = { ...nowhere, HF_HOME: temporaryFolder() };
    const message = await messageOf(fetchModel('owner/name', { environment, retryDelayMs: 1 }));
    expect(message).toMatch(
      /owner\/name: cannot reach http:\/\/127.0.0.1:9 .*check the network, or set HF_ENDPOINT/,
    );
    const offline = { ...environment, HF_HUB_OFFLINE: '1' };
    expect(await messageOf(fetchModel('owner/name', { environment: offline }))).toMatch(
      /HF_HUB_OFFLINE is set, and/,
    );
  });

  test('with the model in the cache: its folder', async () => {
    const home = temporaryFolder();
    const folder = await fetching(await hubServer({ ...plain }), home);
    const environment = { ...nowhere, HF_HOME: home };
    expect(await fetchModel('owner/name', { environment, retryDelayMs: 1 })).toBe(folder);
    const server = await hubServer({ ...plain });
    expect(await fetching(server, home, { environment: { HF_HUB_OFFLINE: '1' } })).toBe(folder);
    expect(server.requests).toEqual([]);
  });

  test.skipIf(process.platform !== 'linux')(
    'a cache where nothing can be made (Linux has /proc)',
    async () => {
      const running = fetching(await hubServer({ ...plain }), '/proc/nowhere');
      expect(await messageOf(running)).toMatch(/\/proc\/nowhere.*no folder can be made here/);
    },
  );

  test('HF_HUB_CACHE names the cache itself', async () => {
    const cache = temporaryFolder();
    await fetching(await hubServer({ ...plain }), temporaryFolder(), {
      environment: { HF_HUB_CACHE: cache },
    });
    expect(existsSync(join(cache, 'models--owner--name', 'refs', 'main'))).toBe(true);
  });
});

describe('datasets', () => {
  const behaviour = { files: { 'README.md': '', 'dataset_infos.json': '{}', 'data/alpaca.json': '[1]' } };
  const get = (server: HubServer, name = 'owner/name', home = temporaryFolder(), more = {}) =>
    fetchDataset(name, { retryDelayMs: 1, environment: { HF_ENDPOINT: server.url, HF_HOME: home, ...more } });

  test('the JSON file of one is fetched once, to where Python keeps it', async () => {
    const [server, home] = [await hubServer({ ...behaviour }), temporaryFolder()];
    const file = await get(server, 'owner/name', home);
    expect(file).toBe(join(home, 'hub', 'datasets--owner--name', 'snapshots', commit, 'data', 'alpaca.json'));
    expect(readFileSync(file, 'utf8')).toBe('[1]');
    expect(await get(server, 'owner/name/data/alpaca.json', home)).toBe(file);
    expect(contentsRequests(server)).toHaveLength(1);
    expect(await get(server, 'owner/name', home, { HF_HUB_OFFLINE: '1' })).toBe(file);
    expect(await get({ ...server, url: 'http://127.0.0.1:1' }, 'owner/name', home)).toBe(file);
  });

  test.each([
    [
      'several',
      { files: { 'a.json': '', 'b.jsonl': '' } },
      'owner/name',
      /expected one JSON file, found 2 \(a\.json, b\.jsonl\); name one: owner\/name\/a\.json/,
    ],
    [
      'none',
      { files: { 'train.parquet': '' } },
      'owner/name',
      /expected a \.json or \.jsonl file .* found train\.parquet; Parquet is not read/,
    ],
    ['another', behaviour, 'owner/name/b.json', /expected b\.json among its files, found README\.md/],
  ])('with %s, the files are listed', async (_, files, name, message) => {
    await expect(get(await hubServer({ ...files }), name)).rejects.toThrow(message);
  });

  test('names', () => {
    expect(parseDatasetId('owner/name')).toEqual({ id: 'owner/name' });
    expect(parseDatasetId('owner/name/a/b.jsonl')).toEqual({ id: 'owner/name', file: 'a/b.jsonl' });
    for (const name of ['file.json', '/a/b', 'a/b/../c.json', './a/b.json', 'a/b/c.txt']) {
      expect(parseDatasetId(name)).toBeUndefined();
    }
  });
});
