// What the kernel uses of tslab's server, as types, and an iopub socket that loses nothing.
// Source: tslab 1.0.22 dist/jupyter.d.ts, zeromq.js 6.
import type { Cell } from './cell.js';

/** A Jupyter message on its way. */
export interface Message {
  readonly header: { msg_type: string };
  content: object;
  createReply(): Message;
  signAndSend(key: string, socket: Socket): void;
}

/** A zeromq socket, as far as tslab uses it. */
export interface Socket {
  send(parts: readonly (string | Buffer)[]): Promise<void>;
  close(): void;
  bind(address: string): Promise<void>;
}

export interface ExecuteRequest {
  readonly code: string;
  readonly silent?: boolean;
  readonly cell: Cell;
}

export interface ExecuteReply {
  readonly status: string;
  readonly execution_count?: number;
  readonly user_expressions?: object;
  readonly payload?: readonly object[];
}

type Write = (chunk: string | Uint8Array, encoding?: string | (() => void), done?: () => void) => boolean;

/** tslab's JupyterHandlerImpl. */
export interface JupyterHandler {
  readonly execCount: number;
  handleExecute(request: ExecuteRequest, ...writers: unknown[]): Promise<ExecuteReply>;
  handleExecuteImpl(request: ExecuteRequest, ...writers: unknown[]): Promise<unknown>;
  createWriteToIopub(name: string): Write;
  handleKernel(): { readonly language_info: object };
}

/** tslab's ZmqServer. */
export interface TslabServer {
  readonly connInfo: { readonly key: string; readonly transport: string; readonly ip: string };
  readonly handler: JupyterHandler;
  readonly control: Socket;
  iopub: Socket;
  publishStatus(status: string, parent: Message): void;
  handleExecute(socket: Socket, message: Message): Promise<void>;
  bindSocket(socket: Socket, port: number): Promise<void>;
  close(): void;
}

/**
 * Sends in order and waits for room: zeromq.js refuses a send (EBUSY) after 512 in one turn of the event loop.
 * @param socket the publisher, whose limit on waiting messages is taken off
 */
function queued(socket: Socket & { sendHighWaterMark?: number }): Socket {
  socket.sendHighWaterMark = 0;
  const waiting: (readonly (string | Buffer)[])[] = [];
  const isBusy = (error: unknown) => (error as { code?: string }).code === 'EBUSY';
  /** Sends all that waits, a turn later after each refusal. */
  const drain = async () => {
    for (let parts = waiting[0]; parts; parts = waiting[0]) {
      try {
        await socket.send(parts);
        waiting.shift();
      } catch (error) {
        if (!isBusy(error)) return void waiting.splice(0); // closed: nobody listens any more
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  };
  return {
    bind: (address) => socket.bind(address),
    close: () => socket.close(),
    async send(parts) {
      if (waiting.length > 0) return void waiting.push(parts);
      try {
        await socket.send(parts); // at once where there is room: a synchronous loop shows its progress
      } catch (error) {
        if (isBusy(error) && waiting.push(parts) === 1) setImmediate(drain);
      }
    },
  };
}

/** Puts a queue before the iopub socket when the server makes it, and names Unix sockets as Jupyter does. */
export function mendSockets(server: TslabServer): void {
  server.bindSocket = function (socket, port) {
    const { transport, ip } = this.connInfo;
    return socket.bind(`${transport}://${ip}${transport === 'ipc' ? '-' : ':'}${port}`);
  };
  Object.defineProperty(server, 'iopub', {
    configurable: true,
    set(socket: Socket) {
      Object.defineProperty(this, 'iopub', { value: queued(socket) });
    },
  });
}
