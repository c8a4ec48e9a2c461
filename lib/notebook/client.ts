// A kernel as a child process. In: code. Out: its outputs as they come, its reply; an error if it dies.
// Source: the Jupyter messaging protocol 5.3; nbclient for what a client waits for.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { capability, Dealer, Subscriber } from 'zeromq';
import { projectRoot } from '../paths.js';
import { decodeMessage, encodeMessage, type WireMessage } from './wire.js';

const START_LIMIT_MS = 180_000; // on a busy machine the kernel may first have to build lib
const POLL_MS = 200;
const IDLE_LIMIT_MS = 3000; // the reply is what counts; the idle message after it only ends the outputs
const SHUTDOWN_LIMIT_MS = 2000;
const LAST_WORDS_MS = 500;
const LOG_CHARACTERS = 20_000;

/** How a kernel is started. */
export interface KernelOptions {
  /** Working directory; the kernel itself changes to the project's root. */
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Arguments of Node, such as `--max-old-space-size=4096`. */
  readonly nodeArguments?: readonly string[];
  /** The kernel's whole command, where `{connection_file}` stands for the file; the project's own unless told. */
  readonly command?: readonly string[];
  /** `tcp` on loopback; Unix sockets (`ipc`) where they exist unless told. */
  readonly transport?: 'ipc' | 'tcp';
}

/** A kernel that ended before it was asked to. */
export class DeadKernelError extends Error {
  override name = 'DeadKernelError';
}

/** A cell that ran past its limit. */
export class CellTimeoutError extends Error {
  override name = 'TimeoutError';
}

/** Receives the messages that belong to a request. */
export type Listener = (message: WireMessage) => void;

interface Pending {
  readonly listener: Listener;
  readonly reply: (content: WireMessage['content']) => void;
  readonly idle: () => void;
}

interface Connection {
  readonly transport: 'ipc' | 'tcp';
  readonly ip: string;
  readonly ports: readonly number[]; // shell, iopub, stdin, control, heartbeat
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}

/** Systems limit the path of a Unix socket to about 100 bytes. */
const SOCKET_PATH_LIMIT = 90;

/** Unix sockets where zeromq has them, else (Windows, or too long a path) ports on loopback. */
async function chooseConnection(folder: string, transport = 'ipc'): Promise<Connection> {
  if (transport === 'ipc' && capability.ipc && folder.length < SOCKET_PATH_LIMIT)
    return { transport: 'ipc', ip: join(folder, 'kernel'), ports: [1, 2, 3, 4, 5] };
  return { transport: 'tcp', ip: '127.0.0.1', ports: await Promise.all(Array.from({ length: 5 }, freePort)) };
}

/** Why a kernel ended, in words. */
function describeDeath(code: number | null, signal: NodeJS.Signals | null, log: string): string {
  if (/heap out of memory|Array buffer allocation failed|bad_alloc/.test(log))
    return 'the kernel ran out of memory';
  if (signal === 'SIGKILL') return 'the kernel was killed (SIGKILL): by hand, or by a system out of memory';
  return `the kernel ended by itself (${signal ?? `exit code ${code}`})\n${log.slice(-2000)}`.trim();
}

/** A running kernel. Make it with `startKernelClient`, end it with `close`. */
export class KernelClient {
  readonly process: ChildProcess;
  private readonly key = randomUUID();
  private readonly session = randomUUID();
  private readonly shell = new Dealer({ routingId: this.session, linger: 0 });
  private readonly control = new Dealer({ routingId: `${this.session}c`, linger: 0 });
  private readonly iopub = new Subscriber({ linger: 0 });
  private readonly pending = new Map<string, Pending>();
  private readonly death: Promise<never>;
  private log = '';
  private heard = false;
  private ended = false;
  private readonly killOnExit = () => this.process.kill('SIGKILL');

  constructor(
    private readonly folder: string,
    connection: Connection,
    options: KernelOptions,
  ) {
    const [shell, iopub, stdin, control, heartbeat] = connection.ports;
    const file = join(folder, 'connection.json');
    const fields = { shell_port: shell, iopub_port: iopub, stdin_port: stdin, control_port: control };
    const { transport, ip } = connection;
    const signature = { key: this.key, signature_scheme: 'hmac-sha256', kernel_name: 'tslab' };
    writeFileSync(file, JSON.stringify({ transport, ip, ...fields, hb_port: heartbeat, ...signature }), {
      mode: 0o600,
    });
    const launcher = join(projectRoot(), 'lib', 'bin', 'kernel.js');
    const command = options.command?.map((part) => part.replace('{connection_file}', file)) ?? [
      process.execPath,
      ...(options.nodeArguments ?? []),
      launcher,
      '--config-path',
      file,
    ];
    this.process = spawn(command[0]!, command.slice(1), {
      cwd: options.cwd ?? projectRoot(),
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.death = this.watch();
    const address = (port: number | undefined) =>
      `${transport}://${ip}${transport === 'ipc' ? '-' : ':'}${port}`;
    this.iopub.subscribe();
    this.iopub.connect(address(iopub));
    this.shell.connect(address(shell));
    this.control.connect(address(control));
    void this.listen();
  }

  /** Everything that the kernel's process itself wrote (its last 20,000 characters). */
  get processLog(): string {
    return this.log;
  }

  /** Follows the process; the promise rejects when it ends. */
  private watch(): Promise<never> {
    for (const stream of [this.process.stdout, this.process.stderr])
      stream?.on('data', (chunk: Buffer) => {
        this.log = (this.log + chunk).slice(-LOG_CHARACTERS);
      });
    process.once('exit', this.killOnExit);
    const death = new Promise<never>((_, reject) => {
      this.process.once('error', (error) =>
        reject(new DeadKernelError(`the kernel cannot start: ${error.message}`)),
      );
      this.process.once('exit', (code, signal) => {
        this.ended = true;
        process.removeListener('exit', this.killOnExit);
        const tell = () => reject(new DeadKernelError(describeDeath(code, signal, this.log)));
        this.process.once('close', tell); // its last words are read by now
        setTimeout(tell, LAST_WORDS_MS).unref(); // a process that it left behind may keep them open
      });
    });
    death.catch(() => {}); // whoever waits for an answer hears of it
    return death;
  }

  /** Hands each message to the request that it belongs to. */
  private async listen(): Promise<void> {
    const replies = async () => {
      for await (const frames of this.shell) {
        const { parent, content } = decodeMessage(this.key, frames);
        this.pending.get(parent.msg_id ?? '')?.reply(content);
      }
    };
    const outputs = async () => {
      for await (const frames of this.iopub) {
        const message = decodeMessage(this.key, frames);
        this.heard = true;
        const request = this.pending.get(message.parent.msg_id ?? '');
        if (message.header.msg_type !== 'status') request?.listener(message);
        else if (message.content.execution_state === 'idle') request?.idle();
      }
    };
    await Promise.allSettled([replies(), outputs()]); // both end when the sockets are closed
  }

  /**
   * Waits until the kernel answers and its outputs reach us.
   * @returns its kernel_info
   * @throws DeadKernelError if it ends before
   */
  async ready(): Promise<WireMessage['content']> {
    const deadline = Date.now() + START_LIMIT_MS;
    while (!this.heard) {
      if (Date.now() > deadline)
        throw new DeadKernelError(`the kernel did not answer in ${START_LIMIT_MS / 1000} s`);
      void this.request('kernel_info_request', {}).catch(() => {}); // outputs sent before we subscribed are lost
      await Promise.race([sleep(POLL_MS), this.death]);
    }
    return this.request('kernel_info_request', {});
  }

  /**
   * Sends a request and waits for its reply and for the end of its outputs. The listener goes on hearing messages of
   * this request that come later.
   * @param timeoutMs limit on the reply, none unless told
   * @throws DeadKernelError, CellTimeoutError, or the signal's reason
   */
  async request(
    type: string,
    content: object,
    listener: Listener = () => {},
    { timeoutMs, signal }: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<WireMessage['content']> {
    const { id, frames } = encodeMessage(this.key, this.session, type, content);
    const limits = limitsOf(timeoutMs, signal);
    let idle = () => {};
    const isIdle = new Promise<void>((resolve) => {
      idle = resolve;
    });
    try {
      const answer = new Promise<WireMessage['content']>((reply) => {
        this.pending.set(id, { listener, reply, idle });
      });
      void this.shell.send(frames).catch(() => {}); // a kernel that is gone reports by `death`
      const reply = await Promise.race([answer, this.death, limits.promise]);
      await Promise.race([isIdle, sleep(IDLE_LIMIT_MS, undefined, { ref: false })]);
      return reply;
    } finally {
      limits.clear();
    }
  }

  /** Interrupts the running cell. */
  async interrupt(): Promise<void> {
    await this.control.send(encodeMessage(this.key, this.session, 'interrupt_request', {}).frames);
  }

  /** Ends the kernel: asks it when it is well, kills it when it is not. */
  async close({ kill = false } = {}): Promise<void> {
    const gone = this.death.catch(() => {});
    if (!this.ended && !kill) {
      const { frames } = encodeMessage(this.key, this.session, 'shutdown_request', { restart: false });
      await this.control.send(frames).catch(() => {});
      await Promise.race([gone, sleep(SHUTDOWN_LIMIT_MS, undefined, { ref: false })]);
    }
    if (!this.ended) this.process.kill('SIGKILL');
    await gone;
    for (const socket of [this.shell, this.control, this.iopub]) socket.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A promise that rejects when the time is over or the signal aborts. */
function limitsOf(timeoutMs: number | undefined, signal: AbortSignal | undefined) {
  let clear = () => {};
  const promise = new Promise<never>((_, reject) => {
    const abort = () => reject(signal?.reason);
    const late = () =>
      reject(new CellTimeoutError(`ran longer than its limit of ${(timeoutMs ?? 0) / 1000} s`));
    const timer = timeoutMs === undefined ? undefined : setTimeout(late, timeoutMs);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    clear = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    };
  });
  promise.catch(() => {});
  return { promise, clear };
}

/** Starts a kernel and waits until it is ready. @throws DeadKernelError if it cannot start */
export async function startKernelClient(
  options: KernelOptions & { readonly signal?: AbortSignal } = {},
): Promise<{ client: KernelClient; info: WireMessage['content'] }> {
  const folder = mkdtempSync(join(tmpdir(), 'response-time-'));
  const client = new KernelClient(folder, await chooseConnection(folder, options.transport), options);
  const limits = limitsOf(undefined, options.signal);
  try {
    return { client, info: await Promise.race([client.ready(), limits.promise]) };
  } catch (error) {
    await client.close({ kill: true });
    throw error;
  } finally {
    limits.clear();
  }
}
