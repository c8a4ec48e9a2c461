// browser/shims/fs.ts: what the library asks of node:fs/promises, answered by the page's server: files of models are
// read over HTTP, large ones by ranges. A path of the library is a path on the server.

/** An error as node's: the library looks at its code. */
function failure(path: string, status: number): Error {
  const code = status === 404 ? 'ENOENT' : 'EIO';
  return Object.assign(new Error(`${code}: ${path}: the server answered ${status}`), { code });
}

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(path, init);
  if (!response.ok) throw failure(path, response.status);
  return response;
}

export async function readFile(path: string, encoding?: 'utf8'): Promise<string | Uint8Array> {
  const response = await request(path);
  return encoding === 'utf8' ? response.text() : new Uint8Array(await response.arrayBuffer());
}

/** Names in a folder. */
export async function readdir(path: string): Promise<string[]> {
  return (await request(`${path}/?names`)).json() as Promise<string[]>;
}

export async function stat(path: string): Promise<Stats> {
  const { headers } = await request(path, { method: 'HEAD' });
  return new Stats(headers.get('x-kind') === 'folder', Number(headers.get('content-length')));
}

class Stats {
  constructor(
    readonly folder: boolean,
    readonly size: number,
  ) {}
  isDirectory(): boolean {
    return this.folder;
  }
  isFile(): boolean {
    return !this.folder;
  }
}

/** A file that is open for reading. */
class RemoteFile {
  constructor(readonly path: string) {}

  stat(): Promise<Stats> {
    return stat(this.path);
  }

  /** Fills `into` from `offset` with `length` bytes that start at `position` of the file. */
  async read(
    into: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }> {
    if (length === 0) return { bytesRead: 0 };
    const range = { range: `bytes=${position}-${position + length - 1}` };
    const bytes = new Uint8Array(await (await request(this.path, { headers: range })).arrayBuffer());
    into.set(bytes.subarray(0, length), offset);
    return { bytesRead: Math.min(length, bytes.length) };
  }

  async close(): Promise<void> {}
}

export async function open(path: string): Promise<RemoteFile> {
  return new RemoteFile(path);
}

function refuse(): never {
  throw new Error('a browser writes no files');
}

export {
  refuse as mkdir,
  refuse as realpath,
  refuse as rename,
  refuse as rm,
  refuse as rmdir,
  refuse as writeFile,
};
