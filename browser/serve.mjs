// Serves the page that runs the library in a browser, on the target webgpu: npm run browser
// Bundles browser/page.ts and the library as they are now; node's modules are exchanged for those in browser/shims.
import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const embedded = fileURLToPath(new URL('../data/models', import.meta.url));

const HELP = `npm run browser -- [--port 8080] [MODEL FOLDER ...]

Opens a page on this machine that runs the embedded models, and those in the folders, in a browser with WebGPU.
Nothing leaves the machine: the page reads the weights from this server.
`;

/** The page's scripts by their paths, such as /page.js. */
export async function bundlePage() {
  const { outputFiles } = await build({
    entryPoints: [join(here, 'page.ts')],
    bundle: true,
    splitting: true,
    format: 'esm',
    target: 'es2023',
    outdir: here,
    write: false,
    logLevel: 'error',
    define: { process: 'pageProcess' },
    inject: [join(here, 'shims/globals.ts')],
    plugins: [{ name: 'shims', setup: useShims }],
  });
  return new Map(outputFiles.map(({ path, contents }) => [`/${basename(path)}`, contents]));
}

/** Node's modules: some have a shim; the others, backend.ts and adapterFiles.ts are needed where a browser never comes. */
function useShims({ onResolve, onLoad }) {
  const shims = { 'node:fs/promises': 'fs.ts', 'node:path': 'path.ts', 'node:url': 'url.ts' };
  onResolve({ filter: /^node:|\/(backend|adapterFiles)\.js$/ }, ({ path }) =>
    path in shims ? { path: join(here, 'shims', shims[path]) } : { path, namespace: 'absent' },
  );
  onLoad({ filter: /.*/, namespace: 'absent' }, ({ path }) => ({
    contents: `module.exports = new Proxy({}, { get() { throw new Error('${path} is not in a browser'); } });`,
  }));
}

/**
 * Starts the server on this machine alone.
 * @param {{ port?: number, folders?: readonly string[], onReport?: (measured: unknown) => void }} options
 * @returns {Promise<import('node:http').Server>}
 */
export async function servePage({ port = 0, folders = [], onReport = () => {} } = {}) {
  const scripts = await bundlePage();
  const models = new Map();
  for (const name of await readdir(embedded)) {
    if ((await stat(join(embedded, name))).isDirectory()) models.set(name, join(embedded, name));
  }
  for (const folder of folders) {
    const path = resolve(folder);
    await stat(join(path, 'config.json')).catch(() => {
      throw new Error(`${folder}: expected a model's folder with config.json in it`);
    });
    models.set(basename(path), path);
  }
  const server = createServer((request, response) => {
    answer(request, response, { scripts, models, onReport }).catch((error) => {
      response.writeHead(error.code === 'ENOENT' ? 404 : 500).end(String(error.message));
    });
  });
  await new Promise((done, fail) => server.once('error', fail).listen(port, '127.0.0.1', done));
  return server;
}

async function answer(request, response, { scripts, models, onReport }) {
  const { pathname, searchParams } = new URL(request.url, 'http://page');
  if (request.method === 'POST' && pathname === '/report') {
    let text = '';
    for await (const piece of request) text += piece;
    onReport(JSON.parse(text));
    response.writeHead(204).end();
  } else if (pathname === '/') {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(await readFile(join(here, 'index.html')));
  } else if (scripts.has(pathname)) {
    response.setHeader('content-type', 'text/javascript; charset=utf-8');
    response.end(scripts.get(pathname));
  } else if (pathname === '/models/') sendJson(response, [...models.keys()]);
  else {
    const [, root, model, name, ...more] = pathname.split('/').map(decodeURIComponent);
    const folder = root === 'models' && more.length === 0 ? models.get(model) : undefined;
    // A name alone: nothing outside of a model's folder is ever read.
    if (!folder || (name && basename(name) !== name)) response.writeHead(404).end('no such file');
    else if (!name && searchParams.has('names')) sendJson(response, await readdir(folder));
    else if (!name) response.writeHead(200, { 'x-kind': 'folder' }).end();
    else await sendFile(request, response, join(folder, name));
  }
}

function sendJson(response, value) {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
}

/** A file, or the range of it that was asked for. */
async function sendFile(request, response, file) {
  const { size } = await stat(file);
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  const start = range ? Number(range[1]) : 0;
  const end = range ? Math.min(Number(range[2]), size - 1) : size - 1;
  const isEmpty = start > end;
  const headers = {
    'content-length': isEmpty ? 0 : end - start + 1,
    'accept-ranges': 'bytes',
    'x-kind': 'file',
  };
  response.writeHead(range ? 206 : 200, {
    ...headers,
    ...(range ? { 'content-range': `bytes ${start}-${end}/${size}` } : {}),
  });
  if (request.method === 'HEAD' || isEmpty) response.end();
  else createReadStream(file, { start, end }).pipe(response);
}

async function main() {
  const { values, positionals } = parseArgs({
    options: { port: { type: 'string', default: '8080' }, help: { type: 'boolean', short: 'h' } },
    allowPositionals: true,
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const server = await servePage({ port: Number(values.port), folders: positionals });
  console.log(`http://127.0.0.1:${server.address().port}/   Ctrl-C ends it`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main().catch((error) => {
    console.error(`browser: ${error.message}`);
    process.exitCode = 1;
  });
}
