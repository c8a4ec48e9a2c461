// lib/hub/client.ts: requests to the Hugging Face hub: endpoint, token, retries, and errors that say what to do.
// It is a `fetch` for @huggingface/hub as well, whose own errors know the status alone.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Environment } from '../paths.js';
import { hubHome } from './cache.js';

export interface HubClient {
  readonly endpoint: string;
  /** Waits between two tries, doubled each time. */
  readonly retryDelayMs: number;
  /** @throws Error that says what to do, unless the answer is 2xx */
  readonly fetch: typeof fetch;
}

export interface ClientOptions {
  readonly environment: Environment;
  readonly signal?: AbortSignal;
  readonly retryDelayMs?: number;
}

/** The hub could not be reached at all: what is in the cache may do instead. */
export class HubUnreachable extends Error {
  override readonly name = 'HubUnreachable';
}

/** Tries of a request, and of a download that stands still. */
export const maxTries = 5;

/** A client for one model, so that errors can name it. */
export function hubClient(id: string, { environment, signal, retryDelayMs = 500 }: ClientOptions): HubClient {
  const endpoint = (environment.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
  const token = accessToken(environment);
  const request = async (input: Parameters<typeof fetch>[0], init: RequestInit = {}): Promise<Response> => {
    const headers = new Headers(init.headers);
    const url = input instanceof Request ? input.url : String(input);
    // The token is for the hub alone; fetch drops it when a download is redirected to another host.
    if (token && url.startsWith(`${endpoint}/`)) headers.set('authorization', `Bearer ${token}`);
    for (let attempt = 1; ; attempt++) {
      const outcome = await attemptOnce(input, { ...init, headers, signal: signal ?? null });
      if (outcome instanceof Response && outcome.ok) return outcome;
      const mayRetry = outcome instanceof Response ? isTransient(outcome.status) : isBroken(outcome);
      if (!mayRetry || attempt === maxTries)
        throw explained(outcome, { id, endpoint, hasToken: token !== undefined });
      await sleep(retryDelayMs * 2 ** (attempt - 1), undefined, { signal });
    }
  };
  return { endpoint, retryDelayMs, fetch: request };
}

/** HF_TOKEN, else what `huggingface-cli login` left. */
function accessToken(environment: Environment): string | undefined {
  const given = environment.HF_TOKEN || environment.HUGGING_FACE_HUB_TOKEN;
  if (given) return given.trim();
  const file = environment.HF_TOKEN_PATH || join(hubHome(environment), 'token');
  return (existsSync(file) && readFileSync(file, 'utf8').trim()) || undefined;
}

async function attemptOnce(input: Parameters<typeof fetch>[0], init: RequestInit): Promise<Response | Error> {
  return fetch(input, init).catch((error: Error) => {
    if (init.signal?.aborted) throw error;
    return error;
  });
}

function isTransient(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** A host that is not there, or does not answer within undici's 10 s. */
const absent = [
  ...['ENOTFOUND', 'EAI_AGAIN', 'ECONNREFUSED', 'ENETUNREACH', 'EHOSTUNREACH'],
  'UND_ERR_CONNECT_TIMEOUT',
];

/** A connection that broke may work again; a host that is not there will not. */
function isBroken(error: Error): boolean {
  return !absent.includes(codeOf(error));
}

function codeOf(error: Error): string {
  const cause = error.cause as { code?: string } | undefined;
  return cause?.code ?? error.message;
}

function explained(
  outcome: Response | Error,
  { id, endpoint, hasToken }: { id: string; endpoint: string; hasToken: boolean },
): Error {
  if (outcome instanceof Error) {
    const advice =
      "check the network, or set HF_ENDPOINT to a mirror; offline, give the folder of a model that you have, or copy another machine's Hugging Face cache and name it by HF_HOME";
    return new HubUnreachable(`${id}: cannot reach ${endpoint} (${codeOf(outcome)}); ${advice}`);
  }
  void outcome.body?.cancel();
  const { status } = outcome;
  const isGated = outcome.headers.get('x-error-code') === 'GatedRepo' || status === 403;
  const answer = `${id}: ${endpoint} answered ${status}`;
  if (isGated && hasToken) {
    return new Error(
      `${answer}: access is gated; accept its terms at ${endpoint}/${id} with the account of HF_TOKEN`,
    );
  }
  if (isGated) {
    return new Error(`${answer}: access is gated; accept its terms at ${endpoint}/${id}, then set HF_TOKEN`);
  }
  if (status === 401) {
    const advice = hasToken
      ? 'the token is wrong or too old; set another HF_TOKEN'
      : 'set HF_TOKEN if it is private';
    return new Error(`${answer}: there is no such model, or it needs a token; check the name, ${advice}`);
  }
  if (status === 404) return new Error(`${answer}: there is no such model or file; check the name`);
  return new Error(`${answer} to ${outcome.url}; try again later`);
}
