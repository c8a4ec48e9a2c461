// A server on this machine that speaks the part of the hub's protocol that fetching a model needs, and misbehaves on
// demand: it breaks connections, knows no ranges, sends other bytes, gates a model, redirects to another host.

import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

export const commit = '0123456789abcdef0123456789abcdef01234567';

export interface HubBehaviour {
  /** Contents by name. */
  readonly files: Readonly<Record<string, Uint8Array | string>>;
  /** Names stored as large files, known by sha256. */
  readonly large?: readonly string[];
  /** Bytes after which each answer with a file's contents breaks off; one number an answer, then none. */
  breakAfter?: number[];
  ignoresRanges?: boolean;
  /** Statuses of the next answers, before any other. */
  failWith?: number[];
  /** What is sent for a file instead of its contents. */
  sends?: Readonly<Record<string, Uint8Array>>;
  /** Only this token may read files. */
  token?: string;
  /** Where contents of large files are, as a CDN's address. */
  redirectTo?: string;
}

export interface HubServer {
  readonly url: string;
  /** Method, path and range of each request, in order. */
  readonly requests: string[];
  /** Authorization of each request. */
  readonly tokens: (string | undefined)[];
  readonly behaviour: HubBehaviour;
}

/** Starts a hub with one model, owner/name; it ends with the test. */
export async function hubServer(behaviour: HubBehaviour): Promise<HubServer> {
  const requests: string[] = [];
  const tokens: (string | undefined)[] = [];
  const server: Server = createServer((request, response) => {
    requests.push([request.method, request.url, request.headers.range].filter(Boolean).join(' '));
    tokens.push(request.headers.authorization);
    answer(behaviour, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests, tokens, behaviour };
}

export function bytesOf(content: Uint8Array | string): Uint8Array {
  return typeof content === 'string' ? new TextEncoder().encode(content) : content;
}

export function digestOf({ large = [], files }: HubBehaviour, name: string): string {
  const bytes = bytesOf(files[name]!);
  if (large.includes(name)) return createHash('sha256').update(bytes).digest('hex');
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

function answer(behaviour: HubBehaviour, request: IncomingMessage, response: ServerResponse): void {
  // A dataset is served as the model is, under the addresses of its kind.
  const pathname = new URL(request.url!, 'http://hub').pathname
    .replace('/api/datasets/', '/api/models/')
    .replace('/datasets/', '/');
  const status = behaviour.failWith?.shift();
  if (status !== undefined) refuse(response, status);
  else if (pathname.startsWith('/api/models/owner/name/revision/')) {
    sendJson(response, { id: 'owner/name', sha: commit });
  } else if (pathname === `/api/models/owner/name/tree/${commit}`) sendJson(response, listingOf(behaviour));
  else answerFile(behaviour, request, response, pathname);
}

function answerFile(
  behaviour: HubBehaviour,
  request: IncomingMessage,
  response: ServerResponse,
  pathname: string,
): void {
  const { files, large, token, redirectTo, sends } = behaviour;
  const { authorization } = request.headers;
  const name = /^\/(?:owner\/name\/resolve\/[0-9a-f]{40}|cdn)\/(.+)$/.exec(pathname)?.[1];
  if (name === undefined || !(name in files)) refuse(response, 404, 'RepoNotFound');
  else if (token && authorization !== `Bearer ${token}`)
    refuse(response, authorization ? 403 : 401, 'GatedRepo');
  else if (redirectTo && large?.includes(name)) {
    response.writeHead(302, { location: `${redirectTo}/cdn/${name}` }).end();
  } else sendContents(behaviour, request, response, sends?.[name] ?? bytesOf(files[name]!));
}

function sendContents(
  behaviour: HubBehaviour,
  { headers }: IncomingMessage,
  response: ServerResponse,
  bytes: Uint8Array,
): void {
  const start = behaviour.ignoresRanges ? 0 : Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0);
  const part = bytes.subarray(start);
  const range = { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
  response.writeHead(start > 0 ? 206 : 200, { 'content-length': part.length, ...(start > 0 ? range : {}) });
  const limit = behaviour.breakAfter?.shift();
  if (limit === undefined || limit >= part.length) response.end(part);
  else response.write(part.subarray(0, limit), () => setTimeout(() => response.socket?.end(), 30));
}

function listingOf(behaviour: HubBehaviour): unknown {
  return Object.entries(behaviour.files).map(([path, content]) => {
    const size = bytesOf(content).length;
    const digest = digestOf(behaviour, path);
    if (!behaviour.large?.includes(path)) return { type: 'file', path, size, oid: digest };
    return { type: 'file', path, size, oid: 'f'.repeat(40), lfs: { oid: digest, size, pointerSize: 134 } };
  });
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code?: string): void {
  response.writeHead(status, code ? { 'x-error-code': code } : {}).end();
}
